//! The report of given rows: exact medians, ratios and verdicts, and what is said of a line that is no row.

use std::path::Path;

use super::stats::{Spread, groups, ratio};
use super::{read, run, tables, targets};
use crate::row::{Row, Sink};

/// Rows of a part in its file in `dir`.
fn put(dir: &Path, part: &'static str, rows: Vec<Row>) {
    let mut sink = Sink::open(dir, part, true).unwrap();
    rows.into_iter().for_each(|row| sink.write(row).unwrap());
}

/// Rates of a system at one N, one a round.
fn rates(system: &str, variant: &str, n: usize, rates: &[f64]) -> Vec<Row> {
    let row = |(at, rate): (usize, &f64)| Row {
        ops_per_s: Some(*rate),
        ..Row::new(system, variant).n(n).bytes(128).round(at + 1)
    };
    rates.iter().enumerate().map(row).collect()
}

/// A row with a median latency.
fn p50(system: &str, variant: &str, n: Option<u64>, us: f64) -> Row {
    Row { p50_us: Some(us), n, ..Row::new(system, variant).bytes(128).round(1) }
}

fn verdict(rows: &[Row], what: &str) -> (String, String) {
    let target = targets::all(rows).into_iter().find(|target| target.what == what);
    let target = target.unwrap_or_else(|| panic!("there is no target {what}"));
    (target.seen, target.verdict)
}

#[test]
fn medians_are_those_in_the_middle() {
    let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
    assert_eq!((spread.median, spread.least, spread.most), (3.0, 1.0, 5.0));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 10.0]).unwrap().median, 3.0);
    assert_eq!(Spread::of([]), None);
}

#[test]
fn a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() {
    let mut rows = rates("one", "v", 1, &[100.0, 300.0, 200.0]);
    rows.extend(rates("other", "v", 1, &[50.0, 100.0, 200.0]));
    let groups = groups(&rows, "");
    let ratio = ratio(&groups[0], &groups[1], |row| row.ops_per_s).unwrap();
    assert_eq!((ratio.of_medians, ratio.least, ratio.most), (2.0, 1.0, 3.0));
}

#[test]
fn rows_of_different_sizes_or_numbers_are_not_thrown_together() {
    let mut rows = rates("s", "v", 1, &[1.0]);
    rows.extend(rates("s", "v", 16, &[1.0]));
    rows.extend(rates("s", "w", 1, &[1.0]));
    rows.push(Row { bytes: Some(1024), ..rates("s", "v", 1, &[1.0]).swap_remove(0) });
    assert_eq!(groups(&rows, "").len(), 4);
    assert_eq!(groups(&rows, "another").len(), 0);
}

#[test]
fn targets_are_met_or_missed_by_what_the_rows_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut peers = rates("quorate engine", "counter", 64, &[90.0, 100.0, 110.0]);
    peers.extend(rates("quorate engine", "counter", 1, &[10.0, 10.0, 10.0]));
    peers.extend(rates("SOFAJRaft", "bytes", 64, &[40.0, 40.0, 40.0]));
    peers.extend(rates("SOFAJRaft", "bytes", 1, &[20.0, 20.0, 20.0]));
    put(dir.path(), "peers", peers);
    let floor = [p50("machine", "fdatasync", None, 100.0), p50("machine", "loopback round trip", None, 20.0)];
    put(dir.path(), "engine", [floor.to_vec(), vec![p50("quorate engine", "counter", Some(1), 180.0)]].concat());
    let mut clojure = rates("quorate clojure", "bytes", 64, &[95.0]);
    clojure.extend(rates("quorate engine", "counter", 64, &[100.0]));
    put(dir.path(), "clojure", clojure);
    let pauses =
        |gap: f64| Row::new("quorate clojure", "state in the JVM").more("elections", 0).more("gap_p99_ms", gap);
    put(dir.path(), "pauses", vec![pauses(80.0), pauses(150.0)]);
    let restart = |seconds| Row::new("quorate engine", "restart").seconds(seconds).more("commands", 1_000_000);
    put(dir.path(), "recovery", vec![restart(1.0), restart(3.0), restart(1.5)]);
    let rows = read::all(dir.path()).unwrap().rows;
    let jraft = verdict(&rows, "Engine ÷ SOFAJRaft, every N");
    assert_eq!(jraft, ("0.50 × (0.50–0.50) at N = 1".into(), "**missed by 50 %**".into()));
    let at_64 = verdict(&rows, "Engine ÷ SOFAJRaft, N ≥ 64");
    assert_eq!(at_64, ("2.50 × (2.25–2.75) at N = 64".into(), "**missed by 17 %**".into()));
    let one = verdict(&rows, "One operation ÷ (one fdatasync + one round trip), p50");
    assert_eq!(one, ("1.50 × (180 µs; 100 µs + 20 µs)".into(), "**missed by 20 %**".into()));
    assert_eq!(verdict(&rows, "Through Clojure ÷ engine alone, byte arrays, every N").1, "met");
    assert_eq!(verdict(&rows, "Elections during full collections, state in the JVM").1, "met");
    let gaps = verdict(&rows, "Heartbeat gaps meanwhile, p99, state in the JVM");
    assert_eq!(gaps, ("150.0 ms".into(), "**missed by 50 %**".into()));
    assert_eq!(verdict(&rows, "1,000,000 entries: restart"), ("1.50 s (1.00–3.00)".into(), "met".into()));
    for unmeasured in ["Engine ÷ Aeron Cluster, every N", "Leader killed → next write acknowledged"] {
        assert_eq!(verdict(&rows, unmeasured), ("–".into(), "not measured".into()));
    }
}

#[test]
fn one_election_misses_a_target_of_none() {
    let row = Row { part: "pauses".into(), ..Row::new("quorate clojure", "state in the engine").more("elections", 2) };
    assert_eq!(verdict(&[row], "Elections during full collections, state in the engine").1, "**missed by 2**");
}

#[test]
fn the_report_has_every_figure_and_the_plots_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = rates("quorate engine", "counter", 1, &[2_000.0, 2_100.0, 1_950.0]);
    rows.extend(rates("quorate engine", "counter", 64, &[86_224.0, 90_000.0, 80_000.0]));
    rows.extend(rates("Aeron Cluster", "bytes", 64, &[50_000.0, 45_000.0, 40_000.0]));
    rows.iter_mut().for_each(|row| (row.p50_us, row.p99_us) = (Some(10.0), Some(20.0)));
    put(dir.path(), "peers", rows);
    let timeline = serde_json::json!({"label": "MiB", "series": {"memory": [[0, 1], [1.5, 2]], "odd": [["x", 1]]}});
    put(dir.path(), "growth", vec![Row::new("quorate engine", "log").seconds(1.5).more("timeline", timeline)]);
    put(dir.path(), "machine", vec![Row::new("machine", "facts").more("cores", 2).more("disk", "vda")]);
    put(dir.path(), "status", vec![Row::new("make bench", "codec").seconds(3.2).more("outcome", "missing")]);
    run(dir.path(), None).unwrap();
    let text = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
    for line in [
        "| quorate engine, counter, 128 B | 2,000 (1,950–2,100) | 86,224 (80,000–90,000) |",
        "| Aeron Cluster, bytes, 128 B | 1.92 × (1.72–2.00) |",
        "| Engine ÷ Aeron Cluster, every N | ≥ 1 × | 1.92 × (1.72–2.00) at N = 64 | met |",
        "| cores | 2 |",
        "| codec | 3 | missing |",
        "| quorate engine, log | 1 | 1.50 |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for file in ["peers-throughput.svg", "peers-latency.svg", "growth-timeline-1.svg"] {
        assert!(text.contains(&format!("({file})")), "{file} is not shown in\n{text}");
        let svg = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(svg.contains("</svg>") && svg.contains("<polyline"), "{file} shows nothing");
    }
    assert!(!dir.path().join("growth-throughput.svg").exists(), "there is nothing to show");
}

#[test]
fn a_line_that_is_no_row_is_named_with_its_file_and_number_and_the_rest_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "codec", vec![Row::new("quorate", "encode").seconds(1.0)]);
    let path = dir.path().join("codec.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}\n{{\"part\": \"codec\", \"sys\n{text}")).unwrap();
    let failure = run(dir.path(), None).unwrap_err();
    assert!(failure.message.contains("codec.jsonl, line 3:"), "{failure}");
    let report = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(report.contains("codec.jsonl, line 3:") && report.contains("| quorate, encode | 2 |"), "{report}");
}

#[test]
fn without_rows_there_is_no_report() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), None).unwrap_err().message.contains("no rows"));
    assert!(run(&dir.path().join("none"), None).is_err());
    assert!(!dir.path().join("report.md").exists());
}

#[test]
fn what_an_earlier_run_left_is_said_to_be_of_it() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "codec", vec![Row::new("quorate", "encode")]);
    let old = std::fs::File::options().append(true).open(dir.path().join("codec.jsonl")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    put(dir.path(), "bridge", vec![Row::new("bridge", "poll")]);
    put(dir.path(), "machine", vec![Row::new("machine", "facts")]);
    let newer = std::fs::File::options().append(true).open(dir.path().join("bridge.jsonl")).unwrap();
    newer.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
    let found = read::all(dir.path()).unwrap();
    assert_eq!(found.earlier, ["codec"]);
    assert!(tables::report(&found, &[]).contains("## codec\n\nOf an earlier run"));
}

#[test]
fn numbers_have_the_digits_that_matter() {
    let numbers = [1_234_567.4, 999.6, 42.0, 41.96, 1.5, 0.25, -1_500.0, 0.0];
    let told: Vec<String> = numbers.into_iter().map(tables::number).collect();
    assert_eq!(told, ["1,234,567", "1,000", "42", "42.0", "1.50", "0.2500", "-1,500", "0"]);
}

#[test]
fn a_document_gets_the_tables_in_their_place_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "codec", vec![Row::new("quorate", "encode").seconds(1.0)]);
    let document = dir.path().join("document.md");
    std::fs::write(&document, "# Title\nbefore\n<!-- report begins -->\nold\n<!-- report ends -->\nafter\n").unwrap();
    for _ in 0..2 {
        run(dir.path(), Some(&document)).unwrap();
    }
    let text = std::fs::read_to_string(&document).unwrap();
    assert!(text.starts_with("# Title\nbefore\n<!-- report begins -->\n\n## Benchmark report\n"), "{text}");
    assert!(text.ends_with("\n\n<!-- report ends -->\nafter\n") && text.contains("### codec"), "{text}");
    assert!(!text.contains("old") && text.matches("quorate, encode").count() == 1, "{text}");
    std::fs::write(&document, "# Title\n").unwrap();
    assert!(run(dir.path(), Some(&document)).unwrap_err().message.contains("document.md has no lines"));
}

#[test]
fn memory_of_a_node_is_held_against_what_it_may_take() {
    let row = |variant: &str, mib: u64| Row {
        part: "growth".into(),
        ..Row::new("quorate engine", variant).round(1).more("memory_mib", mib)
    };
    let rows = [row("1000000 keys", 400), row("follower stopped", 640)];
    let verdict = |variant: &str| verdict(&rows, &format!("Memory of a node, {variant}"));
    assert_eq!(verdict("1000000 keys"), ("400 MiB".into(), "met".into()));
    assert_eq!(verdict("follower stopped"), ("640 MiB".into(), "**missed by 25 %**".into()));
    assert_eq!(verdict("host of the leader stuck").1, "not measured");
}
