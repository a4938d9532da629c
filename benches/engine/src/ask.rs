//! What the three processes and the one that started them say to each other: a line of words each way, on stdin and stdout.

use std::collections::BTreeMap;
use std::str::FromStr;

use quorate_engine::Failure;
use quorate_engine::session::Consistency;

/// A question to a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Become the leader, if you are not.
    Lead,
    /// Tell term, leader, votes, index and log syncs.
    Facts,
    /// Answer once you have applied everything that was committed before.
    Ready,
    /// Take a snapshot.
    Snapshot,
    /// Drive so many writers for so many seconds with so many bytes.
    Load(usize, u64, usize),
    /// Write commands (keys, with the key-value store) from this number on, so many, of so many bytes, by so many writers.
    Fill(u64, u64, usize, usize),
    /// Read keys of the key-value store with this consistency, by so many readers, for so many seconds.
    Read(Freshness, usize, u64),
    /// Write one command after the other for so many seconds, and tell the longest time without an answer.
    Outage(u64),
}

/// [`Consistency`], with a word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness(pub Consistency);

const FRESHNESS: [(&str, Consistency); 3] =
    [("linearizable", Consistency::Linearizable), ("lease", Consistency::Lease), ("local", Consistency::Local)];

impl Freshness {
    /// The word.
    pub fn text(self) -> &'static str {
        FRESHNESS.iter().find(|(_, one)| *one == self.0).map_or("", |(text, _)| text)
    }
}

impl FromStr for Freshness {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Freshness, Failure> {
        let found = FRESHNESS.iter().find(|(word, _)| *word == text);
        found.map(|(_, one)| Freshness(*one)).ok_or_else(|| Failure::invalid(format!("{text:?} is no consistency.")))
    }
}

impl Question {
    /// As a line.
    pub fn line(self) -> String {
        match self {
            Question::Lead => "lead".into(),
            Question::Facts => "facts".into(),
            Question::Ready => "ready".into(),
            Question::Snapshot => "snapshot".into(),
            Question::Load(writers, seconds, bytes) => format!("load {writers} {seconds} {bytes}"),
            Question::Fill(from, count, bytes, writers) => format!("fill {from} {count} {bytes} {writers}"),
            Question::Read(freshness, readers, seconds) => format!("read {} {readers} {seconds}", freshness.text()),
            Question::Outage(seconds) => format!("outage {seconds}"),
        }
    }

    /// Reads a line. Fails with `Invalid`.
    pub fn read(line: &str) -> Result<Question, Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["lead"] => Ok(Question::Lead),
            ["facts"] => Ok(Question::Facts),
            ["ready"] => Ok(Question::Ready),
            ["snapshot"] => Ok(Question::Snapshot),
            ["load", writers, seconds, bytes] => Ok(Question::Load(number(writers)?, number(seconds)?, number(bytes)?)),
            ["fill", from, count, bytes, writers] => {
                Ok(Question::Fill(number(from)?, number(count)?, number(bytes)?, number(writers)?))
            }
            ["read", freshness, readers, seconds] => {
                Ok(Question::Read(freshness.parse()?, number(readers)?, number(seconds)?))
            }
            ["outage", seconds] => Ok(Question::Outage(number(seconds)?)),
            _ => Err(Failure::invalid(format!("{line:?} is no question."))),
        }
    }
}

/// An answer: words by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(BTreeMap<String, String>);

impl Answer {
    /// With one more word, which must have no space in it.
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Answer {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// The word `name`; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The number `name`. Fails with `Invalid`.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        number(self.text(name))
    }

    /// As a line, or the failure as one.
    pub fn line(answer: &Result<Answer, Failure>) -> String {
        match answer {
            Ok(answer) => {
                let words: Vec<String> = answer.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("ok {}", words.join(" "))
            }
            Err(failure) => format!("failed {}", failure.message.replace('\n', " ")),
        }
    }

    /// Reads a line. Fails with what the other side failed with, or `Invalid`.
    pub fn read(line: &str) -> Result<Answer, Failure> {
        match line.split_once(' ') {
            Some(("ok", words)) => {
                let words = words.split_whitespace().filter_map(|word| word.split_once('='));
                Ok(Answer(words.map(|(name, value)| (name.to_string(), value.to_string())).collect()))
            }
            Some(("failed", sentence)) => Err(Failure::internal(sentence)),
            _ => Err(Failure::invalid(format!("{line:?} is no answer."))),
        }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::invalid(format!("{text:?} is no number.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_back_as_they_went() {
        let lease = Freshness(Consistency::Lease);
        for question in [
            Question::Lead,
            Question::Facts,
            Question::Ready,
            Question::Snapshot,
            Question::Load(256, 60, 128),
            Question::Fill(10, 1_000_000, 128, 64),
            Question::Read(lease, 64, 5),
            Question::Outage(3),
        ] {
            assert_eq!(Question::read(&question.line()).unwrap(), question);
        }
        assert!(Question::read("load 1 x 3").is_err());
        assert!(Question::read("read soon 1 3").is_err());
        let answer = Answer::default().with("ops", 7).with("leader", "a");
        let back = Answer::read(&Answer::line(&Ok(answer.clone()))).unwrap();
        assert_eq!(back, answer);
        assert_eq!((back.number::<u64>("ops").unwrap(), back.text("leader")), (7, "a"));
        assert!(back.number::<u64>("leader").is_err());
        let failed = Answer::read(&Answer::line(&Err(Failure::closed())));
        assert_eq!(failed.unwrap_err().message, Failure::closed().message);
    }
}
