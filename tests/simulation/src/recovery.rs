//! After the faults: everything works again, and every node must come back and acknowledge a write within a bound.

use quorate_engine::{Code, Failure};

use crate::driver::Run;
use crate::invariants::{Holds, Violation};

/// How long the nodes are given, in ms, and so many election timeouts more.
const BOUND_MS: u64 = 30_000;
const BOUND_ELECTIONS: u64 = 20;
/// Nodes that acknowledge nothing for so long are started again: a disk that failed once is not trusted again, in ms.
const HELP_MS: u64 = 8_000;
/// How often a host that was taken out is let in again, in ms.
const READMIT_MS: u64 = 2_000;

impl Run<'_> {
    /// Ends all faults and waits until every node made progress.
    pub(crate) fn recover(&mut self) -> std::io::Result<()> {
        self.mend()?;
        let begun = self.now;
        let until = begun + BOUND_MS + BOUND_ELECTIONS * self.plan.election_ms;
        let hosts: Vec<usize> = self.agenda.present.iter().copied().collect();
        self.progress.expect(hosts.iter().copied(), until);
        let (mut help_at, mut readmit_at) = (begun + HELP_MS, begun);
        while self.holds() && !self.has_recovered(&hosts) {
            self.tick(false)?;
            self.probe(&hosts);
            if self.now >= help_at {
                help_at = self.now + HELP_MS;
                self.help(&hosts)?;
            }
            if self.now >= readmit_at {
                readmit_at = self.now + READMIT_MS;
                self.readmit_missing();
            }
            let holds = self.progress.judge(self.now).and_then(|()| self.judge_lag(&hosts, until));
            self.shared.lock().judge.note(holds);
        }
        self.read_everything(&hosts)?;
        self.judge_end(&hosts);
        Ok(())
    }

    /// One that has acknowledged may still be taken out: a removal that was given up was on its way.
    fn readmit_missing(&mut self) {
        let out = self.agenda.taken_out.iter().copied();
        let out = out.filter(|host| self.progress.waits_for(*host) || self.lags(*host));
        out.collect::<Vec<_>>().into_iter().for_each(|host| self.readmit(host));
    }

    fn mend(&mut self) -> std::io::Result<()> {
        self.shared.lock().note("all", "faults stop");
        self.agenda.stop();
        self.block();
        self.network.set_weather(self.plan.weather);
        for host in 0..self.hosts.len() {
            let usual = self.hosts[host].usual;
            self.hosts[host].paused_until = 0;
            self.hosts[host].break_machine(false);
            self.hosts[host].calm();
            self.hosts[host].disk.set_faults(|faults| *faults = Default::default());
            if let Some(life) = &self.hosts[host].life {
                life.delays.set(|slow| *slow = usual);
            }
        }
        for host in self.agenda.present.clone() {
            self.start(host)?;
        }
        Ok(())
    }

    fn probe(&mut self, hosts: &[usize]) {
        for host in hosts {
            if self.progress.waits_for(*host) && !self.clients.is_probing(*host) {
                self.clients.probe(self.now, &self.hosts[*host], &self.shared);
            }
        }
    }

    /// All have acknowledged, and all have applied everything that was.
    fn has_recovered(&self, hosts: &[usize]) -> bool {
        self.progress.is_complete() && !hosts.iter().any(|host| self.lags(*host))
    }

    fn lags(&self, host: usize) -> bool {
        let applied = self.hosts[host].life.as_ref().map_or(0, |life| life.registers.lock().index);
        applied < self.shared.lock().judge.same.last()
    }

    /// What was applied anywhere is applied by all until `until`.
    fn judge_lag(&self, hosts: &[usize], until: u64) -> Holds {
        match hosts.iter().find(|host| self.now > until && self.lags(**host)) {
            Some(host) => Err(Violation::new("progress", format!("node {host} does not catch up after the faults"))),
            None => Ok(()),
        }
    }

    fn help(&mut self, hosts: &[usize]) -> std::io::Result<()> {
        for host in hosts.iter().copied().filter(|host| self.progress.waits_for(*host)).collect::<Vec<_>>() {
            if self.begin_anew(host)? {
                continue;
            }
            self.report.helped += 1;
            let problem = self.problem(host).unwrap_or_default();
            self.shared.lock().note(format_args!("n{host}"), format_args!("is started again: {problem}"));
            self.close(host);
            self.start(host)?;
        }
        Ok(())
    }

    /// What `host` says is wrong with it.
    fn problem(&self, host: usize) -> Option<String> {
        let status = self.hosts[host].with(|life| life.node.status())?;
        let problem = status.split(":problem ").nth(1)?.split(" :last-problems").next()?;
        Some(problem.to_string())
    }

    /// A node that runs, but refuses its log, is emptied; true when it was. Its data must have been damaged.
    pub(crate) fn begin_anew(&mut self, host: usize) -> std::io::Result<bool> {
        let refuses = |problem: &String| {
            ["is damaged", "start the node empty", "Empty the"].iter().any(|said| problem.contains(said))
        };
        let Some(problem) = self.problem(host).filter(refuses) else { return Ok(false) };
        self.shared.lock().note(format_args!("n{host}"), format_args!("refuses: {problem}"));
        self.close(host);
        self.refused(host, &Failure::new(Code::Corrupt, problem))?;
        Ok(true)
    }

    fn read_everything(&mut self, hosts: &[usize]) -> std::io::Result<()> {
        if !self.holds() {
            return Ok(());
        }
        hosts.iter().for_each(|host| self.clients.read_all(&self.hosts[*host], &self.shared));
        let (until, mut readmit_at) = (self.now + BOUND_MS, self.now + READMIT_MS);
        while (self.clients.is_reading() || !self.has_recovered(hosts)) && self.now < until && self.holds() {
            self.tick(false)?;
            if self.now >= readmit_at {
                readmit_at = self.now + READMIT_MS;
                self.readmit_missing();
            }
        }
        Ok(())
    }

    fn judge_end(&mut self, hosts: &[usize]) {
        let applied = |host: &usize| self.hosts[*host].life.as_ref().map_or(0, |life| life.registers.lock().index);
        let ends: Vec<(usize, u64)> = hosts.iter().map(|host| (*host, applied(host))).collect();
        let mut world = self.shared.lock();
        let judge = &mut world.judge;
        let holds = judge.acknowledged.at_end(&ends, &judge.once);
        judge.note(holds);
        let holds = judge.answered.at_end(self.now);
        judge.note(holds);
        let last = judge.same.last();
        if let Some((host, index)) = ends.iter().find(|(_, index)| *index < last) {
            let what = format!("node {host} ends at index {index}, others at {last}");
            judge.note(Err(Violation::new("progress", what)));
        }
    }

    /// Closes all nodes in good order: nothing may stay open.
    pub(crate) fn close_all(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_up() {
                self.close(host);
            }
        }
    }
}
