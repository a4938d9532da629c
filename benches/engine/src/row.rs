//! What every part writes: one JSON object a line, one line a measured run, the same fields everywhere.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use quorate_engine::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::latency::Latency;

/// One measured run. Fields without meaning for it are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The part of the benchmark; its file is `PART.jsonl`.
    pub part: String,
    /// What was measured: `quorate engine`, a peer, the machine itself.
    pub system: String,
    /// Which of its ways.
    pub variant: String,
    /// Operations in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Bytes of an operation's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Repetition, from 1: several give the spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// How long was measured; where it is a time that is measured, that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Operations completed a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops_per_s: Option<f64>,
    /// Half took no longer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99 of 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// 999 of 1,000 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_us: Option<f64>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub more: Map<String, Value>,
}

impl Row {
    /// A row of `variant` of `system`; [`Sink::write`] fills in the part.
    pub fn new(system: &str, variant: &str) -> Row {
        Row { system: system.into(), variant: variant.into(), ..Row::default() }
    }

    /// With so many operations in flight.
    pub fn n(self, n: usize) -> Row {
        Row { n: Some(n as u64), ..self }
    }

    /// With so many bytes an operation.
    pub fn bytes(self, bytes: usize) -> Row {
        Row { bytes: Some(bytes as u64), ..self }
    }

    /// Of this repetition, from 1.
    pub fn round(self, round: usize) -> Row {
        Row { round: Some(round as u64), ..self }
    }

    /// With a time, in seconds.
    pub fn seconds(self, seconds: f64) -> Row {
        Row { seconds: Some(rounded(seconds, 1e6)), ..self }
    }

    /// With so many operations within so many seconds.
    pub fn rate(self, ops: u64, seconds: f64) -> Row {
        Row { ops_per_s: Some(rounded(ops as f64 / seconds, 10.0)), ..self.seconds(seconds) }
    }

    /// With the figures of a latency.
    pub fn latency(self, latency: &Latency) -> Row {
        let [p50_us, p99_us, p999_us, max_us] =
            [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(|us| Some(rounded(us, 1e3)));
        Row { p50_us, p99_us, p999_us, max_us, ..self }
    }

    /// With one thing more.
    pub fn more(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.more.insert(name.into(), value.into());
        self
    }

    /// A number in `more`; `None` when it is absent or no number.
    pub fn extra(&self, name: &str) -> Option<f64> {
        self.more.get(name).and_then(Value::as_f64)
    }
}

/// To one part in `parts`: more digits than the clock has would only look exact.
pub fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// The file of one part, `PART.jsonl`, emptied at the beginning; each row is in it as soon as it is written.
pub struct Sink {
    file: File,
    path: PathBuf,
    part: &'static str,
}

impl Sink {
    /// The file of `part` in `dir`, which is made when absent. What the file held is removed, unless it is to be `kept`.
    /// Fails with `Io`.
    pub fn open(dir: &Path, part: &'static str, kept: bool) -> Result<Sink, Failure> {
        let path = dir.join(format!("{part}.jsonl"));
        let open = || {
            std::fs::create_dir_all(dir)?;
            File::options().create(true).write(true).append(kept).truncate(!kept).open(&path)
        };
        let file = open().map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Sink { file, path, part })
    }

    /// Adds a row, and tells it on stderr. Fails with `Io`.
    pub fn write(&mut self, row: Row) -> Result<(), Failure> {
        let row = Row { part: self.part.into(), ..row };
        let line = serde_json::to_string(&row).map_err(|error| Failure::internal(error.to_string()))?;
        eprintln!("{line}");
        writeln!(self.file, "{line}").map_err(|error| Failure::io(self.path.display(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line_without_what_it_does_not_have_and_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let latency = Latency { p50_us: 1.00049, p99_us: 2.0, p999_us: 3.0, max_us: 4.5 };
        let mut sink = Sink::open(dir.path(), "floor", false).unwrap();
        sink.write(Row::new("machine", "memcpy")).unwrap();
        let row = Row::new("machine", "x").n(1).bytes(2).round(3).rate(30, 4.0).latency(&latency).more("a", 5);
        sink.write(row.clone()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("floor.jsonl")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"{"part":"floor","system":"machine","variant":"memcpy"}"#);
        let back: Row = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(back, Row { part: "floor".into(), ..row });
        assert_eq!((back.ops_per_s, back.p50_us, back.extra("a")), (Some(7.5), Some(1.0), Some(5.0)));
        Sink::open(dir.path(), "floor", true).unwrap().write(Row::new("machine", "memcpy")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("floor.jsonl")).unwrap().lines().count(), 3);
        drop(Sink::open(dir.path(), "floor", false).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("floor.jsonl")).unwrap(), "");
    }

    #[test]
    fn a_field_that_no_row_has_is_refused() {
        let line = r#"{"part":"p","system":"s","variant":"v","op_per_s":1}"#;
        assert!(serde_json::from_str::<Row>(line).unwrap_err().to_string().contains("op_per_s"));
    }
}
