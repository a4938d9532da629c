//! Carrying out what a plan wants to go wrong, and taking it back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorate_engine::machine::Outcome;
use quorate_linear::rng::Rng;

use crate::agenda::Act;
use crate::damage;
use crate::disk::Full;
use crate::driver::Run;
use crate::host::Life;
use crate::invariants::Violation;
use crate::network::Blocked;
use crate::plan::{Kind, Shape, Who};
use crate::world::Happening;

/// How long membership changes and the like are given, in ms.
const CHANGE_MS: u64 = 5_000;
/// Before a node that could not start is started again, in ms.
const AGAIN_MS: u64 = 400;

impl Run<'_> {
    /// Does what is due.
    pub(crate) fn carry_out(&mut self) -> std::io::Result<()> {
        while let Some(first) = self.agenda.acts.first_entry()
            && first.key().0 <= self.now
        {
            let act = first.remove();
            self.act(act)?;
        }
        while self.agenda.faults.front().is_some_and(|fault| fault.at <= self.now) {
            if let Some(fault) = self.agenda.faults.pop_front()
                && self.inflict(fault.kind)?
            {
                *self.report.faults.entry(fault.kind.name()).or_default() += 1;
            }
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> std::io::Result<()> {
        self.shared.lock().note("now", format_args!("{act:?}"));
        match act {
            Act::Start(host) => self.start(host)?,
            Act::Repair(host) => self.hosts[host].disk.set_faults(|faults| {
                faults.full = None;
                faults.short_writes = 0;
            }),
            Act::Usual(host) => self.set_slow(host, self.hosts[host].usual),
            Act::Mend(host) => self.hosts[host].break_machine(false),
            Act::Heal(part) => {
                self.agenda.parts.remove(&part);
                self.block();
            }
            Act::Calm => self.network.set_weather(self.plan.weather),
            Act::Readmit(host) => self.readmit(host),
            Act::Kill(host) => self.crash(host, false, 1)?,
            Act::Cut(host) if self.hosts[host].is_up() => self.crash(host, true, AGAIN_MS)?,
            Act::Cut(_) => {}
        }
        Ok(())
    }

    /// Starts the node of `host`, if it is down.
    pub(crate) fn start(&mut self, host: usize) -> std::io::Result<()> {
        if self.hosts[host].is_up() {
            return Ok(());
        }
        self.agenda.present.insert(host);
        self.agenda.roles.remove(&host);
        let started = self.hosts[host].start(self.now, &self.network, &self.shared);
        if !self.hosts[host].power.is_on() {
            self.hosts[host].kill(&self.network, true);
            self.cut(host)?;
            self.agenda.later(self.now + AGAIN_MS, Act::Start(host));
            return Ok(());
        }
        if let Err(failure) = started {
            self.shared.lock().note(format_args!("n{host}"), format_args!("does not start: {:?}", failure.code));
            if failure.code == quorate_engine::Code::Corrupt {
                return self.refused(host, &failure);
            }
            self.agenda.later(self.now + AGAIN_MS, Act::Start(host));
        }
        Ok(())
    }

    /// A node calls its data damaged: it may only when they are; then it begins anew.
    pub(crate) fn refused(&mut self, host: usize, failure: &quorate_engine::Failure) -> std::io::Result<()> {
        if self.agenda.damaged.remove(&host).is_none() {
            let what = format!("node {host} refuses data that were not damaged: {failure}");
            self.shared.lock().judge.note(Err(Violation::new("progress", what)));
            return Ok(());
        }
        self.empty(host, AGAIN_MS)
    }

    /// The process of `host` ends; with its `power` everything that is not synced.
    fn crash(&mut self, host: usize, power: bool, down_ms: u64) -> std::io::Result<()> {
        let Some(life) = self.hosts[host].kill(&self.network, power) else { return Ok(()) };
        self.ended(host, life, true);
        if power {
            self.cut(host)?;
        }
        self.agenda.later(self.now + down_ms, Act::Start(host));
        Ok(())
    }

    fn cut(&mut self, host: usize) -> std::io::Result<()> {
        self.shared.lock().note(format_args!("n{host}"), "loses its power");
        self.hosts[host].disk.cut(self.plan.survive)
    }

    /// The power of `host` went while it wrote.
    pub(crate) fn power_went(&mut self, host: usize) -> std::io::Result<()> {
        if self.hosts[host].is_up() {
            self.crash(host, true, AGAIN_MS)?;
        }
        self.hosts[host].power.set(true);
        Ok(())
    }

    fn ended(&mut self, host: usize, life: u64, crashed: bool) {
        self.listen();
        self.agenda.roles.remove(&host);
        let mut world = self.shared.lock();
        if crashed {
            world.judge.answered.crashed(host, life);
        } else {
            let holds = world.judge.answered.closed(host, life);
            world.judge.note(holds);
        }
        self.clients.lost(host, life, self.now);
    }

    /// Closes the node of `host` in good order.
    pub(crate) fn close(&mut self, host: usize) {
        if let Some((life, well)) = self.hosts[host].close(&self.network) {
            self.ended(host, life, !well);
            if !well {
                let what = format!("node {host} does not close");
                self.shared.lock().judge.note(Err(Violation::new("progress", what)));
            }
        }
    }

    fn empty(&mut self, host: usize, down_ms: u64) -> std::io::Result<()> {
        self.crash(host, false, down_ms)?;
        self.agenda.later(self.now + down_ms, Act::Start(host));
        self.hosts[host].wipe()?;
        self.agenda.damaged.remove(&host);
        *self.agenda.wipes.entry(host).or_default() += 1;
        self.agenda.wiped = Some((host, None));
        Ok(())
    }

    /// Whether a disk may be lost now: no other is, and nobody is out or was to be: that change may still take effect, and what is
    /// left would be no majority.
    fn may_lose(&self, host: usize) -> bool {
        self.agenda.wiped.is_none() && self.agenda.taken_out.is_empty() && self.agenda.present.contains(&host)
    }

    fn who(&self, who: Who) -> usize {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up()).collect();
        let leader = self.agenda.leader().filter(|leader| up.contains(leader));
        let pick = |all: Vec<usize>, number: u64| match all.is_empty() {
            true => (number % self.plan.founders as u64) as usize,
            false => all[(number % all.len() as u64) as usize],
        };
        match who {
            Who::Exactly(host) => host,
            Who::Leader => leader.unwrap_or_else(|| pick(up, 0)),
            Who::Follower(number) => pick(up.into_iter().filter(|host| Some(*host) != leader).collect(), number),
            Who::Any(number) => pick(up, number),
        }
    }

    /// Carries a fault out; false when it does not apply now.
    fn inflict(&mut self, kind: Kind) -> std::io::Result<bool> {
        self.shared.lock().note("fault", format_args!("{kind:?}"));
        match kind {
            Kind::Crash { who, power, down_ms } => self.crash(self.who(who), power, down_ms)?,
            Kind::CrashMany { all, power, down_ms } => self.crash_many(all, power, down_ms)?,
            Kind::Close { who, down_ms } => {
                let host = self.who(who);
                self.close(host);
                self.agenda.later(self.now + down_ms, Act::Start(host));
            }
            Kind::Pause { who, ms } => {
                let host = self.who(who);
                self.hosts[host].pause(self.now, ms);
            }
            Kind::Jump { who, by_ms } => {
                let host = self.who(who);
                self.hosts[host].jumped_ms += by_ms;
            }
            Kind::Part { shape, ms } => self.part(shape, ms),
            Kind::Depose { ms, then_ms, deposed, at_once, other } => {
                let leader = self.who(Who::Leader);
                self.part(Shape::Alone(Who::Exactly(leader)), ms);
                let host = if deposed { leader } else { self.who(other) };
                if deposed && at_once {
                    self.agenda.trap = Some((self.agenda.next - 1, leader, then_ms));
                } else {
                    self.agenda.later(self.now + ms + then_ms, Act::Kill(host));
                }
            }
            Kind::Reset { one, other } => self.network.reset(self.who(one), self.who(other)),
            Kind::Storm { weather, ms } => {
                self.network.set_weather(weather);
                self.agenda.later(self.now + ms, Act::Calm);
            }
            Kind::Transfer { .. } | Kind::Snapshot { .. } | Kind::Remove { .. } => return Ok(self.ask_for(kind)),
            Kind::Wipe { who, down_ms } => {
                let host = self.who(who);
                if !self.may_lose(host) {
                    return Ok(false);
                }
                self.empty(host, down_ms)?;
            }
            Kind::Damage { who, down_ms, place } => return self.damage(self.who(who), down_ms, place),
            Kind::Ambush { ms } => self.agenda.ambush = Some(ms),
            Kind::Grow { host } => {
                self.start(host)?;
            }
            disk => self.inflict_on_disk(disk),
        }
        Ok(true)
    }

    fn inflict_on_disk(&mut self, kind: Kind) {
        let now = self.now;
        match kind {
            Kind::CutInside { who, changes, .. } => {
                self.hosts[self.who(who)].disk.set_faults(|faults| faults.cut_after = Some(changes));
            }
            Kind::Full { who, strict, ms } => {
                let (host, full) = (self.who(who), if strict { Full::Strict } else { Full::GrowingOnly });
                self.hosts[host].disk.set_faults(|faults| faults.full = Some(full));
                self.agenda.later(now + ms, Act::Repair(host));
            }
            Kind::WriteErrors { who, count } => {
                self.hosts[self.who(who)].disk.set_faults(|faults| faults.write_errors += count);
            }
            Kind::SyncErrors { who, count, cut_after_ms } => {
                let host = self.who(who);
                self.hosts[host].disk.set_faults(|faults| faults.sync_errors += count);
                if let Some(ms) = cut_after_ms {
                    self.agenda.later(now + ms, Act::Cut(host));
                }
            }
            Kind::ShortWrites { who, ms } => {
                let host = self.who(who);
                self.hosts[host].disk.set_faults(|faults| faults.short_writes = 50);
                self.agenda.later(now + ms, Act::Repair(host));
            }
            Kind::SlowDisk { who, slow, ms } => {
                let host = self.who(who);
                self.set_slow(host, slow);
                self.agenda.later(now + ms, Act::Usual(host));
            }
            Kind::Broken { who, ms } => {
                let host = self.who(who);
                self.hosts[host].break_machine(true);
                self.agenda.later(now + ms, Act::Mend(host));
            }
            _ => {}
        }
    }

    fn set_slow(&self, host: usize, slow: crate::chance::Slow) {
        if let Some(life) = &self.hosts[host].life {
            life.delays.set(|present| *present = slow);
        }
    }

    fn crash_many(&mut self, all: bool, power: bool, down_ms: u64) -> std::io::Result<()> {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up()).collect();
        let count = if all { up.len() } else { self.plan.founders / 2 + 1 };
        let first = self.rng.below(up.len() as u64) as usize;
        for place in 0..count.min(up.len()) {
            let apart = self.rng.below(200);
            self.crash(up[(first + place) % up.len()], power, down_ms + apart)?;
        }
        Ok(())
    }

    /// Parts the network for `ms`.
    fn part(&mut self, shape: Shape, ms: u64) {
        let count = self.hosts.len();
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let side = |sides: u64, host: usize| sides >> host & 1;
        let blocked: Vec<(usize, usize)> = match shape {
            Shape::Alone(who) => {
                let one = self.who(who);
                all.filter(|(from, to)| *from == one || *to == one).collect()
            }
            Shape::Deaf(who) => all.filter(|(_, to)| *to == self.who(who)).collect(),
            Shape::Mute(who) => all.filter(|(from, _)| *from == self.who(who)).collect(),
            Shape::Halves(sides) => all.filter(|(from, to)| side(sides, *from) != side(sides, *to)).collect(),
            Shape::Bridge(who, sides) => {
                let one = self.who(who);
                let apart = |from, to| from != one && to != one && side(sides, from) != side(sides, to);
                all.filter(|(from, to)| apart(*from, *to)).collect()
            }
            Shape::Loose(seed) => {
                let mut rng = Rng::new(seed);
                all.filter(|_| rng.chance(35)).collect()
            }
        };
        self.agenda.next += 1;
        let number = self.agenda.next;
        self.agenda.parts.insert(number, blocked);
        self.block();
        self.agenda.later(self.now + ms, Act::Heal(number));
    }

    /// Blocks what the present partitions block.
    pub(crate) fn block(&mut self) {
        let parts = &self.agenda.parts;
        self.network.block(|blocked: &mut Blocked| {
            blocked.clear();
            parts.values().flatten().for_each(|(from, to)| blocked.block(*from, *to));
        });
    }

    /// `host` has won an election: if that was waited for, it is cut off before it can say so, and those who voted lose their power.
    pub(crate) fn spring(&mut self, host: usize) -> std::io::Result<()> {
        if let Some((part, deposed, then_ms)) = self.agenda.trap.filter(|(_, deposed, _)| *deposed != host) {
            self.agenda.trap = None;
            self.agenda.parts.remove(&part);
            self.block();
            self.agenda.later(self.now + then_ms, Act::Kill(deposed));
        }
        let Some(ms) = self.agenda.ambush.take() else { return Ok(()) };
        self.shared.lock().note("now", format_args!("n{host} is ambushed"));
        self.part(Shape::Alone(Who::Exactly(host)), ms);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.crash(other, true, 1 + other as u64)?;
        }
        Ok(())
    }

    fn damage(&mut self, host: usize, down_ms: u64, place: u64) -> std::io::Result<bool> {
        if !self.may_lose(host) || !self.hosts[host].is_up() {
            return Ok(false);
        }
        let committed = self.hosts[host].with(|life| life.node.inspect().committed.map_or(0, |id| id.index));
        self.close(host);
        self.agenda.later(self.now + down_ms, Act::Start(host));
        let Some(wound) = damage::wound(self.hosts[host].data_dir(), place)? else { return Ok(false) };
        self.shared.lock().note(format_args!("n{host}"), format_args!("{wound}"));
        self.agenda.damaged.insert(host, committed.unwrap_or(0));
        self.agenda.wiped = Some((host, None));
        Ok(true)
    }

    /// Asks a node for something; false when there is none to ask.
    fn ask_for(&mut self, kind: Kind) -> bool {
        let limit = Duration::from_millis(CHANGE_MS);
        match kind {
            Kind::Transfer { to } => {
                let name = self.hosts[self.who(to)].name.clone();
                self.ask(self.who(Who::Any(self.now)), "handed over", |life| life.node.transfer_leader(&name, limit))
            }
            Kind::Snapshot { who } => self.ask(self.who(who), "snapshot", |life| life.node.snapshot(limit)),
            Kind::Remove { who, ms } => {
                let host = self.who(who);
                if self.agenda.removed.is_some() || self.agenda.wiped.is_some() || self.agenda.present.len() < 3 {
                    return false;
                }
                self.agenda.removed = Some(host);
                self.agenda.taken_out.insert(host);
                self.agenda.later(self.now + ms, Act::Readmit(host));
                let (name, via) = (self.hosts[host].name.clone(), self.who(Who::Any(self.now)));
                self.ask(via, "removed", |life| life.node.remove_member(&name, limit))
            }
            _ => false,
        }
    }

    /// Has `host` let in again.
    pub(crate) fn readmit(&mut self, host: usize) {
        let (name, address) = (self.hosts[host].name.clone(), self.hosts[host].address.clone());
        let up = |one: &usize| *one != host && self.hosts[*one].is_up();
        let leader = self.agenda.leader().filter(up);
        let Some(via) = leader.or_else(|| (0..self.hosts.len()).find(up)) else { return };
        let limit = Duration::from_millis(CHANGE_MS);
        self.ask(via, "readmitted", |life| life.node.add_member(&name, &address, true, limit));
    }

    fn ask(&self, via: usize, what: &'static str, ask: impl FnOnce(&Life) -> BoxFuture<'static, Outcome>) -> bool {
        let Some(asked) = self.hosts[via].with(ask) else { return false };
        let shared = self.shared.clone();
        self.hosts[via].spawn(async move {
            let outcome = asked.await.map(|_| Bytes::new());
            shared.lock().happened.push(Happening::Ended { what: what.into(), node: via, outcome });
        });
        true
    }
}
