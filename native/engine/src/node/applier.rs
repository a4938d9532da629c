//! The applying thread, the only one that touches the state machine; in a node without threads, the applying worker.
//!
//! It takes committed entries in log order, drops what already took effect, numbers the rest, has the machine apply
//! them together with the bookkeeping, and answers whoever waits on this node. When the machine fails (its disk is
//! full, say), the thread says so, opens it anew or repeats the work again and again, and consensus goes on meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::storage::RaftLogReader;

use crate::command::CommandId;
use crate::consensus::log::LogStore;
use crate::consensus::types::{Entry, SnapshotMeta, StoredMembership};
use crate::dedup::Verdict;
use crate::error::{Code, Failure};
use crate::limits::BATCH_BYTES_MAX;
use crate::machine::{Applied as Answer, Committed, StateMachine};
use crate::node::apply_queue::{FrozenState, Work, entry_bytes};
use crate::node::books::Books;
use crate::node::observer::Observer;
use crate::node::pending::{Due, Reply};
use crate::node::problems::Problem;
use crate::node::shared::Shared;
use crate::node::until_closed::UntilClosed;
use crate::planted::{self, Defect};
use crate::snapshot::{OpenSnapshot, SnapshotDir};
use crate::surroundings::Stage;
use crate::worker::Worker;

use self::revival::Revival;

/// Entries read back from the log at once.
const RANGE_ENTRIES: u64 = 256;

/// The thread's own state.
pub struct Applier {
    machine: Box<dyn StateMachine>,
    books: Books,
    /// The membership before the present one.
    former: StoredMembership,
    shared: Arc<Shared>,
    revival: Option<Revival>,
    /// Up to where entries, or a snapshot of them, were taken out of the queue.
    taken: Option<u64>,
    /// Failures since anything worked.
    failures: u32,
}

impl Applier {
    /// Opens the books of `machine`. When `snapshot` is newer than what the machine holds, the books are the
    /// snapshot's and it is the first thing that the thread installs. Fails with `Corrupt` or `Io`.
    pub fn open(
        mut machine: Box<dyn StateMachine>,
        snapshot: Option<OpenSnapshot>,
        shared: Arc<Shared>,
    ) -> Result<Applier, Failure> {
        let books = Books::from_notes(&machine.load_notes()?)?;
        let taken = books.applied.log_id.map(|log_id| log_id.index);
        let former = StoredMembership::default();
        let mut applier = Applier { machine, books, former, shared, revival: None, taken, failures: 0 };
        // Before the snapshot counts: nobody may read what is not installed yet.
        applier.publish();
        if let Some(snapshot) = snapshot {
            applier.shared.has_snapshot(&snapshot);
            if snapshot.meta.last_log_id > applier.books.applied.log_id {
                applier.books = Books::from_notes(&snapshot.notes)?;
                applier.shared.queue.push(Work::Install(snapshot));
            }
        }
        Ok(applier)
    }

    /// From now on a machine that fails, and can be, is opened anew; what it lacks then comes from `snapshots` and the log.
    pub fn reviving(mut self, snapshots: SnapshotDir) -> Applier {
        self.revival = self.machine.reviver().map(|reviver| Revival { reviver, snapshots });
        self.attend();
        self
    }

    /// Has the machine's alarm put into the queue.
    fn attend(&mut self) {
        let queue = self.shared.queue.clone();
        self.machine.on_failure(Box::new(move || queue.push(Work::Check)));
    }

    /// The books as they are now.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Runs as a worker until the queue is closed, waiting awake for at most `window` at a time. Fails with `Io` when there can be
    /// no more threads.
    pub fn spawn(mut self, name: &str, window: Duration) -> Result<Worker, Failure> {
        Worker::start(&format!("quorate-machine-{name}"), window, async move {
            let queue = self.shared.queue.clone();
            while let Some(work) = queue.next().await {
                if AssertUnwindSafe(self.work(work)).catch_unwind().await.is_err() {
                    return self.give_up().await;
                }
            }
        })
    }

    /// After a panic the machine's state is not known: nothing more is applied, voting goes on.
    async fn give_up(&mut self) {
        let message = "The state machine panicked; nothing is applied here any more until the node is started again.";
        tracing::error!("{message}");
        self.shared.problems.set(Problem::Machine, Failure::internal(message));
        let queue = self.shared.queue.clone();
        while queue.next().await.is_some() {}
    }

    async fn work(&mut self, work: Work) {
        self.taken = self.taken.max(match &work {
            Work::Entries(entries) => entries.last().map(|entry| entry.log_id.index),
            Work::Range(_, last) => Some(*last),
            Work::Install(snapshot) => snapshot.meta.last_log_id.map(|log_id| log_id.index),
            Work::Freeze(_) | Work::Check => None,
        });
        match work {
            Work::Entries(entries) => self.apply_merged(entries).await,
            Work::Range(first, last) => self.apply_range(first, last).await,
            Work::Install(snapshot) => self.install(&snapshot).await,
            Work::Check => {
                // A machine that has been opened anew since has nothing to say.
                let _told = self.persistently("writing what was applied", |this| this.machine.apply(&[], &[])).await;
            }
            Work::Freeze(reply) => {
                let frozen = self.freeze();
                // Nobody waits any more when the builder was dropped at close: the view goes with it.
                drop(reply.send(frozen));
            }
        }
    }

    async fn apply_merged(&mut self, mut entries: Vec<Entry>) {
        let mut bytes: usize = entries.iter().map(entry_bytes).sum();
        while bytes < BATCH_BYTES_MAX
            && (entries.len() as u64) < RANGE_ENTRIES
            && let Some(more) = self.shared.queue.next_entries()
        {
            bytes += more.iter().map(entry_bytes).sum::<usize>();
            entries.extend(more);
        }
        self.taken = self.taken.max(entries.last().map(|entry| entry.log_id.index));
        self.apply(entries).await;
    }

    async fn apply_range(&mut self, first: u64, last: u64) {
        let mut next = first;
        // Under a snapshot that waits, the log may be purged already.
        while next <= last && !self.shared.queue.is_closed() && !self.shared.queue.is_superseded() {
            let until = last.min(next + RANGE_ENTRIES - 1);
            let Some(entries) = self.read_range(next, until).await else { return };
            let Some(last_read) = entries.last() else { return };
            next = last_read.log_id.index + 1;
            if !self.apply(entries).await {
                return;
            }
        }
    }

    /// Committed entries out of the log; `None` when the node closes, none when a snapshot makes them needless.
    async fn read_range(&mut self, first: u64, last: u64) -> Option<Vec<Entry>> {
        loop {
            if self.shared.queue.is_superseded() {
                return Some(Vec::new());
            }
            let log = self.shared.log.lock().clone();
            match read_log(log, first, last).await {
                Ok(entries) => {
                    self.shared.problems.clear(Problem::Machine);
                    return Some(entries);
                }
                Err(failure) if failure.code == Code::Corrupt && self.step_back() => return Some(Vec::new()),
                Err(failure) => self.bear("reading committed entries back from the log", &failure).await?,
            }
        }
    }

    /// A machine that was opened anew may be behind entries that neither log nor snapshot has: others committed them, and the disk
    /// failed before they were on it. Then what was handed over counts no more, and the starting core gets it again from the leader.
    /// False when no core is starting.
    fn step_back(&mut self) -> bool {
        if !self.shared.covering.load(Ordering::Acquire) {
            return false;
        }
        self.shared.queue.forget_entries();
        self.taken = self.books.applied.log_id.map(|log_id| log_id.index);
        *self.shared.handed.lock() = (self.books.applied.log_id, self.books.membership.clone());
        true
    }

    /// False when the entries were not applied: the node closes, or they are in the queue again.
    async fn apply(&mut self, entries: Vec<Entry>) -> bool {
        let mut round = Round::default();
        for entry in entries {
            // Entries that a snapshot already covers come again after a restart.
            if Some(entry.log_id) <= self.books.applied.log_id {
                continue;
            }
            if let Err(failure) = self.enter(entry, &mut round) {
                // A committed entry that cannot be read never can: nothing is applied any more, voting goes on.
                while self.bear("applying a committed entry", &failure).await.is_some() {}
                return false;
            }
        }
        self.finish(round).await
    }

    fn enter(&mut self, entry: Entry, round: &mut Round) -> Result<(), Failure> {
        self.books.applied.log_id = Some(entry.log_id);
        match entry.payload {
            openraft::EntryPayload::Blank => Ok(()),
            openraft::EntryPayload::Membership(membership) => {
                self.former = self.books.membership.clone();
                self.books.enter_membership(entry.log_id, membership);
                Ok(())
            }
            openraft::EntryPayload::Normal(batch) => {
                let decoded = batch.decode()?;
                for command in decoded.commands {
                    let local = self.is_local(&command.id);
                    match self.books.admit(&command) {
                        Verdict::New => round.commands.push(Committed {
                            id: command.id,
                            local,
                            index: self.books.applied.index,
                            term: entry.log_id.leader_id.term,
                            time_ms: decoded.time_ms,
                            seed: decoded.seed,
                            body: command.body,
                        }),
                        Verdict::Stale if local => round.stale.push(command.id.sequence),
                        Verdict::Stale | Verdict::Repeated => {}
                    }
                }
                Ok(())
            }
        }
    }

    async fn finish(&mut self, mut round: Round) -> bool {
        if planted::is(Defect::ApplyOutOfOrder) {
            round.disorder();
        }
        self.shared.pace.clone().pass(Stage::Apply).await;
        let notes = match self.books.changes() {
            Ok(notes) => notes,
            Err(failure) => {
                self.shared.problems.set(Problem::Machine, failure);
                return true;
            }
        };
        let answer = loop {
            let applied =
                self.persistently("applying committed commands", |this| this.machine.apply(&round.commands, &notes));
            match applied.await {
                None => return false,
                Some(Answer::Full) => {}
                Some(answer) => break answer,
            }
        };
        // What took effect is noted before the low-water mark is published that would call it discarded.
        let due = self.resolve(round, answer);
        self.publish();
        deliver(due, self.shared.observer.as_ref());
        true
    }

    fn resolve(&self, round: Round, answer: Answer) -> Vec<Due> {
        let pending = &self.shared.pending;
        let mut due = match answer {
            Answer::Now(outcomes) => {
                let local = round.commands.iter().zip(outcomes).filter(|(command, _)| command.local);
                pending.resolve(local.map(|(command, outcome)| (command.id.sequence, command.index, outcome)))
            }
            Answer::Later | Answer::Full => {
                let local = round.commands.iter().filter(|command| command.local);
                pending.hand_over(local.map(|command| (command.id.sequence, command.index)));
                Vec::new()
            }
        };
        due.extend(pending.discard(round.stale.into_iter(), &no_member()));
        due
    }

    async fn install(&mut self, snapshot: &OpenSnapshot) {
        if snapshot.meta.last_log_id < self.books.applied.log_id && !planted::is(Defect::OlderSnapshotInstalled) {
            return;
        }
        let books = self.persistently("installing a snapshot", |this| {
            // A newer one replaces all of it anyway.
            if this.shared.queue.is_superseded() {
                return Ok(None);
            }
            let books = Books::from_notes(&snapshot.notes)?;
            let mut payload = UntilClosed { stream: snapshot.payload()?, queue: this.shared.queue.clone() };
            this.machine.install(snapshot.index, &mut payload, &snapshot.notes)?;
            Ok(Some(books))
        });
        let Some(Some(books)) = books.await else { return };
        self.books = books;
        self.shared.has_snapshot(snapshot);
        let due = self.skip();
        self.publish();
        deliver(due, self.shared.observer.as_ref());
    }

    /// Commands of this node that an installed snapshot knows: they took effect, or came while this node was no member. Their
    /// results are not known here.
    fn skip(&self) -> Vec<Due> {
        let own = self.shared.pending.identity().and_then(|(node, incarnation)| {
            self.books.sessions.window(node).filter(|window| window.incarnation == incarnation)
        });
        let Some(window) = own else { return Vec::new() };
        let failure = Failure::new(
            Code::Timeout,
            "The command was decided, but its result is not known here: this node caught up by a snapshot.",
        );
        self.shared.pending.skip(window.low, |sequence| window.contains(sequence), &failure)
    }

    fn freeze(&mut self) -> Result<FrozenState, Failure> {
        let old = planted::is(Defect::SnapshotOldMembership);
        let last_membership = if old { self.former.clone() } else { self.books.membership.clone() };
        let meta = SnapshotMeta { last_log_id: self.books.applied.log_id, last_membership };
        Ok(FrozenState {
            meta,
            index: self.books.applied.index,
            notes: self.books.to_notes()?,
            view: self.machine.freeze()?,
        })
    }

    fn publish(&self) {
        let own_low = self.shared.pending.identity().and_then(|(node, incarnation)| {
            let window = self.books.sessions.window(node)?;
            (window.incarnation == incarnation).then_some(window.low)
        });
        let next = self.books.applied.log_id.map_or(0, |log_id| log_id.index + 1);
        self.shared.progress.send_modify(|progress| {
            // A machine that was opened anew may be behind for a while; what was applied once stays so.
            if next >= progress.next_log_index {
                progress.next_log_index = next;
                progress.index = self.books.applied.index;
                progress.own_low = own_low.unwrap_or(0);
            }
        });
    }

    fn is_local(&self, id: &CommandId) -> bool {
        self.shared.pending.identity() == Some((id.node, id.incarnation))
    }
}

/// Some of the entries `first..=last`, from the first on. Fails with `Unavailable` while there is no log, with `Corrupt` when
/// the first is not in it.
async fn read_log(log: Option<LogStore>, first: u64, last: u64) -> Result<Vec<Entry>, Failure> {
    let mut log = log.ok_or_else(log_is_away)?;
    let read = log.limited_get_log_entries(first, last + 1).await;
    let entries = read.map_err(|error| Failure::io("Reading the log", &error))?;
    match entries.first() {
        Some(entry) if entry.log_id.index == first => Ok(entries),
        _ => Err(Failure::new(Code::Corrupt, format!("The committed entry {first} is not in the log."))),
    }
}

#[derive(Default)]
struct Round {
    commands: Vec<Committed>,
    stale: Vec<u64>,
}

impl Round {
    /// Exchanges the first two commands when the first is of this node.
    fn disorder(&mut self) {
        if let [first, second, ..] = self.commands.as_mut_slice()
            && first.local
        {
            std::mem::swap(first, second);
            std::mem::swap(&mut first.index, &mut second.index);
        }
    }
}

/// Not `Closed`: the consensus core is being started again, and the log with it.
fn log_is_away() -> Failure {
    Failure::new(Code::Unavailable, "The log is being opened again.")
}

fn no_member() -> Failure {
    Failure::new(Code::Membership, "This node is no member of the cluster any more; the command has no effect.")
}

/// Gives answers to those who wait for them. A callback that panics hurts nobody else.
pub fn deliver(due: Vec<Due>, observer: &dyn Observer) {
    let mut observed = Vec::with_capacity(due.len());
    for (ticket, reply, outcome) in due {
        match reply {
            Reply::Observer => {
                if planted::is(Defect::CompletedTwice) {
                    observed.push((ticket, outcome.clone()));
                }
                observed.push((ticket, outcome));
            }
            Reply::Call(call) => contain("A callback", || call(outcome)),
        }
    }
    if !observed.is_empty() {
        contain("The observer", || observer.completed(observed));
    }
}

/// Runs foreign code: a panic in it is its own and ends no thread of the node.
pub fn contain(whose: &str, code: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(code)).is_err() {
        tracing::error!("{whose} panicked.");
    }
}

mod revival;
#[cfg(test)]
mod tests;
