//! The engine's log on its way to the host: a `tracing` layer that fills one bounded queue for the process, which polls
//! of any events queue empty as LOG records.
//!
//! Lines of Quorate's own crates count from the level on that is set (`QUORATE_LOG`, else the configuration's
//! `:log-level`, else info); those of other crates one level sterner, so that info does not drown in their detail.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use quorate_engine::{Failure, limits, records};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::edn_config;

/// Environment variable with the level; it outranks the configuration.
pub const LEVEL_VARIABLE: &str = "QUORATE_LOG";
/// Longest message of a line in bytes; what is longer is cut. A poll buffer always has room for one line.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;
const TARGET: &str = "quorate";

/// The process's lines that no poll has taken yet.
pub static LINES: Lines = Lines::new(limits::LOG_LINES_MAX);

static LEVEL: AtomicUsize = AtomicUsize::new(INFO);
const INFO: usize = 3;

/// Log lines, the oldest dropped when there are too many.
pub struct Lines {
    max: usize,
    /// Lines that wait, readable without the lock: most polls find none.
    count: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    lines: VecDeque<Line>,
    dropped: u64,
}

struct Line {
    level: u8,
    target: String,
    message: String,
}

impl Lines {
    /// An empty queue for `max` lines.
    pub const fn new(max: usize) -> Lines {
        Lines { max, count: AtomicUsize::new(0), state: Mutex::new(State { lines: VecDeque::new(), dropped: 0 }) }
    }

    /// Whether no line waits.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Adds a line of `level` (1 error … 5 trace), dropping the oldest one when there are too many.
    pub fn add(&self, level: u8, target: &str, message: String) {
        let mut state = self.state.lock();
        if state.lines.len() >= self.max {
            state.lines.pop_front();
            state.dropped += 1;
        }
        state.lines.push_back(Line { level, target: target.into(), message });
        self.count.store(state.lines.len(), Ordering::Relaxed);
    }

    /// Moves as many lines as fit into `out`, as LOG records, and returns their bytes. Lines that were dropped before
    /// are reported by a line of their own.
    pub fn take(&self, out: &mut [u8]) -> usize {
        let mut state = self.state.lock();
        let mut used = 0;
        let mut record = Vec::new();
        if state.dropped > 0 {
            let message = format!("{} log lines were dropped because nobody took them in time.", state.dropped);
            records::log(&mut record, 2, TARGET, &message);
            if !put(&record, out, &mut used) {
                return used;
            }
            state.dropped = 0;
        }
        while let Some(line) = state.lines.front() {
            record.clear();
            records::log(&mut record, line.level, &line.target, &line.message);
            if !put(&record, out, &mut used) {
                break;
            }
            state.lines.pop_front();
        }
        self.count.store(state.lines.len(), Ordering::Relaxed);
        used
    }
}

fn put(record: &[u8], out: &mut [u8], used: &mut usize) -> bool {
    let Some(room) = out.get_mut(*used..*used + record.len()) else {
        return false;
    };
    room.copy_from_slice(record);
    *used += record.len();
    true
}

/// Makes this process's log flow into [`LINES`], once, and sets its level. A host in Rust that has a subscriber of its
/// own keeps it. Fails with `Invalid` when `QUORATE_LOG` names no level.
pub fn install(configured: Option<LevelFilter>) -> Result<(), Failure> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let level = match std::env::var(LEVEL_VARIABLE) {
        Ok(name) if !name.is_empty() => Some(edn_config::log_level(&name.to_lowercase(), LEVEL_VARIABLE)?),
        _ => configured,
    };
    if let Some(level) = level {
        LEVEL.store(level.into_level().map_or(0, number), Ordering::Relaxed);
    }
    INSTALLED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Forward);
        tracing::subscriber::set_global_default(subscriber).is_ok()
    });
    if level.is_some() {
        tracing::callsite::rebuild_interest_cache();
    }
    Ok(())
}

/// 1 error … 5 trace.
fn number(level: Level) -> usize {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

struct Forward;

impl<S: Subscriber> Layer<S> for Forward {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = LEVEL.load(Ordering::Relaxed);
        let own = metadata.target().starts_with(TARGET);
        metadata.is_event() && number(*metadata.level()) + usize::from(!own) <= level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        levels.get(LEVEL.load(Ordering::Relaxed)).copied()
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        LINES.add(number(*event.metadata().level()) as u8, event.metadata().target(), text.cut());
    }
}

/// The message of an event, then its fields as ` name=value`.
struct Text(String);

impl Text {
    fn cut(mut self) -> String {
        if self.0.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| self.0.is_char_boundary(*at));
            self.0.truncate(end.unwrap_or(0));
            self.0.push('…');
        }
        self.0
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => {
                let fields = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{fields}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_engine::codec::Reader;

    use super::*;

    fn messages(records: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(Bytes::copy_from_slice(records));
        let mut found = Vec::new();
        while reader.remaining() > 0 {
            let mut one = Reader::new(reader.bytes().expect("a whole record"));
            let header = (one.u8(), one.u8(), one.u16());
            let (Ok(3), Ok(_), Ok(target)) = header else { panic!("no LOG record: {header:?}") };
            one.take(usize::from(target)).expect("a target");
            found.push(String::from_utf8_lossy(&one.take(one.remaining()).expect("the rest")).into_owned());
        }
        found
    }

    #[test]
    fn the_oldest_lines_are_dropped_and_counted() {
        let lines = Lines::new(2);
        (0..5).for_each(|n| lines.add(3, "quorate::x", format!("line {n}")));
        let mut out = [0; 1024];
        let used = lines.take(&mut out);
        let found = messages(&out[..used]);
        assert!(found[0].starts_with("3 log lines were dropped"));
        assert_eq!(found[1..], ["line 3", "line 4"]);
        assert!(lines.is_empty());
        assert_eq!(lines.take(&mut out), 0);
    }

    #[test]
    fn lines_that_do_not_fit_wait_for_the_next_poll() {
        let lines = Lines::new(10);
        (0..3).for_each(|n| lines.add(3, "t", format!("line {n}")));
        let mut out = [0; 40];
        let used = lines.take(&mut out);
        assert_eq!(messages(&out[..used]), ["line 0", "line 1"]);
        let used = lines.take(&mut out);
        assert_eq!(messages(&out[..used]), ["line 2"]);
    }

    #[test]
    fn events_of_the_process_flow_into_lines_from_their_level_on() {
        install(Some(LevelFilter::INFO)).expect("installed");
        tracing::info!(target: "quorate::test", answer = 42, "hello {}", "there");
        tracing::debug!(target: "quorate::test", "too detailed");
        tracing::info!(target: "another", "another's detail");
        tracing::warn!(target: "another", "another's warning");
        tracing::error!(target: "quorate::test", "{}", "x".repeat(2 * MESSAGE_BYTES_MAX));
        install(Some(LevelFilter::DEBUG)).expect("installed again");
        tracing::debug!(target: "quorate::test", "now wanted");
        let mut out = vec![0; 64 << 10];
        let used = LINES.take(&mut out);
        let found = messages(&out[..used]);
        for expected in ["hello there answer=42", "another's warning", "now wanted"] {
            assert!(found.iter().any(|line| line == expected), "{found:?}");
        }
        assert!(!found.iter().any(|line| line == "too detailed" || line == "another's detail"));
        assert!(found.iter().any(|line| line.starts_with("xx") && line.len() == MESSAGE_BYTES_MAX + "…".len()));
    }
}
