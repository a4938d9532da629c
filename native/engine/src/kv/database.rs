//! sled, and letting go of it.
//!
//! Dropping sled's last handle writes what it has in memory, and waits for that. After a blob file (a node over about 128 KiB)
//! could not be written, as on a full disk, it waits for ever: sled 0.34 counts that write as under way still. So the last
//! handle is dropped by a thread of its own, and who let go waits, but not for ever.

use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sled::Db;

use crate::surroundings::is_inline;

/// How long who drops the last handle waits for sled.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);
/// Longer than writing sled's memory takes on any disk that still works: then it waits for ever.
const STUCK: Duration = Duration::from_secs(10);

/// How far sled is with closing.
#[derive(Default)]
pub(super) struct Closing {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    Since(Instant),
    Closed,
}

impl Closing {
    /// True when sled will not close, and keeps its directory locked, as long as this process lives.
    pub fn is_stuck(&self) -> bool {
        matches!(*self.state.lock(), State::Since(begun) if begun.elapsed() > STUCK)
    }

    /// Everybody who holds the database is about to let go.
    pub fn begin(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Open) {
            *state = State::Since(Instant::now());
        }
    }

    fn end(&self) {
        *self.state.lock() = State::Closed;
        self.ended.notify_all();
    }

    fn wait(&self) {
        let mut state = self.state.lock();
        let limit = Instant::now() + CLOSE_PATIENCE;
        while !matches!(*state, State::Closed) {
            if self.ended.wait_until(&mut state, limit).timed_out() {
                let seconds = CLOSE_PATIENCE.as_secs();
                tracing::warn!("sled does not close within {seconds} s; its directory stays locked until it does.");
                return;
            }
        }
    }
}

/// An open database; derefs to sled's own handle.
pub(super) struct Database {
    db: Db,
    /// Declared, and so dropped, after it.
    last: Last,
}

impl Database {
    pub fn new(db: Db) -> Arc<Database> {
        let last = Last { db: Some(db.clone()), closing: Arc::default() };
        Arc::new(Database { db, last })
    }

    /// What tells whether it closed, once it was dropped.
    pub fn closing(&self) -> Arc<Closing> {
        self.last.closing.clone()
    }
}

impl Deref for Database {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

/// Drops the last handle.
struct Last {
    db: Option<Db>,
    closing: Arc<Closing>,
}

impl Drop for Last {
    fn drop(&mut self) {
        let (Some(db), closing) = (self.db.take(), self.closing.clone()) else { return };
        closing.begin();
        let close = move || {
            drop(db);
            closing.end();
        };
        if is_inline() {
            return close();
        }
        match thread::Builder::new().name("quorate-sled-close".into()).spawn(close) {
            Ok(_) => self.closing.wait(),
            // The closure was dropped with what it held.
            Err(_) => self.closing.end(),
        }
    }
}
