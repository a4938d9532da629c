//! One run: virtual time goes on in small steps, and in each the network delivers, what the plan wants happens, and every
//! node does what it has to do.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_engine::node::{LeaderEvent, Role};
use quorate_linear::rng::Rng;

use crate::agenda::Agenda;
use crate::clients::{Clients, Counts};
use crate::disk::Harm;
use crate::host::Host;
use crate::invariants::Violation;
use crate::invariants::answered_once::Ticket;
use crate::invariants::progress::Progress;
use crate::looking::Looked;
use crate::network::{Network, Traffic};
use crate::panics;
use crate::plan::Plan;
use crate::world::{Happening, Shared};

/// How often the logs of all nodes are looked at, in ms.
const LOOK_MS: u64 = 250;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What does not hold.
    pub violation: Option<Violation>,
    /// What clients did.
    pub counts: Counts,
    /// Faults that were carried out, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// What disks did wrong, all hosts together.
    pub harm: Harm,
    /// What the network did.
    pub traffic: Traffic,
    /// Terms that had a leader.
    pub elections: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// Commands applied, all nodes together.
    pub applied: u64,
    /// Panics, whoever caught them.
    pub panics: u64,
    /// Nodes that had to be started again after the faults, because they did not come back by themselves.
    pub helped: u64,
    /// Histories that were too hard to decide.
    pub too_hard: u64,
    /// Virtual time in ms.
    pub virtual_ms: u64,
    /// The event log.
    pub log: String,
}

/// See the module.
pub struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) shared: Shared,
    pub(crate) clients: Clients,
    pub(crate) agenda: Agenda,
    pub(crate) progress: Progress,
    pub(crate) rng: Rng,
    pub(crate) report: Report,
    pub(crate) looked: Vec<Looked>,
    /// Who won an election in this step.
    won: Option<usize>,
    look_at: u64,
}

/// Runs `plan`, with files below `root`, which is empty. Fails as the file system does.
pub fn run(plan: &Plan, root: &Path) -> std::io::Result<Report> {
    panics::watch();
    let outcome = Run::new(plan, root).and_then(Run::go);
    panics::stop();
    outcome
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, root: &Path) -> std::io::Result<Run<'a>> {
        let indexes = 0..plan.hosts.len();
        let names = indexes.clone().flat_map(|index| [(plan.name(index), index), (plan.address(index), index)]);
        let rng = Rng::new(plan.seed).split(13);
        let network = Network::new(rng.split(1), names.collect());
        network.set_weather(plan.weather);
        let hosts = indexes.map(|index| Host::new(plan, index, root)).collect::<Result<_, _>>()?;
        Ok(Run {
            plan,
            now: 0,
            hosts,
            network,
            shared: Shared::default(),
            clients: Clients::new(plan),
            agenda: Agenda::new(plan),
            progress: Progress::default(),
            rng: rng.split(2),
            report: Report::default(),
            looked: vec![Looked::default(); plan.hosts.len()],
            won: None,
            look_at: 0,
        })
    }

    fn go(mut self) -> std::io::Result<Report> {
        while self.now < self.plan.duration_ms && self.holds() {
            self.tick(true)?;
        }
        if self.holds() {
            self.recover()?;
        }
        self.finish()
    }

    /// Whether no violation was found so far.
    pub(crate) fn holds(&self) -> bool {
        self.shared.lock().judge.verdict().is_none()
    }

    /// One step of time; `busy`: clients go on.
    pub(crate) fn tick(&mut self, busy: bool) -> std::io::Result<()> {
        let ms = 1 + self.rng.below(self.plan.tick_ms);
        self.now += ms;
        self.shared.lock().now = self.now;
        self.network.deliver(self.now);
        self.carry_out()?;
        self.datagrams();
        let first = self.rng.below(self.hosts.len() as u64) as usize;
        for place in 0..self.hosts.len() {
            let index = (first + place) % self.hosts.len();
            if busy {
                self.clients.act(self.now, &self.hosts[index], &self.shared);
            }
            self.hosts[index].step(self.now, ms);
            if !self.hosts[index].power.is_on() {
                self.power_went(index)?;
            }
        }
        self.listen();
        if let Some(host) = self.won.take() {
            self.spring(host)?;
        }
        self.panics();
        let deep = self.now >= self.look_at;
        if deep {
            self.look_at = self.now + LOOK_MS;
        }
        self.look(deep);
        self.look_at_damaged();
        if deep {
            for host in self.agenda.damaged.keys().copied().collect::<Vec<_>>() {
                self.begin_anew(host)?;
            }
        }
        Ok(())
    }

    fn datagrams(&mut self) {
        for datagram in self.network.arrivals() {
            // What nobody takes is lost, as datagrams are.
            let host = &self.hosts[datagram.to];
            host.with(|life| life.node.deliver(datagram.bytes).is_ok());
        }
    }

    /// Hears what happened.
    pub(crate) fn listen(&mut self) {
        let happened = std::mem::take(&mut self.shared.lock().happened);
        for one in happened {
            match one {
                Happening::Answered { node, life, sequence, outcome, stamp } => {
                    let ticket = Ticket { node, life, sequence };
                    if let Err(failure) = &outcome {
                        self.progress.heard(node, &failure.message);
                    }
                    let done = outcome.is_ok();
                    let call = self.clients.answered(ticket, outcome, stamp, &mut self.shared.lock());
                    if done {
                        self.progress.acknowledged(node);
                        if self.has_replaced_itself(node) {
                            self.agenda.acknowledged(node, call);
                        }
                    }
                }
                Happening::Read { number, outcome, stamp } => {
                    self.clients.read_done(number, outcome, stamp, &mut self.shared.lock());
                }
                Happening::Leader { node, event } => self.leader(node, &event),
                Happening::Ended { what, node, outcome } => {
                    let said = outcome.as_ref().map_or_else(|failure| failure.message.clone(), |_| "done".into());
                    self.shared.lock().note(format_args!("n{node}"), format_args!("{what}: {said}"));
                    self.agenda.ended(&what, outcome.is_ok());
                }
            }
        }
    }

    /// Whether `node` knows as committed a membership with its former selves out of it: half-way they have votes, too.
    fn has_replaced_itself(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        let Some(seen) = host.with(|life| life.node.inspect()) else { return false };
        let votes = seen.members.iter().filter(|(_, member, votes)| *votes && member.name == host.name).count();
        votes == 1 && seen.membership.is_some() && seen.membership <= seen.committed
    }

    fn leader(&mut self, node: usize, event: &LeaderEvent) {
        let mut world = self.shared.lock();
        let role = event.new_role.name();
        world.note(
            format_args!("n{node}"),
            format_args!("is {role} in term {}, leader {:?}", event.term, event.new_leader),
        );
        if event.new_role == Role::Leader {
            let id = self.agenda.identity(node);
            let holds = world.judge.leaders.leads(event.term, id);
            world.judge.note(holds);
            self.won = Some(node);
        }
        drop(world);
        let stamp = self.shared.lock().stamp();
        self.agenda.role(node, event.new_role, event.term, stamp);
    }

    fn panics(&mut self) {
        for panic in panics::take() {
            self.report.panics += 1;
            let mut world = self.shared.lock();
            world.note("a task", format_args!("panicked: {}", panic.replace('\n', " ")));
            if panic.contains("openraft") {
                world.judge.note(Err(Violation::new("progress", format!("the consensus core panicked: {panic}"))));
            }
        }
    }

    fn finish(mut self) -> std::io::Result<Report> {
        if self.holds() {
            self.close_all();
        }
        let mut report = std::mem::take(&mut self.report);
        {
            let mut world = self.shared.lock();
            report.too_hard = self.clients.judge(&mut world);
            report.violation = world.judge.verdict().cloned();
            report.elections = world.judge.leaders.count();
            report.installed = world.installed;
            report.applied = world.applied;
            if let Some(violation) = &report.violation {
                world.note("VIOLATION", violation);
            }
            report.log = world.take_log();
        }
        report.counts = self.clients.counts;
        report.traffic = self.network.traffic();
        report.virtual_ms = self.now;
        report.harm = self.hosts.iter().fold(Harm::default(), |sum, host| sum.plus(&host.disk.harm()));
        for host in &mut self.hosts {
            host.kill(&self.network, false);
        }
        Ok(report)
    }
}
