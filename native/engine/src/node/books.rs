//! The bookkeeping that goes with applied state: how far, under which membership, and which commands took effect.
//!
//! A durable machine stores it as notes beside its data; a snapshot carries it in its header.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::consensus::types::{LogId, Membership, StoredMembership};
use crate::dedup::{SessionTable, Verdict, Window};
use crate::error::{Code, Failure};
use crate::machine::{Note, Notes};
use crate::planted::{self, Defect};

const APPLIED_KEY: &[u8] = b"applied";
const MEMBERSHIP_KEY: &[u8] = b"membership";
const WINDOW_PREFIX: &[u8] = b"window/";

/// How far the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last Raft entry applied.
    pub log_id: Option<LogId>,
    /// The user-visible index: commands that took effect.
    pub index: u64,
}

/// Everything that must stay in step with the machine's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Books {
    /// How far the machine is.
    pub applied: Applied,
    /// The membership as of there.
    pub membership: StoredMembership,
    /// Which commands took effect.
    pub sessions: SessionTable,
    /// Nodes whose window changed since the last [`Books::changes`].
    touched: Vec<u64>,
    membership_changed: bool,
}

impl Books {
    /// Rebuilds the books from a machine's notes; empty notes are empty books. Fails with `Corrupt`.
    pub fn from_notes(notes: &[(Vec<u8>, Vec<u8>)]) -> Result<Books, Failure> {
        let mut books = Books::default();
        for (key, value) in notes {
            match key.as_slice() {
                APPLIED_KEY => books.applied = decode(value)?,
                MEMBERSHIP_KEY => books.membership = decode(value)?,
                key => {
                    let node =
                        key.strip_prefix(WINDOW_PREFIX).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
                    let node =
                        node.ok_or_else(|| Failure::new(Code::Corrupt, format!("Unknown bookkeeping note {key:?}.")))?;
                    books.sessions.restore(node, decode::<Window>(value)?);
                }
            }
        }
        Ok(books)
    }

    /// The whole books as notes, for a snapshot.
    pub fn to_notes(&self) -> Result<Notes, Failure> {
        let mut notes =
            vec![(APPLIED_KEY.to_vec(), encode(&self.applied)?), (MEMBERSHIP_KEY.to_vec(), encode(&self.membership)?)];
        for (node, window) in self.sessions.iter().filter(|_| !planted::is(Defect::SnapshotWithoutSessions)) {
            notes.push((window_key(node), encode(window)?));
        }
        Ok(notes)
    }

    /// What changed since the last call, for a durable machine to store with the effects.
    pub fn changes(&mut self) -> Result<Vec<Note>, Failure> {
        let mut notes = vec![(APPLIED_KEY.to_vec(), Some(encode(&self.applied)?))];
        if std::mem::take(&mut self.membership_changed) {
            notes.push((MEMBERSHIP_KEY.to_vec(), Some(encode(&self.membership)?)));
        }
        for node in std::mem::take(&mut self.touched) {
            let window = self.sessions.window(node).map(encode).transpose()?;
            notes.push((window_key(node), window));
        }
        Ok(notes)
    }

    /// Enters a membership that was committed at `log_id`; nodes that left are forgotten in time.
    pub fn enter_membership(&mut self, log_id: LogId, membership: Membership) {
        self.membership = StoredMembership::new(Some(log_id), membership);
        self.membership_changed = true;
        let members = self.membership.membership();
        let changed = self.sessions.enter_members(log_id.index, |node| members.get_node(&node).is_some());
        changed.into_iter().for_each(|node| self.touch(node));
    }

    /// Judges a command in log order; a new one gets the next user-visible index.
    pub fn admit(&mut self, command: &Command) -> Verdict {
        if !self.is_member(command.id.node) {
            let verdict = self.sessions.refuse(&command.id, command.low_water);
            self.touch(command.id.node);
            return verdict;
        }
        let mut verdict = self.sessions.admit(&command.id, command.low_water);
        if planted::is(Defect::RetryAppliedTwice) && verdict == Verdict::Repeated {
            verdict = Verdict::New;
        }
        self.touch(command.id.node);
        if verdict == Verdict::New {
            self.applied.index += 1;
        }
        verdict
    }

    /// True when `node` is a voter or learner as of here.
    pub fn is_member(&self, node: u64) -> bool {
        self.membership.membership().get_node(&node).is_some()
    }

    fn touch(&mut self, node: u64) {
        if !self.touched.contains(&node) {
            self.touched.push(node);
        }
    }
}

fn window_key(node: u64) -> Vec<u8> {
    [WINDOW_PREFIX, &node.to_be_bytes()].concat()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    postcard::to_stdvec(value).map_err(|error| Failure::internal(format!("Bookkeeping cannot be encoded: {error}")))
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Failure> {
    postcard::from_bytes(value)
        .map_err(|error| Failure::new(Code::Corrupt, format!("A bookkeeping note cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandId;
    use crate::consensus::types::{LeaderId, Member};
    use bytes::Bytes;
    use std::collections::{BTreeMap, BTreeSet};

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
    }

    fn members(ids: &[u64]) -> Membership {
        let nodes: BTreeMap<u64, Member> = ids.iter().map(|id| (*id, Member::default())).collect();
        Membership::new_with_defaults(vec![ids.iter().copied().collect::<BTreeSet<_>>()], nodes.into_keys())
    }

    fn command(node: u64, sequence: u64) -> Command {
        Command { id: CommandId { node, incarnation: 1, sequence }, low_water: 1, body: Bytes::new() }
    }

    fn store(notes: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<Note>) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(notes.insert(key, value)),
                None => drop(notes.remove(&key)),
            }
        }
    }

    #[test]
    fn the_stored_changes_add_up_to_the_books() {
        let (mut books, mut notes) = (Books::default(), BTreeMap::new());
        books.enter_membership(log_id(1), members(&[1, 2]));
        assert_eq!(books.admit(&command(1, 1)), Verdict::New);
        assert_eq!(books.admit(&command(2, 1)), Verdict::New);
        store(&mut notes, books.changes().unwrap());
        books.applied.log_id = Some(log_id(2));
        books.enter_membership(log_id(3), members(&[2]));
        assert_eq!(books.admit(&command(2, 2)), Verdict::New);
        store(&mut notes, books.changes().unwrap());
        let stored: Vec<_> = notes.into_iter().collect();
        assert_eq!(Books::from_notes(&stored).unwrap(), books);
        assert_eq!(Books::from_notes(&books.to_notes().unwrap()).unwrap(), books);
        assert_eq!(books.applied.index, 3);
    }

    #[test]
    fn what_was_discarded_for_want_of_membership_stays_discarded_when_its_node_is_let_in_again() {
        let mut books = Books::default();
        books.enter_membership(log_id(1), members(&[1, 2]));
        assert_eq!(books.admit(&command(1, 1)), Verdict::New);
        books.enter_membership(log_id(2), members(&[2]));
        assert_eq!(books.admit(&command(1, 2)), Verdict::Stale);
        assert_eq!(books.admit(&command(1, 1)), Verdict::Repeated, "it had its effect while its node was a member");
        assert_eq!(books.admit(&command(9, 5)), Verdict::Stale, "a node that never was a member");
        books.enter_membership(log_id(3), members(&[1, 2, 9]));
        assert_eq!(books.admit(&command(1, 2)), Verdict::Repeated, "another copy");
        assert_eq!(books.admit(&command(9, 5)), Verdict::Repeated, "another copy");
        assert_eq!(books.admit(&command(1, 3)), Verdict::New);
        assert_eq!(books.admit(&command(9, 6)), Verdict::New);
        let notes = books.to_notes().unwrap();
        assert_eq!(Books::from_notes(&notes).unwrap().admit(&command(1, 2)), Verdict::Repeated, "after a snapshot");
    }

    #[test]
    fn who_is_no_member_has_no_effect() {
        let mut books = Books::default();
        books.enter_membership(log_id(1), members(&[1]));
        assert_eq!(books.admit(&command(9, 1)), Verdict::Stale);
        assert_eq!(books.applied.index, 0);
    }
}
