//! Histories as JSON lines, and what they say: linearizable or not, how many operations, how long nothing worked.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use quorate_engine::Failure;
use serde::{Deserialize, Serialize};

use super::porcupine;
use crate::linear::{ABSENT, Act, Operation, Value, Verdict, check, relevant};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was done, with `out`.
    Ok,
    /// It had no effect and never will.
    Fail,
    /// It may have had an effect, or may yet.
    Unknown,
}

/// One operation, as a line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Who called; a client whose operation ended unknown goes on under another number.
    pub client: u64,
    /// `put`, `cas`, `get` or `lease`.
    pub op: String,
    /// The key.
    pub key: String,
    /// What was to be written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// What a `cas` expected; `-` for absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<String>,
    /// What came back: a value or `-`; of a `cas` `1`, or `0` and what was there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out: Option<String>,
    /// When it was called, in nanoseconds since the round began.
    pub call_ns: u64,
    /// When it returned.
    pub return_ns: u64,
    /// How it ended.
    pub status: Status,
}

/// Writes `lines` to `path`. Fails with `Io`.
pub fn save(path: &Path, lines: &[Line]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("Writing {}", path.display()), &error);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    for line in lines {
        let text = serde_json::to_string(line).map_err(|error| Failure::internal(error.to_string()))?;
        writeln!(file, "{text}").map_err(failed)?;
    }
    file.flush().map_err(failed)
}

/// What is wrong with a history, in sentences: none when it is linearizable key by key.
pub fn judge(lines: &[Line]) -> Vec<String> {
    let mut keys: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.status != Status::Fail) {
        keys.entry(&line.key).or_default().push(line);
    }
    keys.iter().filter_map(|(key, lines)| judge_key(key, lines)).collect()
}

fn judge_key(key: &str, lines: &[&Line]) -> Option<String> {
    let mut values = Values::default();
    let operations: Option<Vec<Operation>> = lines.iter().map(|line| operation(line, &mut values)).collect();
    let Some(operations) = operations else { return Some(format!("{key}: the history has a line without sense.")) };
    let relevant = relevant(&operations);
    let found = check(&relevant);
    match (porcupine::decide(&relevant), &found) {
        (Some(true), Verdict::Linearizable | Verdict::TooHard) => return None,
        (Some(true), Verdict::Violation(_)) => {
            return Some(format!("{key}: porcupine-rs finds an order, the search none."));
        }
        (Some(false), Verdict::Linearizable) => {
            return Some(format!("{key}: porcupine-rs finds no order, the search one."));
        }
        (None, _) | (Some(false), _) => {}
    }
    match found {
        Verdict::Linearizable => None,
        Verdict::TooHard => Some(format!("{key}: {} operations are too hard to check.", relevant.len())),
        Verdict::Violation(at) => {
            let stuck = relevant[at];
            let line = operations.iter().position(|one| *one == stuck).map(|at| lines[at]);
            Some(format!("{key} is not linearizable: no place for {line:?}."))
        }
    }
}

/// Numbers for values, equal ones for equal texts.
#[derive(Default)]
struct Values(HashMap<String, Value>);

impl Values {
    fn number(&mut self, text: &str) -> Value {
        let next = self.0.len() as Value + 1;
        if text == "-" { ABSENT } else { *self.0.entry(text.to_string()).or_insert(next) }
    }
}

fn operation(line: &Line, values: &mut Values) -> Option<Operation> {
    let known = line.status == Status::Ok;
    let act = match line.op.as_str() {
        "put" => Act::Write(values.number(line.value.as_ref()?)),
        "cas" => {
            let (expected, value) = (line.expected.as_ref()?, line.value.as_ref()?);
            let found = line.out.as_ref().filter(|_| known).and_then(|out| out.strip_prefix("0 "));
            match found {
                // It lost against what it expected: nothing explains that.
                Some(found) if found == expected => return None,
                // It read what was there.
                Some(found) => Act::Read(values.number(found)),
                None => Act::Cas(values.number(expected), values.number(value), known.then_some(true)),
            }
        }
        // A read without an answer says nothing; it is dropped as one of unknown outcome.
        "get" | "lease" => Act::Read(if known { values.number(line.out.as_ref()?) } else { ABSENT }),
        _ => return None,
    };
    Some(Operation { call: line.call_ns, done: known.then_some(line.return_ns), act })
}

/// The longest time between two acknowledged writes, or between them and the beginning or `end_ns`.
pub fn longest_gap(lines: &[Line], end_ns: u64) -> Duration {
    let writes = lines.iter().filter(|line| line.status == Status::Ok && (line.op == "put" || line.op == "cas"));
    let mut returns: Vec<u64> = writes.map(|line| line.return_ns).filter(|at| *at < end_ns).collect();
    returns.extend([0, end_ns]);
    returns.sort_unstable();
    let gaps = returns.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(gaps.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(op: &str, value: &str, out: Option<&str>, times: (u64, u64), status: Status) -> Line {
        Line {
            client: 1,
            op: op.into(),
            key: "k".into(),
            value: (op != "get").then(|| value.to_string()),
            expected: (op == "cas").then(|| "-".to_string()),
            out: out.map(str::to_string),
            call_ns: times.0,
            return_ns: times.1,
            status,
        }
    }

    #[test]
    fn a_history_is_judged_as_it_was_written() {
        let mut lines = vec![
            line("cas", "a", Some("1"), (0, 10), Status::Ok),
            line("put", "b", None, (20, 30), Status::Unknown),
            line("put", "c", None, (20, 30), Status::Fail),
            line("get", "", None, (21, 22), Status::Unknown),
            line("get", "", Some("a"), (40, 50), Status::Ok),
            line("get", "", Some("b"), (60, 70), Status::Ok),
        ];
        assert_eq!(judge(&lines), Vec::<String>::new());
        lines.push(line("get", "", Some("a"), (80, 90), Status::Ok));
        assert!(judge(&lines)[0].contains("not linearizable"));
        lines.pop();
        lines.push(line("get", "", Some("c"), (80, 90), Status::Ok));
        assert_eq!(judge(&lines).len(), 1, "the effect of an operation that failed for certain");
        lines.pop();
        lines.push(line("cas", "d", Some("0 b"), (80, 90), Status::Ok));
        assert_eq!(judge(&lines), Vec::<String>::new());
        lines.push(line("cas", "d", Some("0 -"), (92, 93), Status::Ok));
        assert_eq!(judge(&lines).len(), 1, "it lost against what it expected");
        assert_eq!(longest_gap(&lines, 100), Duration::from_nanos(80));
    }

    #[test]
    fn lines_come_back_as_they_went() {
        let one = line("cas", "a", Some("1"), (0, 10), Status::Ok);
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains(r#""status":"ok""#), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), one);
    }
}
