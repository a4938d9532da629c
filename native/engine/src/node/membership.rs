//! Changes of the membership: asked for anywhere, carried out by the leader, one at a time, through joint consensus.
//!
//! A newcomer is a learner until it has caught up, then it gets its vote. A node that lost its disk comes back under a new
//! raft id and takes the place of its former self in one change, so a vote is never cast twice under one id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, Fatal, RaftError};
use tokio::time::Instant;

use crate::consensus::types::{Member, Membership, TypeConfig};
use crate::error::{Code, Failure};
use crate::limits::MEMBERS_MAX;
use crate::node::adapter::RaftNode;
use crate::node::core::Core;
use crate::node::messages::{ABOUT, About, CHANGE, Change, INVITE, Invite, Stage, decode, encode};
use crate::node::view::Leader;

/// How long a member is given to say who it is.
const ABOUT_TIMEOUT: Duration = Duration::from_millis(500);
/// A learner is let vote when it lacks at most so many entries.
const CAUGHT_UP_ENTRIES: u64 = 1_000;
/// A learner that makes no progress for so long is given up.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(20);
/// How often the learner's progress is looked at.
const CATCH_UP_LOOK: Duration = Duration::from_millis(20);
/// How often a leader looks for a change that was left half-way.
const HALF_WAY_LOOK: Duration = Duration::from_secs(1);
/// Before a change is tried again with a new leader.
const RETRY: Duration = Duration::from_millis(50);
/// A leader that has only just joined is known by its former id for a moment, and refuses then to be taken for
/// another; what is refused for a reason is refused again. Longer than connections wait before they are introduced anew.
const INTRODUCTION: Duration = Duration::from_millis(600);

/// Has `change` carried out by whoever leads, until `deadline`. Fails with `Membership`, `Invalid`, `Unavailable`.
pub async fn change(core: &Arc<Core>, change: Change, deadline: Instant) -> Result<(), Failure> {
    let introduced = Instant::now() + INTRODUCTION;
    loop {
        let leader = core.leadership.borrow().leader.clone();
        let outcome = match leader {
            Some(Leader::Me) => change_here(core, change.clone(), deadline).await,
            Some(Leader::Other { id, address, .. }) => {
                let timeout = deadline.saturating_duration_since(Instant::now());
                core.peers.call(&address, Some(id), CHANGE, encode(&change)?, timeout).await.map(drop)
            }
            None => Err(Failure::new(Code::Unavailable, "There is no leader to carry out the membership change.")),
        };
        match outcome {
            Err(failure) if may_pass(&failure, introduced) && Instant::now() + RETRY < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

fn may_pass(failure: &Failure, introduced: Instant) -> bool {
    match failure.code {
        Code::Unavailable | Code::NotLeader => true,
        Code::Refused => Instant::now() < introduced,
        _ => false,
    }
}

/// Carries out `change` on the leader. Fails with `NotLeader` and as [`change`]. A change that was begun goes on to its
/// end, even when whoever asked for it waits no longer: half-way, the cluster needs two majorities.
pub async fn change_here(core: &Arc<Core>, change: Change, deadline: Instant) -> Result<(), Failure> {
    let raft = core.raft()?;
    let late =
        || Failure::new(Code::Timeout, "The membership change did not finish in time; it may still take effect.");
    let turn = tokio::time::timeout_at(deadline, core.changing.clone().lock_owned()).await;
    let turn = turn.map_err(|_| {
        Failure::new(Code::Unavailable, "Another membership change is under way; this one was not begun.")
    })?;
    let owner = core.clone();
    let work = tokio::spawn(async move {
        let _one_at_a_time = turn;
        carry_out(&owner, &raft, change).await
    });
    match tokio::time::timeout_at(deadline, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(ended)) => Err(Failure::internal(format!("The membership change ended early: {ended}"))),
        Err(_) => Err(late()),
    }
}

async fn carry_out(core: &Arc<Core>, raft: &RaftNode, change: Change) -> Result<(), Failure> {
    match change {
        Change::Add { name, address, voter } => {
            let address = core.config.reach(&name, &address).to_string();
            add(core, raft, Member { name, address }, voter).await
        }
        Change::Join { id, member } => join(core, raft, id, member, true).await,
        Change::Readdress { id, member } => readdress(raft, id, member).await,
        Change::Remove { name } => remove(raft, &name).await,
        Change::Transfer { name } => transfer(core, raft, &name).await,
    }
}

/// Brings changes to their end that a former leader left half-way, whenever this node leads. Runs until dropped.
pub async fn finish_changes(core: Arc<Core>, raft: RaftNode) {
    loop {
        tokio::time::sleep(HALF_WAY_LOOK).await;
        if core.leadership.borrow().leader != Some(Leader::Me) || !is_half_way(&raft) {
            continue;
        }
        let Ok(_one_at_a_time) = core.changing.clone().try_lock_owned() else { continue };
        if !is_half_way(&raft) {
            continue;
        }
        tracing::warn!("A membership change was left half-way; finishing it.");
        let nothing_new = ChangeMembers::AddVoterIds(BTreeSet::new());
        if let Err(error) = raft.change_membership(nothing_new, false).await {
            tracing::warn!("The membership change is not finished yet: {}", refused(error));
        }
    }
}

fn is_half_way(raft: &RaftNode) -> bool {
    membership(raft).get_joint_config().len() > 1
}

fn membership(raft: &RaftNode) -> Membership {
    raft.server_metrics().borrow_watched().membership_config.membership().clone()
}

fn by_name(membership: &Membership, name: &str) -> Option<(u64, Member)> {
    membership.nodes().find(|(_, member)| member.name == name).map(|(id, member)| (*id, member.clone()))
}

async fn about(core: &Core, address: &str) -> Result<About, Failure> {
    decode(&core.peers.call(address, None, ABOUT, Bytes::new(), ABOUT_TIMEOUT).await?)
}

async fn add(core: &Arc<Core>, raft: &RaftNode, member: Member, voter: bool) -> Result<(), Failure> {
    if let Some((id, known)) = by_name(&membership(raft), &member.name)
        && known.address == member.address
        && let Ok(present) = about(core, &member.address).await
        && present.node == id
    {
        return promote(raft, id, voter, None).await;
    }
    let present = about(core, &member.address).await.map_err(|failure| {
        // A refusal is an answer; asking again would not change it.
        let code = if failure.code == Code::Refused { Code::Refused } else { Code::Unavailable };
        let message = format!("The server {:?} does not answer at {}: {failure}", member.name, member.address);
        Failure::new(code, message)
    })?;
    if present.name != member.name {
        let message = format!("The server at {} is named {:?}, not {:?}.", member.address, present.name, member.name);
        return Err(Failure::new(Code::Membership, message));
    }
    let cluster = core.identity.read().cluster.ok_or_else(|| core.not_ready())?;
    let id = match present.stage {
        Stage::Empty => {
            let invite = encode(&Invite { cluster, name: member.name.clone() })?;
            let answer = core.peers.call(&member.address, None, INVITE, invite, ABOUT_TIMEOUT).await?;
            decode::<u64>(&answer)?
        }
        _ if present.cluster == Some(cluster) => present.node,
        _ => {
            let message =
                format!("The server {:?} belongs to another cluster; only an empty one can be added.", member.name);
            return Err(Failure::new(Code::Refused, message));
        }
    };
    join(core, raft, id, member, voter).await
}

async fn join(core: &Arc<Core>, raft: &RaftNode, id: u64, member: Member, voter: bool) -> Result<(), Failure> {
    let present = membership(raft);
    let former = by_name(&present, &member.name).filter(|(former, _)| *former != id);
    if let Some((former, known)) = &former
        && let Ok(alive) = about(core, core.config.reach(&known.name, &known.address)).await
        && alive.node == *former
    {
        let message = format!(
            "The name {:?} belongs to a server that is alive at {}; choose another.",
            member.name, known.address
        );
        return Err(Failure::new(Code::Membership, message));
    }
    if let Some((_, other)) =
        present.nodes().find(|(_, other)| other.address == member.address && other.name != member.name)
    {
        let message = format!("The address {} belongs to the server {:?}.", member.address, other.name);
        return Err(Failure::new(Code::Membership, message));
    }
    if present.get_node(&id).is_none() {
        if present.nodes().count() >= MEMBERS_MAX {
            return Err(Failure::new(Code::Membership, format!("A cluster has at most {MEMBERS_MAX} members.")));
        }
        tracing::info!("Letting in {} ({id:x}) at {}.", member.name, member.address);
        raft.add_learner(id, member, false).await.map_err(refused)?;
    }
    catch_up(raft, id).await?;
    promote(raft, id, voter, former.map(|(former, _)| former)).await
}

/// Gives `id` its vote (or leaves it a learner) and takes `former` out, in one change.
async fn promote(raft: &RaftNode, id: u64, voter: bool, former: Option<u64>) -> Result<(), Failure> {
    let present = membership(raft);
    let mut changes = Vec::new();
    if voter && !present.voter_ids().any(|voter| voter == id) {
        changes.push(ChangeMembers::AddVoterIds([id].into()));
    }
    match former {
        Some(former) if present.voter_ids().any(|voter| voter == former) => {
            changes.push(ChangeMembers::RemoveVoters([former].into()));
        }
        Some(former) => changes.push(ChangeMembers::RemoveNodes([former].into())),
        None => {}
    }
    if changes.is_empty() {
        return Ok(());
    }
    raft.change_membership(ChangeMembers::Batch(changes), false).await.map(drop).map_err(refused)
}

async fn catch_up(raft: &RaftNode, id: u64) -> Result<(), Failure> {
    let metrics = raft.data_metrics();
    let (mut best, mut moved) = (None, Instant::now());
    loop {
        let (last, matched) = {
            let metrics = metrics.borrow_watched();
            let replication = metrics.replication.as_ref().ok_or_else(Failure::not_leader)?;
            (
                metrics.last_log.map(|log_id| log_id.index),
                replication.get(&id).copied().flatten().map(|log_id| log_id.index),
            )
        };
        if let (Some(last), Some(matched)) = (last, matched)
            && matched + CAUGHT_UP_ENTRIES >= last
        {
            return Ok(());
        }
        if matched > best {
            (best, moved) = (matched, Instant::now());
        }
        if moved.elapsed() > CATCH_UP_PATIENCE {
            let message = format!("The new member {id:x} makes no progress catching up; it stays a learner.");
            return Err(Failure::new(Code::Membership, message));
        }
        tokio::time::sleep(CATCH_UP_LOOK).await;
    }
}

async fn readdress(raft: &RaftNode, id: u64, member: Member) -> Result<(), Failure> {
    let present = membership(raft);
    match present.get_node(&id) {
        Some(known) if *known == member => Ok(()),
        Some(known) if known.name == member.name => {
            let change = ChangeMembers::SetNodes([(id, member)].into());
            raft.change_membership(change, true).await.map(drop).map_err(refused)?;
            // openraft keeps trying the former address for as long as it leads: somebody else has to.
            match most_caught_up(raft, id) {
                Some(heir) if id != *raft.node_id() => raft.trigger().transfer_leader(heir).await.map_err(stopped),
                _ => Ok(()),
            }
        }
        _ => Err(Failure::new(Code::Membership, format!("There is no member {:?} with the id {id:x}.", member.name))),
    }
}

/// The voter that lacks the fewest entries, other than this node and `except`.
pub fn most_caught_up(raft: &RaftNode, except: u64) -> Option<u64> {
    let me = *raft.node_id();
    let voters: Vec<u64> = raft.voter_ids().filter(|voter| *voter != me && *voter != except).collect();
    let metrics = raft.data_metrics();
    let metrics = metrics.borrow_watched();
    let replication = metrics.replication.as_ref()?;
    voters.into_iter().max_by_key(|voter| replication.get(voter).copied().flatten().map(|log_id| log_id.index))
}

fn stopped(fatal: Fatal<TypeConfig>) -> Failure {
    Failure::new(Code::Unavailable, format!("The consensus core stopped: {fatal}."))
}

async fn remove(raft: &RaftNode, name: &str) -> Result<(), Failure> {
    let present = membership(raft);
    let Some((id, _)) = by_name(&present, name) else {
        return Err(Failure::new(Code::Membership, format!("There is no member {name:?}.")));
    };
    let voters: Vec<u64> = present.voter_ids().collect();
    let change = match voters.as_slice() {
        [only] if *only == id => {
            return Err(Failure::new(
                Code::Membership,
                format!("{name:?} is the only voter; a cluster cannot lose its last."),
            ));
        }
        voters if voters.contains(&id) => ChangeMembers::RemoveVoters([id].into()),
        _ => ChangeMembers::RemoveNodes([id].into()),
    };
    tracing::info!("Taking out {name} ({id:x}).");
    raft.change_membership(change, false).await.map(drop).map_err(refused)
}

async fn transfer(core: &Arc<Core>, raft: &RaftNode, name: &str) -> Result<(), Failure> {
    let present = membership(raft);
    let target = by_name(&present, name).filter(|(id, _)| present.voter_ids().any(|voter| voter == *id));
    let Some((id, _)) = target else {
        return Err(Failure::new(Code::Membership, format!("There is no voter {name:?}.")));
    };
    // openraft would give up its lease and its heartbeats for a transfer to itself, and another would be elected.
    if id == *raft.node_id() {
        return Ok(());
    }
    let mut leadership = core.leadership.subscribe();
    let term = leadership.borrow().term;
    raft.trigger().transfer_leader(id).await.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    // The heir may be out of reach and another be elected: a wait for the heir alone would never end, and no other change begin.
    let settled = leadership.wait_for(|view| view.leader_id() == Some(id) || view.leader.is_some() && view.term > term);
    let heir = settled.await.map_err(|_| Failure::closed())?.leader_id();
    if heir == Some(id) {
        return Ok(());
    }
    Err(Failure::new(Code::Unavailable, format!("The leadership went to another server than {name:?}.")))
}

/// openraft's refusal of a membership change in our terms.
fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Failure {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)) => {
            Failure::not_leader()
        }
        // A former leader's; it will be finished, then this one has its turn.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(other))) => {
            Failure::new(Code::Unavailable, format!("Another membership change is under way: {other}."))
        }
        RaftError::APIError(other) => {
            Failure::new(Code::Membership, format!("The membership change was refused: {other}."))
        }
        RaftError::Fatal(fatal) => stopped(fatal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeConfig;
    use crate::machine::Outcome;
    use crate::node::{LeaderEvent, Node, Observer};

    struct Silent;

    impl Observer for Silent {
        fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
        fn leader(&self, _event: &LeaderEvent) {}
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(20), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_change_that_was_left_half_way_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let servers = ["a", "b", "c"].map(|name| (name.to_string(), free()));
        let start = |name: &str| {
            let config = NodeConfig::new(name, servers.clone().into(), root.path().join(name));
            Node::start(config, Arc::new(Silent)).unwrap()
        };
        let nodes = ["a", "b", "c"].map(start);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut begun: Option<(RaftNode, Instant)> = None;
        eventually("the last step", || {
            let Some((raft, at)) = &begun else {
                begun = begin(&nodes, &runtime).map(|raft| (raft, Instant::now()));
                return false;
            };
            let done = !is_half_way(raft) && membership(raft).voter_ids().count() == 1;
            // The leader of that moment may have refused it, or lost its office.
            if !done && !is_half_way(raft) && at.elapsed() > Duration::from_secs(3) {
                begun = None;
            }
            done
        });
    }

    /// Takes the others' votes away, and goes away after the first of the two steps: the second is never asked for. `None` when
    /// nobody is ready for it: before a leader has committed something in its term, it changes nothing.
    fn begin(nodes: &[Node], runtime: &tokio::runtime::Runtime) -> Option<RaftNode> {
        let leads = |node: &&Node| node.core().leadership.borrow().leader == Some(Leader::Me);
        let raft = nodes.iter().find(leads)?.core().raft().ok()?;
        let metrics = raft.server_metrics().borrow_watched().clone();
        if metrics.membership_config.log_id().is_none()
            || metrics.membership_config != metrics.committed_membership_config
        {
            return None;
        }
        let others = nodes.iter().map(|node| node.core().identity.read().node).filter(|id| id != raft.node_id());
        runtime.block_on(async {
            let mut change = Box::pin(raft.change_membership(ChangeMembers::RemoveVoters(others.collect()), false));
            assert!(futures_util::poll!(&mut change).is_pending());
        });
        Some(raft)
    }
}
