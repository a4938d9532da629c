//! What the applying thread does when the machine fails: it says so, opens the machine anew where that can be, and tries again.

use std::io::Read;
use std::time::Duration;

use super::Applier;
use crate::error::{Code, Failure};
use crate::machine::{Applied as Answer, Committed, Frozen, Note, Notes, Reviver, StateMachine};
use crate::node::books::Books;
use crate::node::problems::Problem;
use crate::snapshot::SnapshotDir;
use crate::worker::pause;

/// Before the first new attempt of a machine that failed; doubles with each further one, up to the longest.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_DOUBLINGS_MAX: u32 = 4;

/// What it takes to open a failed machine anew.
pub(super) struct Revival {
    pub reviver: Box<dyn Reviver>,
    pub snapshots: SnapshotDir,
}

impl Applier {
    /// Tries until it works (the failure shows in the status meanwhile), the node closes, or the machine was opened anew and what is
    /// to be done is in the queue again; `None` in either of the last two cases.
    pub(super) async fn persistently<T>(
        &mut self,
        doing: &str,
        mut attempt: impl FnMut(&mut Applier) -> Result<T, Failure>,
    ) -> Option<T> {
        loop {
            let attempted = match attempt(self) {
                Ok(done) => self.machine.settled().await.map(|()| done),
                Err(failure) => Err(failure),
            };
            match attempted {
                Ok(done) => {
                    self.shared.problems.clear(Problem::Machine);
                    self.failures = 0;
                    return Some(done);
                }
                Err(failure) => self.bear(doing, &failure).await?,
            }
            if self.revival.is_some() {
                while let Err(failure) = self.revive() {
                    self.bear("being opened again", &failure).await?;
                }
                return None;
            }
        }
    }

    /// Opens the machine anew and puts what it lacks into the queue.
    fn revive(&mut self) -> Result<(), Failure> {
        let Some(revival) = &mut self.revival else { return Ok(()) };
        // What it holds of its directory must go before that is opened again.
        self.machine = Box::new(Away);
        let mut machine = revival.reviver.revive()?;
        let books = Books::from_notes(&machine.load_notes()?)?;
        let snapshot = revival.snapshots.latest()?;
        let snapshot = snapshot.filter(|snapshot| snapshot.meta.last_log_id > books.applied.log_id);
        let begins = snapshot.as_ref().map_or(books.applied.log_id, |snapshot| snapshot.meta.last_log_id);
        let next = begins.map_or(0, |log_id| log_id.index + 1);
        let range = self.taken.filter(|last| *last >= next).map(|last| (next, last));
        (self.machine, self.books) = (machine, books);
        self.attend();
        if snapshot.is_none() && range.is_none() {
            self.shared.problems.clear(Problem::Machine);
        }
        tracing::warn!("The state machine was opened anew; it is given again what it lacks.");
        self.shared.queue.put_back(snapshot, range);
        Ok(())
    }

    /// Reports `failure` and waits before the next attempt; `None` when there is to be none.
    pub(super) async fn bear(&mut self, doing: &str, failure: &Failure) -> Option<()> {
        if self.shared.queue.is_closed() || failure.code == Code::Closed {
            return None;
        }
        tracing::error!("The state machine failed while {doing}: {failure}");
        self.shared.problems.set(Problem::Machine, failure.clone());
        pause(RETRY * (1 << self.failures.min(RETRY_DOUBLINGS_MAX))).await;
        self.failures += 1;
        Some(())
    }
}

/// Stands for a machine that failed until it was opened anew.
struct Away;

impl Away {
    fn failure() -> Failure {
        Failure::new(Code::Unavailable, "The state machine is being opened again.")
    }
}

impl StateMachine for Away {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Err(Away::failure())
    }

    fn apply(&mut self, _commands: &[Committed], _notes: &[Note]) -> Result<Answer, Failure> {
        Err(Away::failure())
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Err(Away::failure())
    }

    fn install(&mut self, _index: u64, _payload: &mut dyn Read, _notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        Err(Away::failure())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Err(Away::failure())
    }
}
