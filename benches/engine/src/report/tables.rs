//! The tables of the report, in Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::read::Found;
use super::stats::{Group, Spread, groups, ratio};
use super::targets;
use crate::row::Row;

/// A plot: the part that it is of (empty for none), its file and its title.
pub struct Picture {
    /// The part.
    pub part: String,
    /// The file's name, beside the report.
    pub file: String,
    /// What it shows.
    pub title: String,
}

/// The order of the parts; others come after them.
const ORDER: [&str; 12] = [
    "peers",
    "floor",
    "engine",
    "durability",
    "clojure",
    "codec",
    "bridge",
    "http",
    "reads",
    "pauses",
    "recovery",
    "growth",
];
/// Whose rates others of the same part are compared with.
const BASE: &str = "quorate engine";

/// A table whose empty columns are left out.
struct Table {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|name| name.to_string()).collect(), lines: Vec::new() }
    }

    fn text(&self) -> String {
        if self.lines.is_empty() {
            return String::new();
        }
        let kept: Vec<usize> =
            (0..self.head.len()).filter(|at| self.lines.iter().any(|line| !line[*at].is_empty())).collect();
        let line = |cells: &[String]| {
            let cells: Vec<String> = kept.iter().map(|at| cells[*at].replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let ruler: String = kept.iter().map(|_| "---|").collect();
        let body: String = self.lines.iter().map(|cells| line(cells)).collect();
        format!("{}|{ruler}\n{body}\n", line(&self.head))
    }
}

/// The whole report.
pub fn report(found: &Found, pictures: &[Picture]) -> String {
    let mut out = String::from("# Benchmark report\n\n");
    out += &facts(&found.rows);
    out += &parts_run(&found.rows);
    if !found.malformed.is_empty() {
        out += "## Lines that are no rows\n\n";
        found.malformed.iter().for_each(|sentence| writeln!(out, "- {sentence}").unwrap_or_default());
        out += "\n";
    }
    out += "Each figure is the median of its rounds, with the least and the most of them in parentheses. Ratios are those \
            of the medians, with the least and the most of the rounds' own.\n\n";
    out += "## Targets\n\n";
    out += &targets(&found.rows);
    for part in parts(&found.rows) {
        out += &section(found, part, pictures);
    }
    out
}

/// The table of targets.
pub fn targets(rows: &[Row]) -> String {
    let mut table = Table::new(&["what", "target", "measured", "verdict"]);
    let line = |one: targets::Target| vec![one.what, one.wanted, one.seen, one.verdict];
    table.lines = targets::all(rows).into_iter().map(line).collect();
    table.text()
}

/// The parts that have rows, in order.
pub fn parts(rows: &[Row]) -> Vec<&str> {
    let there: BTreeSet<&str> = rows.iter().map(|row| row.part.as_str()).collect();
    let others = there.iter().filter(|part| !ORDER.contains(part) && !["machine", "status"].contains(part));
    ORDER.iter().filter(|part| there.contains(*part)).chain(others).copied().collect()
}

fn facts(rows: &[Row]) -> String {
    let mut table = Table::new(&["machine", ""]);
    let all = rows.iter().filter(|row| row.part == "machine").flat_map(|row| &row.more);
    table.lines = all.filter_map(|(name, value)| Some(vec![name.clone(), plain(value)?])).collect();
    table.text()
}

fn parts_run(rows: &[Row]) -> String {
    let mut table = Table::new(&["part", "seconds", "outcome"]);
    for row in rows.iter().filter(|row| row.part == "status") {
        let seconds = row.seconds.map_or_else(String::new, |seconds| format!("{seconds:.0}"));
        table.lines.push(vec![
            row.variant.clone(),
            seconds,
            row.more.get("outcome").and_then(plain).unwrap_or_default(),
        ]);
    }
    table.text()
}

fn section(found: &Found, part: &str, pictures: &[Picture]) -> String {
    let mut out = format!("## {part}\n\n");
    if found.earlier.iter().any(|earlier| earlier == part) {
        out += "Of an earlier run: these rows are older than the facts above.\n\n";
    }
    let groups = groups(&found.rows, part);
    out += &rates(&groups);
    out += &ratios(&groups, part);
    out += &details(&groups);
    for picture in pictures.iter().filter(|picture| picture.part == part) {
        writeln!(out, "![{}]({})\n", picture.title, picture.file).unwrap_or_default();
    }
    out
}

/// What a group is of, without its N.
pub fn label(row: &Row) -> String {
    let bytes = row.bytes.map_or_else(String::new, |bytes| format!(", {}", size(bytes)));
    format!("{}, {}{bytes}", row.system, row.variant)
}

/// Bytes for a person.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

/// The different N of groups that have a rate.
fn numbers(groups: &[Group]) -> Vec<u64> {
    let all: BTreeSet<u64> =
        groups.iter().filter(|group| group.head().ops_per_s.is_some()).filter_map(|group| group.head().n).collect();
    all.into_iter().collect()
}

/// The labels of groups that have a rate at some N, in order.
fn labels(groups: &[Group]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for group in groups.iter().filter(|group| group.head().n.is_some() && group.head().ops_per_s.is_some()) {
        let label = label(group.head());
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// A table with a column for each N.
fn by_n(groups: &[Group], title: &str, labels: Vec<String>, cell: impl Fn(&Group) -> Option<String>) -> String {
    let numbers = numbers(groups);
    let head: Vec<String> = numbers.iter().map(|n| format!("N = {n}")).collect();
    let mut table = Table::new(&[title]);
    table.head.extend(head);
    for of in labels {
        let at = |n: &u64| {
            let group = groups.iter().find(|group| group.head().n == Some(*n) && label(group.head()) == of);
            group.and_then(&cell).unwrap_or_default()
        };
        let cells: Vec<String> = numbers.iter().map(at).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.lines.push([vec![of], cells].concat());
        }
    }
    table.text()
}

fn rates(groups: &[Group]) -> String {
    by_n(groups, "operations a second", labels(groups), |group| Some(spread(&group.spread(|row| row.ops_per_s)?)))
}

/// Each other system of the part against the engine, at the same N: shares of the engine's own rate, or, for peers, how many
/// times the peer's rate the engine has.
fn ratios(groups: &[Group], part: &str) -> String {
    let base = |n: Option<u64>| groups.iter().find(|group| group.head().system == BASE && group.head().n == n);
    let others = groups.iter().filter(|group| group.head().system != BASE).cloned().collect::<Vec<_>>();
    let peers = part == "peers";
    let title = if peers { "engine ÷ this" } else { "this ÷ engine" };
    by_n(groups, title, labels(&others), |group| {
        let base = base(group.head().n)?;
        let (above, below) = if peers { (base, group) } else { (group, base) };
        Some(targets::times(&ratio(above, below, |row| row.ops_per_s)?))
    })
}

fn details(groups: &[Group]) -> String {
    let head = ["what", "N", "rounds", "operations/s", "seconds", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "more"];
    let mut table = Table::new(&head);
    for group in groups {
        let head = group.head();
        let figure = |of: fn(&Row) -> Option<f64>| group.spread(of).map_or_else(String::new, |all| spread(&all));
        // Where a rate has a table of its own, how long was measured says little.
        let tabled = head.n.is_some() && head.ops_per_s.is_some();
        let untabled = |text: String| if tabled { String::new() } else { text };
        table.lines.push(vec![
            label(head),
            head.n.map_or_else(String::new, |n| n.to_string()),
            group.rows.len().to_string(),
            untabled(figure(|row| row.ops_per_s)),
            untabled(figure(|row| row.seconds)),
            figure(|row| row.p50_us),
            figure(|row| row.p99_us),
            figure(|row| row.p999_us),
            figure(|row| row.max_us),
            more(group),
        ]);
    }
    table.text()
}

/// Everything else: medians of numbers, the first of other values.
fn more(group: &Group) -> String {
    let names = group.head().more.keys();
    let all = names.filter_map(|name| match group.spread(|row| row.extra(name)) {
        Some(all) => Some(format!("{} {}", name.replace('_', " "), spread(&all))),
        None => Some(format!("{} {}", name.replace('_', " "), plain(&group.head().more[name])?)),
    });
    all.collect::<Vec<_>>().join("; ")
}

/// A value for a person; `None` for what has parts, or is nothing.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Object(parts) => {
            let parts: Vec<String> =
                parts.iter().filter_map(|(name, value)| value.as_f64().map(|_| format!("{name} {value}"))).collect();
            (!parts.is_empty()).then(|| parts.join(", "))
        }
        Value::Null | Value::Array(_) => None,
    }
}

/// A median with its spread, where there is one.
fn spread(all: &Spread) -> String {
    let [median, least, most] = [all.median, all.least, all.most].map(number);
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

/// With thousands apart, and as many decimals as three digits need.
pub fn number(number: f64) -> String {
    let decimals = match number.abs() {
        size if size >= 100.0 || size == size.trunc() => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{number:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
    format!("{sign}{}{rest}", grouped.join(","))
}
