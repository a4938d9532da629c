//! Questions between the hosts of a cluster: one node's host asks, another's answers. The engine carries both and
//! understands neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::codec::Reader;
use crate::error::{Code, Failure};
use crate::machine::Outcome;
use crate::node::asks;
use crate::node::core::Core;
use crate::node::messages::ASK;

/// Longest wait that a question of another node may ask for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Asks the host of the member `server`, until `deadline`. Fails with `Unavailable`, `Timeout`, `StateMachine`, `TooLarge`.
pub async fn ask(core: &Arc<Core>, server: &str, question: Bytes, deadline: Instant) -> Outcome {
    let within = deadline.saturating_duration_since(Instant::now());
    if server == core.config.name {
        return serve(core, server, question, within).await;
    }
    let (id, address) = member(core, server)?;
    let mut body = BytesMut::with_capacity(8 + question.len());
    body.put_u64_le(within.as_millis() as u64);
    body.put_slice(&question);
    core.askers.call(&address, Some(id), ASK, body.freeze(), within).await.map_err(|failure| match failure.code {
        Code::Timeout | Code::StateMachine | Code::TooLarge => failure,
        _ => Failure::new(Code::Unavailable, failure.message),
    })
}

/// Raft id and address of the member of that name.
fn member(core: &Core, server: &str) -> Result<(u64, String), Failure> {
    let raft = core.raft()?;
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let found = metrics.membership_config.nodes().find(|(_, member)| member.name == server);
    found
        .map(|(id, member)| (*id, core.config.reach(&member.name, &member.address).to_string()))
        .ok_or_else(|| Failure::new(Code::Unavailable, format!("There is no member {server:?} to ask.")))
}

/// Another node's question, as it came over the wire.
pub async fn receive(core: &Arc<Core>, from: &str, body: Bytes) -> Outcome {
    let mut reader = Reader::new(body);
    let within = Duration::from_millis(reader.u64()?).min(WAIT_MAX);
    let question = reader.take(reader.remaining())?;
    asks::check(&question)?;
    serve(core, from, question, within).await
}

/// Puts a question of `from` to this node's host and waits for the answer.
async fn serve(core: &Arc<Core>, from: &str, question: Bytes, within: Duration) -> Outcome {
    let (open, answer) = core.asks.open()?;
    core.observer.asked(open.ticket, from, question)?;
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::closed()),
        Err(_) => {
            let message =
                format!("The host of {:?} did not answer within {} ms.", core.config.name, within.as_millis());
            Err(Failure::new(Code::Timeout, message))
        }
    }
}
