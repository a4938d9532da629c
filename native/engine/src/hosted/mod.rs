//! A state machine that lives in the host process (a JVM): committed commands go out as records, the host applies them
//! at its own pace and acknowledges by index.
//!
//! What the host has not acknowledged is bounded ([`APPLY_WINDOW_COMMANDS`], [`APPLY_WINDOW_BYTES`]): beyond it the
//! applying thread waits, while consensus, votes and fsyncs go on. The machine holds nothing durable: at start it is
//! rebuilt from the newest snapshot and the log.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::error::{Code, Failure};
use crate::limits::{APPLY_WINDOW_BYTES, APPLY_WINDOW_COMMANDS};
use crate::machine::{Applied, Committed, Frozen, Note, StateMachine};
use crate::records::{self, RecordQueue};
use crate::session::Polled;

/// How much a host may have that it has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Commands.
    pub commands: usize,
    /// Bytes of their bodies; a larger command goes alone.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { commands: APPLY_WINDOW_COMMANDS, bytes: APPLY_WINDOW_BYTES }
    }
}

#[derive(Default)]
struct Window {
    /// Handed over and not acknowledged: `(index, bytes)`.
    handed: VecDeque<(u64, usize)>,
    bytes: usize,
    acknowledged: u64,
    next_ticket: u64,
    /// Snapshots and installations that the host works on; `Some` when it is done.
    tasks: HashMap<u64, Option<Result<(), Failure>>>,
    /// Index of the snapshot that the host is installing, and since when.
    installing: Option<(u64, Instant)>,
    closed: bool,
    /// When the oldest unacknowledged command was handed over, or the host last acknowledged one.
    moved_at: Option<Instant>,
}

/// The host's side: what it polls, and what it says back.
pub struct Host {
    queue: RecordQueue,
    window: Mutex<Window>,
    changed: Notify,
    bounds: Bounds,
    scratch: PathBuf,
    /// A snapshot that the host has not written after this long has failed.
    snapshot_timeout: Duration,
}

/// The machine that the engine sees.
pub struct HostedMachine {
    host: Arc<Host>,
    /// The last command handed over, or held by an installed snapshot.
    index: u64,
    /// Bytes of the next commands, for which there was no room.
    wanted: Option<usize>,
    /// What the host was asked to install, until it has settled.
    installing: Option<Installing>,
}

/// Makes the two sides; `scratch` is a directory for files on their way to and from the host, `snapshot_timeout` how long
/// the host may take to write a snapshot, `bounds` what it may have unacknowledged. Fails with `Io`.
pub fn pair(
    scratch: PathBuf,
    snapshot_timeout: Duration,
    bounds: Bounds,
) -> Result<(HostedMachine, Arc<Host>), Failure> {
    // Whatever lies there is from a process that ended: no host reads or writes it any more.
    match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::io(format!("Clearing {}", scratch.display()), &error));
        }
        _ => {}
    }
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io(format!("Making {}", scratch.display()), &error))?;
    let host = Arc::new(Host {
        queue: RecordQueue::new(bounds.commands),
        window: Mutex::default(),
        changed: Notify::new(),
        bounds,
        scratch,
        snapshot_timeout,
    });
    Ok((HostedMachine { host: host.clone(), index: 0, wanted: None, installing: None }, host))
}

impl Host {
    /// The next records for the host, see [`crate::session::Session::poll`].
    pub fn poll(&self, out: &mut [u8], wait: Duration) -> Polled {
        self.queue.poll(out, wait)
    }

    /// The host has applied everything up to `index`.
    pub fn acknowledge(&self, index: u64) {
        let mut window = self.window.lock();
        if index <= window.acknowledged {
            return;
        }
        window.acknowledged = index;
        window.moved_at = Some(Instant::now());
        while let Some((handed, bytes)) = window.handed.front().copied()
            && handed <= index
        {
            window.handed.pop_front();
            window.bytes -= bytes;
        }
        drop(window);
        self.changed.notify_waiters();
    }

    /// The host finished a snapshot or an installation. Fails with `Invalid` for a ticket that is not open.
    pub fn finished(&self, ticket: u64, result: Result<(), Failure>) -> Result<(), Failure> {
        let mut window = self.window.lock();
        let task = window
            .tasks
            .get_mut(&ticket)
            .ok_or_else(|| Failure::invalid(format!("No snapshot task {ticket} is open.")))?;
        *task = Some(result);
        drop(window);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Index up to which the host has applied, commands it still has, and how long it has not moved while it had some.
    pub fn lag(&self) -> (u64, usize, Duration) {
        let window = self.window.lock();
        let still = match (&window.moved_at, window.handed.is_empty()) {
            (Some(at), false) => at.elapsed(),
            _ => Duration::ZERO,
        };
        (window.acknowledged, window.handed.len(), still)
    }

    /// What the host takes too long for, as a sentence: an installation is waited for, but said to be overdue.
    pub fn overdue(&self) -> Option<String> {
        let (index, since) = self.window.lock().installing?;
        let waited = since.elapsed();
        (waited >= self.snapshot_timeout).then(|| {
            format!("The state machine has been installing the snapshot of index {index} for {} s.", waited.as_secs())
        })
    }

    /// Ends the stream with its CLOSED record and every wait with `Closed`.
    pub fn close(&self) {
        let mut window = self.window.lock();
        if std::mem::replace(&mut window.closed, true) {
            return;
        }
        drop(window);
        self.changed.notify_waiters();
        let mut last = Vec::new();
        records::apply_closed(&mut last);
        self.queue.close(last);
    }

    fn open_task(&self) -> Result<(u64, PathBuf), Failure> {
        let mut window = self.window.lock();
        if window.closed {
            return Err(Failure::closed());
        }
        window.next_ticket += 1;
        let ticket = window.next_ticket;
        window.tasks.insert(ticket, None);
        Ok((ticket, self.scratch.join(format!("{ticket}.state"))))
    }

    /// Waits until `done` gives something; asks it again whenever the window changed.
    async fn until<T>(&self, mut done: impl FnMut(&mut Window) -> Option<T>) -> T {
        loop {
            // From here on no change is missed.
            let changed = self.changed.notified();
            if let Some(done) = done(&mut self.window.lock()) {
                return done;
            }
            changed.await;
        }
    }

    /// Waits for the host's answer. Fails as the host did, and with `Closed`.
    async fn answer(&self, ticket: u64) -> Result<(), Failure> {
        self.until(|window| match window.tasks.get(&ticket) {
            Some(Some(result)) => Some(result.clone()),
            _ => window.closed.then(|| Err(Failure::closed())),
        })
        .await
    }

    /// Nobody waits for this task any more; an answer finds it closed.
    fn give_up(&self, ticket: u64) {
        self.window.lock().tasks.remove(&ticket);
    }

    /// Whether there is room for more commands of `bytes` bytes; a command larger than the window goes alone. Fails with `Closed`.
    fn has_room(&self, window: &Window, bytes: usize) -> Result<bool, Failure> {
        if window.closed {
            return Err(Failure::closed());
        }
        let full = window.handed.len() >= self.bounds.commands || window.bytes + bytes > self.bounds.bytes;
        Ok(window.handed.is_empty() || !full)
    }

    fn hand_over(&self, commands: &[Committed]) {
        let mut window = self.window.lock();
        if window.handed.is_empty() {
            window.moved_at = Some(Instant::now());
        }
        for command in commands {
            window.bytes += command.body.len();
            window.handed.push_back((command.index, command.body.len()));
        }
        drop(window);
        // Written where it is polled from: the host takes it with one copy more.
        self.queue.push_with(commands.len(), |out| commands.iter().for_each(|command| records::entry(out, command)));
    }
}

/// Commands that are encoded and handed over under one lock.
const HAND_OVER_COMMANDS: usize = 256;

impl StateMachine for HostedMachine {
    fn load_notes(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Applied, Failure> {
        // A repeated attempt after a failure must not hand a command over twice.
        let fresh = commands.partition_point(|command| command.index <= self.index);
        for chunk in commands[fresh..].chunks(HAND_OVER_COMMANDS.min(self.host.bounds.commands)) {
            let bytes = chunk.iter().map(|command| command.body.len()).sum();
            if !self.host.has_room(&self.host.window.lock(), bytes)? {
                self.wanted = Some(bytes);
                return Ok(Applied::Full);
            }
            self.host.hand_over(chunk);
            self.index = chunk.last().map_or(self.index, |command| command.index);
        }
        Ok(Applied::Later)
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        let (ticket, path) = self.host.open_task()?;
        let mut record = Vec::new();
        records::snapshot(&mut record, ticket, self.index, &path.to_string_lossy());
        self.host.queue.push(record);
        let deadline = Instant::now() + self.host.snapshot_timeout;
        Ok(Box::new(HostedView { task: Task { host: self.host.clone(), ticket, path }, deadline }))
    }

    fn install(&mut self, index: u64, payload: &mut dyn Read, _notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let (ticket, path) = self.host.open_task()?;
        let installing = Installing { task: Task { host: self.host.clone(), ticket, path }, index };
        let path = &installing.task.path;
        copy_to(path, payload)?;
        let mut record = Vec::new();
        records::install(&mut record, ticket, index, &path.to_string_lossy());
        self.host.window.lock().installing = Some((index, Instant::now()));
        self.host.queue.push(record);
        self.installing = Some(installing);
        Ok(())
    }

    fn settled(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            if let Some(bytes) = self.wanted.take() {
                let host = &self.host;
                host.until(|window| {
                    host.has_room(window, bytes)
                        .map_or_else(|failure| Some(Err(failure)), |room| room.then_some(Ok(())))
                })
                .await?;
            }
            let Some(Installing { task, index }) = self.installing.take() else { return Ok(()) };
            let done = self.host.answer(task.ticket).await;
            self.host.window.lock().installing = None;
            done?;
            self.index = index;
            self.host.acknowledge(index);
            Ok(())
        }
        .boxed()
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn copy_to(path: &PathBuf, payload: &mut dyn Read) -> Result<(), Failure> {
    let copied = File::create(path).and_then(|mut file| io::copy(payload, &mut file));
    copied.map(drop).map_err(|error| Failure::io(format!("Writing {}", path.display()), &error))
}

fn remove(path: &PathBuf) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} stays behind: {error}", path.display());
    }
}

/// What the host was asked to do, with the file that is passed: nobody waits for it any more, and the file is gone, when this is.
struct Task {
    host: Arc<Host>,
    ticket: u64,
    path: PathBuf,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.host.give_up(self.ticket);
        remove(&self.path);
    }
}

/// A snapshot on its way to the host.
struct Installing {
    task: Task,
    index: u64,
}

/// The host's view of one index, being written by the host.
struct HostedView {
    task: Task,
    deadline: Instant,
}

impl Frozen for HostedView {
    fn ready(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let Task { host, ticket, .. } = &self.task;
            let late = |_| {
                let waited = host.snapshot_timeout.as_millis();
                Err(host_failure(&format!("The state machine did not write its snapshot in {waited} ms.")))
            };
            timeout_at(self.deadline, host.answer(*ticket)).await.unwrap_or_else(late)
        }
        .boxed()
    }

    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        let path = &self.task.path;
        let copied = File::open(path).and_then(|mut file| io::copy(&mut file, out));
        copied.map(drop).map_err(|error| Failure::io(format!("Reading the host's snapshot {}", path.display()), &error))
    }
}

impl Drop for HostedMachine {
    fn drop(&mut self) {
        self.host.close();
    }
}

/// The failure that a host reports for a snapshot or an installation.
pub fn host_failure(message: &str) -> Failure {
    Failure::new(Code::StateMachine, message)
}
