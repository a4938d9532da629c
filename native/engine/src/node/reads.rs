//! Barriers and reads. A linearizable read is a ReadIndex (Raft dissertation §6.4): the leader confirms with a quorum
//! that it still leads, and this node waits until it has applied what was committed then. Reads that arrive while a
//! confirmation is under way share the next one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use openraft::ReadPolicy;
use tokio::time::Instant;

use crate::error::{Code, Failure};
use crate::kv::KvReader;
use crate::node::core::Core;
use crate::node::messages::READ_INDEX;
use crate::node::read_queue::{Then, Waiting};
use crate::node::view::Leader;
use crate::planted::{self, Defect};
use crate::session::Consistency;
use crate::spin;
use crate::surroundings::Stage;
use crate::worker::Worker;

/// Before a barrier that failed is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Puts an open request in line; a local one is done at once.
pub fn submit(core: &Arc<Core>, ticket: u64, consistency: Consistency, then: Then) {
    let one = Waiting { ticket, consistency, then };
    if consistency == Consistency::Local {
        return proceed(core, one);
    }
    core.reads.push(one);
}

/// Starts the worker that reads the key-value store, so that no disk access holds up the consensus core.
pub fn spawn_reader(core: &Arc<Core>, reader: KvReader) -> Result<Worker, Failure> {
    let mut receiver = core.reads.begin_reading();
    let (owner, pace) = (core.clone(), core.applier.pace.clone());
    Worker::start(&format!("quorate-read-{}", core.config.name), core.config.spin(), async move {
        while let Some((ticket, operation)) = receiver.recv().await {
            // Whoever was answered meanwhile (too late, closed) costs no disk access.
            if owner.requests.deadline(ticket).is_none() {
                continue;
            }
            pace.pass(Stage::Read).await;
            owner.answer(ticket, reader.read(&operation).map(Bytes::from));
        }
    })
}

/// Serves the queue until the node closes.
pub async fn run(core: Arc<Core>) {
    let mut held: Vec<Waiting> = Vec::new();
    loop {
        if held.is_empty() {
            core.reads.pushed().await;
        }
        held.extend(core.reads.take());
        held.retain(|one| core.requests.deadline(one.ticket).is_some());
        let (lease, strict): (Vec<_>, Vec<_>) = held.drain(..).partition(|one| one.consistency == Consistency::Lease);
        held.extend(serve(&core, lease, ReadPolicy::LeaseRead).await);
        held.extend(serve(&core, strict, ReadPolicy::ReadIndex).await);
        if !held.is_empty() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Passes one barrier for all of `waiting`; gives back those that have to try again.
async fn serve(core: &Arc<Core>, waiting: Vec<Waiting>, policy: ReadPolicy) -> Vec<Waiting> {
    let Some(deadline) = waiting.iter().filter_map(|one| core.requests.deadline(one.ticket)).max() else {
        return Vec::new();
    };
    let patience = Duration::from_millis(core.config.election_timeout_ms * 2);
    let limit = deadline.min(Instant::now() + patience);
    spin::expect();
    match tokio::time::timeout_at(limit, barrier(core, policy)).await {
        Ok(Ok(())) => {
            waiting.into_iter().for_each(|one| proceed(core, one));
            Vec::new()
        }
        Ok(Err(_)) | Err(_) => waiting,
    }
}

/// Waits until this node has applied everything that was committed when it was called.
pub async fn barrier(core: &Arc<Core>, policy: ReadPolicy) -> Result<(), Failure> {
    let log_index = read_index(core, policy).await?;
    let mut progress = core.applier.progress.subscribe();
    let index = {
        let reached = progress.wait_for(|progress| progress.next_log_index > log_index).await;
        reached.map_err(|_| Failure::closed())?.index
    };
    if core.host.is_some() {
        let mut applied = core.host_applied.subscribe();
        drop(applied.wait_for(|applied| *applied >= index).await.map_err(|_| Failure::closed())?);
    }
    Ok(())
}

/// The log index that a read must have applied, confirmed by the leader under `policy`.
pub async fn read_index(core: &Arc<Core>, policy: ReadPolicy) -> Result<u64, Failure> {
    let leader = core.leadership.borrow().leader.clone();
    match leader {
        Some(Leader::Me) => confirm(core, policy).await,
        Some(Leader::Other { id, address, .. }) => {
            let body = Bytes::copy_from_slice(&[u8::from(policy == ReadPolicy::LeaseRead)]);
            let timeout = Duration::from_millis(core.config.election_timeout_ms * 2);
            let mut answer = core.peers.call(&address, Some(id), READ_INDEX, body, timeout).await?;
            if answer.len() != 8 {
                return Err(Failure::new(Code::Corrupt, "A read index must have eight bytes."));
            }
            Ok(answer.get_u64_le())
        }
        None => Err(Failure::new(Code::Unavailable, "There is no leader.")),
    }
}

/// On the leader: confirms its leadership and gives the log index to wait for.
pub async fn confirm(core: &Arc<Core>, policy: ReadPolicy) -> Result<u64, Failure> {
    let raft = core.raft()?;
    let lease = planted::is(Defect::LeaseAfterPause) && policy == ReadPolicy::LeaseRead;
    if lease || planted::is(Defect::StaleRead) {
        return Ok(core.applier.progress.borrow().next_log_index.saturating_sub(1));
    }
    let linearizer = raft.get_read_linearizer(policy).await;
    let linearizer = linearizer
        .map_err(|error| Failure::new(Code::Unavailable, format!("The leader could not confirm itself: {error}")))?;
    Ok(linearizer.read_log_id().index())
}

fn proceed(core: &Arc<Core>, one: Waiting) {
    match one.then {
        Then::Index => {
            let index = match &core.host {
                Some(_) => *core.host_applied.borrow(),
                None => core.applier.progress.borrow().index,
            };
            core.answer(one.ticket, Ok(Bytes::copy_from_slice(&index.to_le_bytes())));
        }
        Then::Read(operation) => {
            if let Err(failure) = core.reads.hand_over(one.ticket, operation) {
                core.answer(one.ticket, Err(failure));
            }
        }
    }
}
