//! Holding the nodes' logs against each other, now and then, and a new leader's against what is committed.

use quorate_engine::node::{Inspection, LogEntry, Role};

use crate::command::hash;
use crate::driver::Run;
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
    /// Looks at every node that runs; at all of its new entries when `deep`, else only at new leaders.
    pub(crate) fn look(&mut self, deep: bool) {
        for host in 0..self.hosts.len() {
            let leads = self.agenda.leads(host);
            if (deep || leads) && self.hosts[host].paused_until <= self.now {
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
        if looked.life != life {
            looked = Looked { life, ..Looked::default() };
        }
        let new_leader = seen.role == Role::Leader && looked.led != seen.term;
        if deep || new_leader {
            let from = if new_leader { 0 } else { looked.upto };
            let entries = self.entries(host, from, &seen);
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
            looked.upto = entries[..known].last().map_or(looked.upto, |entry| entry.index);
        }
        self.looked[host] = looked;
    }

    /// The entries that the log of `host` holds from `from` on. Those that cannot be read now are left out.
    fn entries(&self, host: usize, from: u64, seen: &Inspection) -> Vec<Entry> {
        let Some(last) = seen.last else { return Vec::new() };
        let first = seen.purged.map_or(0, |id| id.index + 1).max(from);
        if first > last.index {
            return Vec::new();
        }
        let read = self.hosts[host].with(|life| life.node.log_entries(first, last.index));
        let entry = |entry: LogEntry| Entry {
            index: entry.log_id.index,
            term: entry.log_id.leader_id.term,
            content: hash(&entry.content),
        };
        match read {
            Some(Ok(entries)) => entries.into_iter().map(entry).collect(),
            _ => Vec::new(),
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
