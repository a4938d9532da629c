//! One error type for the whole engine: a code that every layer above maps one to one, and a sentence for a person.

use std::fmt;

/// What went wrong, as a stable number. The bridge hands it to Java as is; Clojure turns it into a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The node was closed, or is closing.
    Closed = 1,
    /// An argument or a configuration value is wrong.
    Invalid = 2,
    /// A bounded queue is full; nothing was accepted.
    Overloaded = 3,
    /// The entry is larger than [`crate::limits::ENTRY_BYTES_MAX`].
    TooLarge = 4,
    /// The outcome did not arrive in time. The command may still commit.
    Timeout = 5,
    /// This node does not lead, and was asked not to forward.
    NotLeader = 6,
    /// No quorum, or no leader, within the time given: nothing was done.
    Unavailable = 7,
    /// The state machine failed on this command.
    StateMachine = 8,
    /// Reading or writing the disk failed.
    Io = 9,
    /// Data on disk is damaged: the message names file, offset and the way out.
    Corrupt = 10,
    /// The other side belongs to another cluster, speaks a newer protocol, or is not who it should be.
    Refused = 11,
    /// The data directory is in use by another process.
    Locked = 12,
    /// The address is already in use.
    AddressInUse = 13,
    /// A membership change is impossible: the message says why.
    Membership = 14,
    /// What was asked for is no longer kept (a revision before the oldest, a purged index).
    Compacted = 15,
    /// A defect in Quorate: a panic was caught, an invariant did not hold.
    Internal = 16,
}

impl Code {
    /// Every code there is.
    pub const ALL: [Code; 16] = [
        Code::Closed,
        Code::Invalid,
        Code::Overloaded,
        Code::TooLarge,
        Code::Timeout,
        Code::NotLeader,
        Code::Unavailable,
        Code::StateMachine,
        Code::Io,
        Code::Corrupt,
        Code::Refused,
        Code::Locked,
        Code::AddressInUse,
        Code::Membership,
        Code::Compacted,
        Code::Internal,
    ];

    /// The code with that number, when there is one.
    pub fn of(number: u8) -> Option<Code> {
        Code::ALL.into_iter().find(|code| *code as u8 == number)
    }
}

/// An error with its [`Code`] and one sentence that says what happened and, where there is one, the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
}

impl Failure {
    /// A failure of `code` with `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// [`Code::Closed`]: the node is shut down.
    pub fn closed() -> Failure {
        Failure::new(Code::Closed, "The node is closed.")
    }

    /// [`Code::Invalid`] with `message`.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::Invalid, message)
    }

    /// [`Code::NotLeader`]: the answer of a node that does not lead.
    pub fn not_leader() -> Failure {
        Failure::new(Code::NotLeader, "This node is not the leader.")
    }

    /// [`Code::Io`]: what was being done (`doing`) and the operating system's reason.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Failure {
        Failure::new(Code::Io, format!("{doing}: {error}"))
    }

    /// [`Code::Internal`]: a defect, never the user's fault.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(Code::Internal, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> std::io::Error {
        std::io::Error::other(failure)
    }
}
