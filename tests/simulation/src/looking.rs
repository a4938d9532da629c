//! Holding the nodes' logs against each other, now and then, and a new leader's against what is committed.

use quorate_engine::node::{EntryKind, Inspection, LogEntry, Role};

use crate::command::hash;
use crate::driver::Run;
use crate::invariants::Violation;
use crate::invariants::log_matching::Entry;

/// What was seen of a node's log the last time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    life: u64,
    /// Everything up to here was compared; it is committed, so it stays.
    upto: u64,
    /// The term in which it was looked at as leader.
    led: u64,
}

impl Run<'_> {
    /// Looks at every node that runs; at all of its new entries when `deep`, else only at new leaders and new lives.
    pub(crate) fn look(&mut self, deep: bool) {
        for host in 0..self.hosts.len() {
            let leads = self.agenda.leads(host);
            let new = self.hosts[host].life.as_ref().is_some_and(|life| life.number != self.looked[host].life);
            if (deep || leads || new) && self.hosts[host].paused_until <= self.now {
                self.look_at(host, deep);
            }
        }
        if deep {
            self.note_state();
        }
    }

    fn look_at(&mut self, host: usize, deep: bool) {
        let Some((life, seen)) = self.hosts[host].with(|life| (life.number, life.node.inspect())) else { return };
        let mut looked = self.looked[host];
        // A life is new until its log is open: what it begins with is looked at before anybody can mend it.
        let new = looked.life != life && seen.last.is_some();
        if new {
            looked = Looked { life, ..Looked::default() };
        }
        let deep = deep || new;
        // A deposed leader may have voted in a newer term already, and not know that it leads no more.
        let leads = seen.role == Role::Leader && seen.voted_for == Some(seen.node);
        let new_leader = leads && looked.led != seen.term;
        if deep || new_leader {
            let from = if new_leader { 0 } else { looked.upto };
            let (entries, members) = self.entries(host, from, &seen);
            let mut world = self.shared.lock();
            let judge = &mut world.judge;
            let holds = judge.logs.saw(host, &entries);
            judge.note(holds);
            if new_leader {
                let holds = judge.complete.leads(host, seen.term, &entries);
                judge.note(holds);
                looked.led = seen.term;
            }
            let known = committed(&entries, &seen);
            let holds = judge.complete.committed(seen.term, &entries[..known]);
            judge.note(holds);
            for (index, hash) in members
                .into_iter()
                .filter(|(index, _)| entries[..known].last().is_some_and(|last| *index <= last.index))
            {
                let holds = judge.members.committed(index, hash);
                judge.note(holds);
            }
            // While the consensus core is being started, nothing is known of either.
            if seen.role != Role::Waiting && seen.committed.is_some() {
                let upto = seen.next_log_index.saturating_sub(1);
                let holds = judge.members.goes_by(host, seen.membership.map(|id| id.index), upto);
                judge.note(holds);
            }
            looked.upto = entries[..known].last().map_or(looked.upto, |entry| entry.index);
        }
        self.looked[host] = looked;
    }

    /// The entries that the log of `host` holds from `from` on, and which of them are memberships. Those that cannot be read now
    /// are left out.
    fn entries(&self, host: usize, from: u64, seen: &Inspection) -> (Vec<Entry>, Vec<(u64, u64)>) {
        let none = (Vec::new(), Vec::new());
        let Some(last) = seen.last else { return none };
        let first = seen.purged.map_or(0, |id| id.index + 1).max(from);
        if first > last.index {
            return none;
        }
        let read = self.hosts[host].with(|life| life.node.log_entries(first, last.index));
        let entry = |entry: LogEntry| Entry {
            index: entry.log_id.index,
            term: entry.log_id.leader_id.term,
            content: hash(&entry.content),
        };
        let Some(Ok(read)) = read else { return none };
        let members = read.iter().filter(|entry| entry.kind == EntryKind::Membership);
        let members = members.map(|entry| (entry.log_id.index, hash(&entry.content))).collect();
        (read.into_iter().map(entry).collect(), members)
    }

    /// A node whose log was damaged, and that does not refuse it, has at least what was committed when it was closed.
    pub(crate) fn look_at_damaged(&mut self) {
        for (host, committed) in self.agenda.damaged.clone() {
            let seen = self.hosts[host].with(|life| life.node.inspect());
            let Some(seen) = seen.filter(|seen| seen.role != Role::Waiting) else { continue };
            self.agenda.damaged.remove(&host);
            let last = seen.last.max(seen.snapshot).map_or(0, |id| id.index);
            if last < committed {
                let what = format!(
                    "node {host} takes its damaged log for whole: it ends at {last}, {committed} was committed"
                );
                self.shared.lock().judge.note(Err(Violation::new("acknowledged", what)));
            }
        }
    }

    fn note_state(&self) {
        let state = |host: &crate::host::Host| match &host.life {
            Some(life) => {
                let registers = life.registers.lock();
                format!("{}:{:x}", registers.index, registers.state())
            }
            None => "-".into(),
        };
        let states: Vec<String> = self.hosts.iter().map(state).collect();
        self.shared.lock().note("all", format_args!("applied {}", states.join(" ")));
    }
}

/// How many of `entries` are known to be committed: a follower that knows how far its leader has committed may still have other
/// entries there itself.
fn committed(entries: &[Entry], seen: &Inspection) -> usize {
    let Some(committed) = seen.committed else { return 0 };
    let upto = entries.partition_point(|entry| entry.index <= committed.index);
    let same = |entry: &Entry| entry.index < committed.index || entry.term == committed.leader_id.term;
    let reached = entries[..upto].last().is_some_and(|last| last.index == committed.index && same(last));
    if reached { upto } else { 0 }
}
