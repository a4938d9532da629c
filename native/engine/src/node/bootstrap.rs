//! How a node without a cluster gets one: it finds a cluster that exists and joins it, or founds one with a majority of
//! the configured servers, or waits and says for whom. An empty data directory never votes on a guess.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::datadir::NodeIdentity;
use crate::error::{Code, Failure};
use crate::node::core::Core;
use crate::node::forming;
use crate::node::messages::{ABOUT, About, ClusterId, Stage, decode};
use crate::node::problems::Problem;
use crate::planted::{self, Defect};
use crate::surroundings::random_u64;

/// How long a node waits for another to say who it is.
const ABOUT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// A majority waits for the missing servers for so many retries before it founds the cluster without them: who takes part
/// is a founding member, who comes later has to be let in.
const GRACE_RETRIES: u32 = 10;

/// What the other configured servers say of themselves.
struct Survey {
    found: Vec<About>,
    silent: Vec<String>,
}

/// Returns when the node has an identity with a cluster, durably. Fails only on a broken disk; everything else is waited for.
pub async fn run(core: &Arc<Core>) -> Result<(), Failure> {
    let grace = Instant::now() + Duration::from_millis(core.config.retry_ms) * GRACE_RETRIES;
    loop {
        if core.identity.read().cluster.is_some() {
            core.problems.clear(Problem::Bootstrap);
            *core.waiting_for.lock() = None;
            return Ok(());
        }
        if let Err(failure) = attempt(core, grace).await {
            match failure.code {
                Code::Io | Code::Corrupt => return Err(failure),
                _ => core.problems.set(Problem::Bootstrap, failure),
            }
        }
        if core.identity.read().cluster.is_none() {
            tokio::time::sleep(pause(core)).await;
        }
    }
}

/// Servers later in the order wait longer, so that they seldom get in each other's way.
fn pause(core: &Core) -> Duration {
    let rank = core.config.servers.keys().position(|name| *name == core.config.name).unwrap_or(0) as u64;
    Duration::from_millis(core.config.retry_ms * (4 + rank) / 4)
}

async fn attempt(core: &Arc<Core>, grace: Instant) -> Result<(), Failure> {
    if core.config.servers.len() == 1 && !core.config.join_only {
        let Some(cluster) = forming::propose(core).await? else { return Ok(()) };
        return found(core, cluster);
    }
    let survey = survey(core).await;
    if let Some(cluster) = existing(&survey)? {
        return match forming::accepted(core)? {
            Some(accepted) if accepted == cluster => found(core, cluster),
            _ => adopt(core, cluster),
        };
    }
    if core.config.join_only {
        core.wait_for(format!("Waiting for a cluster to join: none of {} belongs to one yet.", names(core)));
        return Ok(());
    }
    if let Some(other) = belongs_elsewhere(&survey, forming::accepted(core)?) {
        core.wait_for(format!("Waiting for {}, which belongs to a cluster, to be ready.", other.name));
        return Ok(());
    }
    consider_founding(core, survey, grace).await
}

async fn survey(core: &Arc<Core>) -> Survey {
    let calls = core.config.peers().map(|(name, address)| async move {
        let answer = core.peers.call(address, None, ABOUT, Bytes::new(), ABOUT_TIMEOUT).await;
        (name.clone(), answer.and_then(|answer| decode::<About>(&answer)))
    });
    let mut survey = Survey { found: Vec::new(), silent: Vec::new() };
    for (name, answer) in join_all(calls).await {
        match answer {
            Ok(about) => survey.found.push(about),
            Err(_) => survey.silent.push(name),
        }
    }
    survey
}

/// The cluster that the others belong to, if any does. Fails when they belong to different ones.
fn existing(survey: &Survey) -> Result<Option<ClusterId>, Failure> {
    let mut members = survey.found.iter().filter(|about| about.stage == Stage::Member);
    let Some(first) = members.next() else { return Ok(None) };
    if let Some(other) = members.find(|about| about.cluster != first.cluster) {
        let message = format!(
            "The servers {:?} and {:?} belong to different clusters; remove one from the list.",
            first.name, other.name
        );
        return Err(Failure::new(Code::Refused, message));
    }
    Ok(first.cluster)
}

/// A server that has a cluster, other than the one that this node `accepted`, but no core yet: it has just been started. With it
/// in the count the empty ones would found another cluster.
fn belongs_elsewhere(survey: &Survey, accepted: Option<ClusterId>) -> Option<&About> {
    survey.found.iter().find(|about| about.cluster.is_some() && about.cluster != accepted)
}

async fn consider_founding(core: &Arc<Core>, survey: Survey, grace: Instant) -> Result<(), Failure> {
    let mine: Vec<(String, String)> = core.config.servers.clone().into_iter().collect();
    let (agreeing, differing): (Vec<_>, Vec<_>) = survey.found.iter().partition(|about| about.servers == mine);
    if !differing.is_empty() {
        let who = differing.iter().map(|about| about.name.as_str()).collect::<Vec<_>>().join(", ");
        core.wait_for(format!("Waiting: {who} was configured with other servers than {}.", names(core)));
    }
    if agreeing.len() < core.config.servers.len() / 2 {
        if differing.is_empty() {
            core.wait_for(format!(
                "Waiting for a majority of {}: no answer from {}.",
                names(core),
                survey.silent.join(", ")
            ));
        }
        return Ok(());
    }
    let missing = agreeing.len() + 1 < core.config.servers.len();
    if missing && Instant::now() < grace {
        return Ok(());
    }
    match forming::propose(core).await? {
        Some(cluster) => found(core, cluster),
        None => Ok(()),
    }
}

fn names(core: &Core) -> String {
    core.config.servers.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// This node is a founding member of `cluster`: its raft id is the hash of its name.
fn found(core: &Core, cluster: ClusterId) -> Result<(), Failure> {
    tracing::info!("Founding cluster {} with {}.", short(&cluster), names(core));
    settle(core, cluster, forming::hash(&core.config.name))
}

/// This node joins `cluster` under its fresh raft id.
pub fn adopt(core: &Core, cluster: ClusterId) -> Result<(), Failure> {
    let node = core.identity.read().node;
    tracing::info!("Joining cluster {} as {node:x}.", short(&cluster));
    settle(core, cluster, node)
}

fn settle(core: &Core, cluster: ClusterId, node: u64) -> Result<(), Failure> {
    // In this order: whoever holds the data may look at the identity, and never the other way about.
    let mut data = core.data.lock();
    let mut identity = core.identity.write();
    if identity.cluster.is_some() {
        return Ok(());
    }
    let stored = NodeIdentity { cluster, node, name: core.config.name.clone(), incarnation: 1 };
    forming::expect_empty_log(&mut data)?;
    data.save_identity(&stored)?;
    identity.cluster = Some(cluster);
    identity.node = node;
    identity.incarnation = 1;
    core.pending.identify(node, 1);
    Ok(())
}

/// The beginning of a cluster id, enough for a person to tell two apart.
pub fn short(cluster: &ClusterId) -> String {
    cluster.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A fresh raft id, for a node of that name that joins.
pub fn fresh_id(name: &str) -> Result<u64, Failure> {
    if planted::is(Defect::WipedKeepsId) {
        return Ok(forming::hash(name));
    }
    Ok(random_u64()?.max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OURS: ClusterId = [1; 16];
    const OTHERS: ClusterId = [2; 16];

    fn said(stage: Stage, cluster: Option<ClusterId>) -> Survey {
        let found = vec![
            About {
                name: "b".into(),
                node: 1,
                cluster: None,
                stage: Stage::Empty,
                servers: Vec::new(),
                members: Vec::new(),
            },
            About { name: "a".into(), node: 2, cluster, stage, servers: Vec::new(), members: Vec::new() },
        ];
        Survey { found, silent: Vec::new() }
    }

    /// Right after its start, before its core runs, a node with data says that it is joining its cluster: the empty ones took
    /// it for one of theirs, and founded a second cluster.
    #[test]
    fn who_has_a_cluster_and_is_only_starting_is_waited_for_and_not_counted() {
        let starting = said(Stage::Joining, Some(OTHERS));
        assert_eq!(existing(&starting).unwrap(), None);
        assert_eq!(belongs_elsewhere(&starting, None).unwrap().name, "a");
        assert_eq!(belongs_elsewhere(&starting, Some(OURS)).unwrap().name, "a");
        assert!(belongs_elsewhere(&said(Stage::Joining, Some(OURS)), Some(OURS)).is_none(), "founded together");
        assert!(belongs_elsewhere(&said(Stage::Empty, None), None).is_none());
        assert_eq!(existing(&said(Stage::Member, Some(OTHERS))).unwrap(), Some(OTHERS));
    }
}
