//! Runs the program as a person does: short runs, true figures, nothing left behind.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(words: &str, dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    command.args(words.split_whitespace()).arg("--dir").arg(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number under `name` in a line of JSON.
fn number(line: &str, name: &str) -> f64 {
    let rest = line.split_once(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("no {name} in {line}")).1;
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

fn pids(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_once(" is process ")?.1.strip_suffix('.')).collect()
}

#[test]
fn a_run_tells_its_figures_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench("writers --writers 1,16 --seconds 1 --bytes 64", dir.path());
    let (figures, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let lines: Vec<&str> = figures.lines().collect();
    assert_eq!(lines.len(), 2, "{figures}");
    for (line, writers) in lines.iter().zip([1.0, 16.0]) {
        assert_eq!(number(line, "writers"), writers);
        assert_eq!(number(line, "bytes"), 64.0);
        let (ops, rate, seconds) = (number(line, "ops"), number(line, "ops_per_s"), number(line, "seconds"));
        assert!(ops > 0.0 && (rate * seconds / ops - 1.0).abs() < 0.002, "{line}");
        assert!(number(line, "p50_us") <= number(line, "p99_us") && number(line, "p99_us") <= number(line, "max_us"));
        // In a closed loop, rate × mean latency = writers. The median is at most twice the mean, and far below it while the disk
        // is busy with other things; a wrong unit would still be found.
        let in_flight = rate * number(line, "p50_us") / 1e6;
        assert!((writers / 100.0..writers * 3.0).contains(&in_flight), "{line}");
        assert!(number(line, "commands") >= ops, "the warm-up counts too: {line}");
        let syncs = ["a", "b", "c"].map(|name| number(line, name));
        assert!(syncs.iter().all(|syncs| *syncs > 0.0), "{line}");
    }
    // One at a time, each command is answered after two of the three have synced it, each for it alone.
    let syncs: f64 = ["a", "b", "c"].iter().map(|name| number(lines[0], name)).sum();
    assert!(syncs >= 2.0 * number(lines[0], "commands"), "{figures}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no data is left");
    let pids = pids(&said);
    assert_eq!(pids.len(), 3, "{said}");
    assert!(pids.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "no process is left");
}

#[test]
fn killed_in_the_middle_of_a_run_it_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    command.args(["writers", "--seconds", "60", "--dir"]).arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let said: Vec<String> =
        BufReader::new(running.stderr.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    // Long enough for the load to have begun; the end must be seen before it too.
    std::thread::sleep(Duration::from_secs(2));
    running.kill().unwrap();
    running.wait().unwrap();
    let said = said.join("\n");
    let pids = pids(&said);
    assert_eq!(pids.len(), 3, "{said}");
    let limit = Instant::now() + Duration::from_secs(20);
    while let Some(pid) = pids.iter().find(|pid| Path::new("/proc").join(pid).exists()) {
        assert!(Instant::now() < limit, "{pid} of {pids:?} is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn strace_counts_what_each_process_synced() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench("writers --machine kv --writers 4 --seconds 1 --strace", dir.path());
    let (figures, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    if said.contains("strace is not installed") {
        assert_eq!(figures.lines().count(), 1);
        return;
    }
    let run = figures.lines().next().unwrap();
    for name in ["a", "b", "c"] {
        let row = figures.lines().find(|line| line.contains(&format!("\"node\": \"{name}\""))).unwrap();
        assert!(number(row, "fdatasync") >= number(run, name), "the log's own count is within strace's: {figures}");
    }
}

#[test]
fn the_floor_is_a_sync_and_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench("floor --seconds 1", dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures = text(&output.stdout);
    let lines: Vec<&str> = figures.lines().collect();
    assert!(lines[0].contains("\"fdatasync\"") && lines[1].contains("\"round-trip\""), "{figures}");
    assert!(lines.iter().all(|line| number(line, "p50_us") > 0.0));
}

/// The rows of a part in `out`, as they stand in its file.
fn rows(out: &Path, part: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(out.join(format!("{part}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a part briefly, as far as `only` says, into `out`; its rows. Nothing is left of its data.
fn part(name: &str, only: &str, out: &Path) -> Vec<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(&format!("part {name} --quick --only {only} --out {}", out.display()), dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no data is left");
    rows(out, name)
}

#[test]
fn one_write_is_measured_beside_its_floor_and_the_report_compares_them() {
    let out = tempfile::tempdir().unwrap();
    let rows = part("engine", "counter,n=1,128", out.path());
    let variants: Vec<&str> = rows.iter().map(|row| row["variant"].as_str().unwrap()).collect();
    assert_eq!(variants, ["fdatasync", "loopback round trip", "counter"]);
    let one = &rows[2];
    assert_eq!((one["part"].as_str(), one["n"].as_u64(), one["bytes"].as_u64()), (Some("engine"), Some(1), Some(128)));
    let (rate, p50) = (one["ops_per_s"].as_f64().unwrap(), one["p50_us"].as_f64().unwrap());
    assert!((0.01..3.0).contains(&(rate * p50 / 1e6)), "one in flight: {one}");
    // Each node syncs a command that comes alone; the third node may come late, after the count.
    assert!((1.9..4.0).contains(&one["more"]["log_syncs_per_command"].as_f64().unwrap()), "{one}");
    let report = Command::new(env!("CARGO_BIN_EXE_quorate-bench")).args(["report", "--out"]).arg(out.path()).output();
    let told = text(&report.unwrap().stdout);
    let line = told.lines().find(|line| line.contains("One operation ÷")).unwrap();
    assert!(line.contains(" µs + ") && !line.contains("not measured"), "{line}");
    assert!(out.path().join("report.md").exists());
}

#[test]
fn a_leader_that_is_killed_costs_a_wait_that_began_before_the_kill() {
    let out = tempfile::tempdir().unwrap();
    let rows = part("recovery", "leader", out.path());
    assert_eq!(rows.len(), 1);
    let (seconds, gap) = (rows[0]["seconds"].as_f64().unwrap(), rows[0]["more"]["longest_gap_s"].as_f64().unwrap());
    // The clock of the day and that of the process agree to a little.
    assert!(seconds > 0.0 && gap + 0.05 > seconds, "{}", rows[0]);
}

#[test]
fn a_follower_that_was_away_and_a_node_that_is_new_get_what_they_lack() {
    let out = tempfile::tempdir().unwrap();
    for (only, count) in [("missed", 2), ("new", 1)] {
        let rows = part("recovery", only, out.path());
        assert_eq!(rows.len(), count, "{rows:?}");
        assert!(rows.iter().all(|row| row["seconds"].as_f64().unwrap() > 0.0), "{rows:?}");
    }
}

#[test]
fn who_stands_still_costs_the_others_no_memory() {
    let out = tempfile::tempdir().unwrap();
    for (only, count) in [("stopped", 1), ("stuck", 2)] {
        let rows = part("growth", only, out.path());
        assert_eq!(rows.len(), count, "{rows:?}");
        for row in &rows {
            assert_eq!(row["more"]["bounded"], true, "{row}");
            let mib = row["more"]["memory_mib"].as_u64().unwrap();
            assert!((1..1024).contains(&mib) && row["ops_per_s"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
}

#[test]
fn reads_are_measured_where_and_how_they_are_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let rows = part("reads", "l", out.path());
    let mut variants: Vec<&str> = rows.iter().map(|row| row["variant"].as_str().unwrap()).collect();
    variants.dedup();
    assert_eq!(variants, ["linearizable, leader", "linearizable, follower", "lease, leader", "local"]);
    assert!(rows.iter().all(|row| row["ops_per_s"].as_f64().unwrap() > 0.0), "{rows:?}");
}

#[test]
fn disks_are_synced_by_three_processes_at_once() {
    let rows = part("floor", "three", tempfile::tempdir().unwrap().path());
    let of = |variant| rows.iter().filter(|row| row["variant"] == variant).count();
    assert_eq!(of("fdatasync, three processes at once"), 3);
    assert_eq!(of("fdatasync of a batch, three processes at once"), 3);
    // And past the page cache, where the file system can.
    assert!(rows.len() == 6 || rows.len() == 9, "{rows:?}");
    assert!(rows.iter().all(|row| row["p50_us"].as_f64().unwrap() > 0.0), "{rows:?}");
}

#[test]
fn a_part_that_is_missing_is_named_and_the_rest_goes_on() {
    let out = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut script = Command::new(root.join("dev/bench.sh"));
    script.env("PARTS", "no-such-part floor").env("QUICK", "1").env("OUT", out.path());
    // The program is built: building it again in the midst of the tests would take the place of the one they run.
    let output = script.env("BENCH", env!("CARGO_BIN_EXE_quorate-bench")).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no-such-part: missing: there is no such part"), "{said}");
    let report = std::fs::read_to_string(out.path().join("report.md")).unwrap();
    assert!(report.contains("| no-such-part | 0 | missing"), "{report}");
    assert!(report.contains("measured |") && report.contains("## floor"), "{report}");
}

#[test]
fn what_is_not_understood_is_said_with_status_2() {
    let output = bench("writers --writer 5", Path::new("."));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("\"--writer\" is not understood"));
    let output = bench("floor", Path::new("no-such-directory"));
    assert_eq!(output.status.code(), Some(1));
}
