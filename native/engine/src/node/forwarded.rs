//! Commands that followers forwarded, on their way to the proposer of the leader.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::command::Command;
use crate::error::{Code, Failure};
use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};

/// Commands that another node forwarded, and who is told of their proposal.
pub struct Forwarded {
    /// The commands, of one batch.
    pub commands: Vec<Command>,
    /// Told once they are committed, or why not.
    pub reply: oneshot::Sender<Result<(), Failure>>,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Forwarded>,
    commands: usize,
    bytes: usize,
}

/// Forwarded commands that wait for the proposer of a leader.
#[derive(Default)]
pub struct ForwardQueue(Mutex<Inbox>);

impl ForwardQueue {
    /// Takes commands that another node forwarded. The answer comes when their proposal is committed, or says why not.
    /// Fails with `Overloaded`, and takes nothing.
    pub fn push(&self, commands: Vec<Command>) -> Result<oneshot::Receiver<Result<(), Failure>>, Failure> {
        let bytes: usize = commands.iter().map(|command| command.body.len()).sum();
        let mut inbox = self.0.lock();
        if inbox.commands + commands.len() > IN_FLIGHT_MAX || inbox.bytes + bytes > IN_FLIGHT_BYTES_MAX {
            return Err(Failure::new(Code::Overloaded, "The leader has too many forwarded commands waiting."));
        }
        inbox.commands += commands.len();
        inbox.bytes += bytes;
        let (reply, answer) = oneshot::channel();
        inbox.waiting.push_back(Forwarded { commands, reply });
        Ok(answer)
    }

    /// Takes out what came first, when it fits into the room that is left.
    pub fn pop(&self, room_commands: usize, room_bytes: usize) -> Option<Forwarded> {
        let mut inbox = self.0.lock();
        let next = inbox.waiting.front()?;
        let bytes: usize = next.commands.iter().map(|command| command.body.len()).sum();
        if next.commands.len() > room_commands || bytes > room_bytes {
            return None;
        }
        inbox.commands -= next.commands.len();
        inbox.bytes -= bytes;
        inbox.waiting.pop_front()
    }

    /// Sends everything that waits back.
    pub fn refuse_all(&self, failure: &Failure) {
        let waiting = std::mem::take(&mut *self.0.lock()).waiting;
        // A receiver that is gone has its answer already: its connection broke, and it sends again.
        waiting.into_iter().for_each(|group| drop(group.reply.send(Err(failure.clone()))));
    }
}
