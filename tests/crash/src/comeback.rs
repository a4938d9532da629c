//! What is asked of a node whose disk fails for a while: it says so, and when the disk is well it is whole again by itself.

use std::time::{Duration, Instant};

use quorate_engine::Failure;

use crate::cluster::{Cluster, eventually, wait_for_writes};
use crate::ledger::{Ledger, PREFIX};
use crate::process::{self, Answer, Process, problem};

/// How long the node may take until it says what is wrong, under load.
const NOTICE: Duration = Duration::from_secs(20);
/// How long the node may take to be whole again.
pub const BACK: Duration = Duration::from_secs(60);

/// Waits until the status of `process` has a problem that contains `what`, and gives it. Fails when that takes too long.
pub fn says(process: &Process, what: &str) -> Result<String, Failure> {
    let (mut last, mut found) = (Answer::Unknown, None);
    eventually(NOTICE, || {
        last = process.call("status", process::PATIENCE);
        if let Answer::Ok(status) = &last {
            found = problem(status).filter(|said| said.contains(what)).map(str::to_string);
        }
        found.is_some()
    });
    found.ok_or_else(|| Failure::internal(format!("In {NOTICE:?} the node does not say {what:?}: {last:?}")))
}

/// The node at `at` must acknowledge a write and say that nothing is wrong; then every node must have what was acknowledged. Gives how
/// long that took, and what is wrong with the entries. Fails when it takes too long.
pub fn whole_again(cluster: &Cluster, ledger: &Ledger, at: usize) -> Result<(Duration, Vec<String>), Failure> {
    let begun = Instant::now();
    let process = cluster.process(at)?;
    wait_for_writes(&process, BACK)?;
    let mut status = Answer::Unknown;
    let well = eventually(BACK, || {
        status = process.call("status", process::PATIENCE);
        matches!(&status, Answer::Ok(status) if problem(status).is_none())
    });
    if !well {
        return Err(Failure::internal(format!("The disk is well for {BACK:?}, and the node says: {status:?}")));
    }
    let (took, mut wrong) = (begun.elapsed(), Vec::new());
    for at in cluster.running() {
        let entries = cluster.entries(at, PREFIX, BACK)?;
        let name = &cluster.members[at].name;
        wrong.extend(ledger.check(&entries).1.into_iter().map(|sentence| format!("{name}: {sentence}")));
    }
    Ok((took, wrong))
}
