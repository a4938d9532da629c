//! Making a failing plan smaller: fewer faults, fewer clients, a shorter time, as long as it still fails the same way.

use std::io;
use std::path::Path;

use crate::driver::Report;
use crate::plan::Plan;
use crate::runner::run_one;

/// A failing plan and what came of it.
pub struct Smallest {
    /// The plan.
    pub plan: Plan,
    /// Its report.
    pub report: Report,
    /// How many plans were tried.
    pub tried: u64,
}

/// Tries at most `tries` smaller plans than `plan`, which fails with `report`. Fails as the file system does.
pub fn shrink(plan: &Plan, report: Report, base: &Path, tries: u64) -> io::Result<Smallest> {
    let mut search = Search { best: plan.clone(), report, base, tried: 0, tries };
    search.drop_faults()?;
    search.simplify()?;
    search.drop_faults()?;
    Ok(Smallest { plan: search.best, report: search.report, tried: search.tried })
}

struct Search<'a> {
    best: Plan,
    report: Report,
    base: &'a Path,
    tried: u64,
    tries: u64,
}

impl Search<'_> {
    /// Whether `plan` fails by the same invariant; then it is the best so far.
    fn try_plan(&mut self, plan: Plan) -> io::Result<bool> {
        if self.tried >= self.tries || plan == self.best {
            return Ok(false);
        }
        self.tried += 1;
        let report = run_one(&plan, self.base, &format!("shrink-{}", plan.seed))?;
        let invariant = |report: &Report| report.violation.as_ref().map(|violation| violation.invariant);
        let same = report.violation.is_some() && invariant(&report) == invariant(&self.report);
        if same {
            (self.best, self.report) = (plan, report);
        }
        Ok(same)
    }

    /// Delta debugging: leaves out halves of the faults, then quarters, down to single ones.
    fn drop_faults(&mut self) -> io::Result<()> {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.faults.len() {
                let mut plan = self.best.clone();
                plan.faults.drain(at..(at + size).min(plan.faults.len()));
                if !self.try_plan(plan)? {
                    at += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn simplify(&mut self) -> io::Result<()> {
        let last = self.best.faults.last().map_or(0, |fault| fault.at);
        for change in [
            |plan: &mut Plan, last: u64| plan.duration_ms = last + 500,
            |plan: &mut Plan, last: u64| plan.duration_ms = (last + 2_000).min(plan.duration_ms),
            |plan: &mut Plan, _| plan.clients = 1,
            |plan: &mut Plan, _| plan.clients = plan.clients.div_ceil(2),
            |plan: &mut Plan, _| plan.padding = 0,
            |plan: &mut Plan, _| plan.hosts.iter_mut().for_each(|host| host.drift = 1_000),
            |plan: &mut Plan, _| plan.hosts.iter_mut().for_each(|host| host.slow = Default::default()),
            |plan: &mut Plan, _| plan.datagrams = false,
        ] {
            let mut plan = self.best.clone();
            change(&mut plan, last);
            self.try_plan(plan)?;
        }
        Ok(())
    }
}
