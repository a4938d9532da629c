//! A state machine that lives in the host process (a JVM): committed commands go out as records, the host applies them
//! at its own pace and acknowledges by index.
//!
//! What the host has not acknowledged is bounded ([`APPLY_WINDOW_COMMANDS`], [`APPLY_WINDOW_BYTES`]): beyond it the
//! applying thread waits here, while consensus, votes and fsyncs go on. The machine holds nothing durable: at start it is
//! rebuilt from the newest snapshot and the log.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Code, Failure};
use crate::limits::{APPLY_WINDOW_BYTES, APPLY_WINDOW_COMMANDS};
use crate::machine::{Applied, Committed, Frozen, Note, StateMachine};
use crate::records::{self, RecordQueue};
use crate::session::Polled;

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
    changed: Condvar,
    scratch: PathBuf,
    /// A snapshot that the host has not written after this long has failed.
    snapshot_timeout: Duration,
}

/// The machine that the engine sees.
pub struct HostedMachine {
    host: Arc<Host>,
    index: u64,
}

/// Makes the two sides; `scratch` is a directory for files on their way to and from the host, `snapshot_timeout` how long
/// the host may take to write a snapshot.
pub fn pair(scratch: PathBuf, snapshot_timeout: Duration) -> Result<(HostedMachine, Arc<Host>), Failure> {
    // Whatever lies there is from a process that ended: no host reads or writes it any more.
    match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::io(format!("Clearing {}", scratch.display()), &error));
        }
        _ => {}
    }
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io(format!("Making {}", scratch.display()), &error))?;
    let host = Arc::new(Host {
        queue: RecordQueue::new(APPLY_WINDOW_COMMANDS),
        window: Mutex::default(),
        changed: Condvar::new(),
        scratch,
        snapshot_timeout,
    });
    Ok((HostedMachine { host: host.clone(), index: 0 }, host))
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
        self.changed.notify_all();
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
        self.changed.notify_all();
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
        self.changed.notify_all();
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

    /// Waits for the host's answer, until `deadline` if there is one: then the task is given up.
    fn await_task(&self, ticket: u64, deadline: Option<Instant>) -> Result<(), Failure> {
        let mut window = self.window.lock();
        loop {
            if let Some(Some(result)) = window.tasks.get(&ticket).cloned() {
                window.tasks.remove(&ticket);
                return result;
            }
            if window.closed {
                window.tasks.remove(&ticket);
                return Err(Failure::closed());
            }
            match deadline {
                None => self.changed.wait(&mut window),
                Some(deadline) if Instant::now() >= deadline => {
                    window.tasks.remove(&ticket);
                    let waited = self.snapshot_timeout.as_millis();
                    return Err(host_failure(&format!("The state machine did not write its snapshot in {waited} ms.")));
                }
                Some(deadline) => drop(self.changed.wait_until(&mut window, deadline)),
            }
        }
    }

    /// Nobody waits for this task any more; an answer finds it closed.
    fn give_up(&self, ticket: u64) {
        self.window.lock().tasks.remove(&ticket);
    }

    /// Waits until the window has room for one more; a command larger than the window goes alone.
    fn await_room(&self, bytes: usize) -> Result<(), Failure> {
        let mut window = self.window.lock();
        while !window.closed
            && !window.handed.is_empty()
            && (window.handed.len() >= APPLY_WINDOW_COMMANDS || window.bytes + bytes > APPLY_WINDOW_BYTES)
        {
            self.changed.wait(&mut window);
        }
        if window.closed { Err(Failure::closed()) } else { Ok(()) }
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
        for chunk in commands[fresh..].chunks(HAND_OVER_COMMANDS) {
            self.host.await_room(chunk.iter().map(|command| command.body.len()).sum())?;
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
        Ok(Box::new(HostedView { host: self.host.clone(), ticket, path, deadline }))
    }

    fn install(&mut self, index: u64, payload: &mut dyn Read, _notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let (ticket, path) = self.host.open_task()?;
        let done = copy_to(&path, payload).and_then(|()| {
            let mut record = Vec::new();
            records::install(&mut record, ticket, index, &path.to_string_lossy());
            self.host.window.lock().installing = Some((index, Instant::now()));
            self.host.queue.push(record);
            let done = self.host.await_task(ticket, None);
            self.host.window.lock().installing = None;
            done
        });
        self.host.give_up(ticket);
        remove(&path);
        done?;
        self.index = index;
        self.host.acknowledge(index);
        Ok(())
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

/// The host's view of one index, being written by the host.
struct HostedView {
    host: Arc<Host>,
    ticket: u64,
    path: PathBuf,
    deadline: Instant,
}

impl Frozen for HostedView {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        self.host.await_task(self.ticket, Some(self.deadline))?;
        let copied = File::open(&self.path).and_then(|mut file| io::copy(&mut file, out));
        copied
            .map(drop)
            .map_err(|error| Failure::io(format!("Reading the host's snapshot {}", self.path.display()), &error))
    }
}

impl Drop for HostedView {
    fn drop(&mut self) {
        self.host.give_up(self.ticket);
        remove(&self.path);
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
