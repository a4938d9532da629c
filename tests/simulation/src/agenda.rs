//! What is still to come in a run, and what is wrong at present.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_engine::node::Role;

use crate::plan::{Fault, Plan};

/// What is to be done later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Start(usize),
    Repair(usize),
    Usual(usize),
    Mend(usize),
    Heal(u64),
    Calm,
    Readmit(usize),
    Kill(usize),
    Cut(usize),
}

/// What is still to come, and what is wrong at present.
pub struct Agenda {
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) acts: BTreeMap<(u64, u64), Act>,
    pub(crate) next: u64,
    pub(crate) parts: BTreeMap<u64, Vec<(usize, usize)>>,
    /// Newest role, with its term, of each host's present life.
    pub(crate) roles: BTreeMap<usize, (Role, u64)>,
    /// How often each host's disk was emptied.
    pub(crate) wipes: BTreeMap<usize, u64>,
    /// The host that lost its disk and is not back as a voter yet; since when (in the order of events) it was seen voting.
    pub(crate) wiped: Option<(usize, Option<u64>)>,
    /// The host that was taken out.
    pub(crate) removed: Option<usize>,
    /// Hosts that were to be taken out at any time: a change that was given up may still take effect.
    pub(crate) taken_out: BTreeSet<usize>,
    /// Hosts whose log was damaged on purpose, and how far it was committed there: they may refuse it.
    pub(crate) damaged: BTreeMap<usize, u64>,
    /// Who wins the next election is cut off for so long, and the power of the others goes.
    pub(crate) ambush: Option<u64>,
    /// Once another wins an election, this partition ends, and so long after it this host is killed.
    pub(crate) trap: Option<(u64, usize, u64)>,
    /// Hosts that were started at least once.
    pub(crate) present: BTreeSet<usize>,
}

impl Agenda {
    /// The agenda of `plan`.
    pub fn new(plan: &Plan) -> Agenda {
        let mut agenda = Agenda {
            faults: plan.faults.iter().copied().collect(),
            acts: BTreeMap::new(),
            next: 0,
            parts: BTreeMap::new(),
            roles: BTreeMap::new(),
            wipes: BTreeMap::new(),
            wiped: None,
            removed: None,
            taken_out: BTreeSet::new(),
            damaged: BTreeMap::new(),
            ambush: None,
            trap: None,
            present: BTreeSet::new(),
        };
        (0..plan.founders).for_each(|host| agenda.later(plan.hosts[host].start_ms, Act::Start(host)));
        agenda
    }

    pub(crate) fn later(&mut self, at: u64, act: Act) {
        self.next += 1;
        self.acts.insert((at, self.next), act);
    }

    /// A host has a new role.
    pub fn role(&mut self, node: usize, role: Role, term: u64, stamp: u64) {
        self.roles.insert(node, (role, term));
        if let Some((wiped, votes)) = &mut self.wiped
            && *wiped == node
        {
            let voter = matches!(role, Role::Leader | Role::Follower | Role::Candidate);
            *votes = voter.then(|| votes.unwrap_or(stamp));
        }
    }

    /// A host whose former self counts no more acknowledged what it was asked at `call`. If it lost its disk and had a vote again
    /// before, another disk may be lost.
    pub fn acknowledged(&mut self, node: usize, call: Option<u64>) {
        if let Some((wiped, Some(votes))) = self.wiped
            && wiped == node
            && call.is_some_and(|call| call > votes)
        {
            self.wiped = None;
        }
    }

    /// Whether a host believes that it leads.
    pub fn leads(&self, node: usize) -> bool {
        self.roles.get(&node).is_some_and(|(role, _)| *role == Role::Leader)
    }

    /// Something that was asked for ended.
    pub fn ended(&mut self, what: &str, well: bool) {
        if what == "readmitted" && well {
            self.removed = None;
        }
    }

    /// Stands for a host and its disk: with an empty disk it is another.
    pub fn identity(&self, node: usize) -> u64 {
        node as u64 + 1_000 * self.wipes.get(&node).copied().unwrap_or(0)
    }

    /// Nothing more goes wrong.
    pub fn stop(&mut self) {
        self.faults.clear();
        self.ambush = None;
        self.trap = None;
        self.acts.clear();
        self.parts.clear();
    }

    /// The host that leads, by the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leading = self.roles.iter().filter(|(_, (role, _))| *role == Role::Leader);
        leading.max_by_key(|(_, (_, term))| *term).map(|(node, _)| *node)
    }
}
