//! How a connection to another node is made.

use std::sync::Arc;

use tokio::time::{Duration, Instant, timeout_at};

use crate::error::{Code, Failure};

use super::frame::{FrameReader, FrameSink, failure_in};
use super::handshake::{Host, Identity, Purpose, introduce};
use super::wire::Wire;

/// Makes connections and introduces this node over them.
pub(super) struct Dialer {
    wire: Arc<dyn Wire>,
    identity: Box<dyn Fn() -> Identity + Send + Sync>,
}

impl Dialer {
    pub(super) fn new(wire: Arc<dyn Wire>, identity: Box<dyn Fn() -> Identity + Send + Sync>) -> Dialer {
        Dialer { wire, identity }
    }

    pub(super) fn identity(&self) -> Identity {
        (self.identity)()
    }

    /// Connects to `address` and introduces `mine`, all within the time given. Fails with `Unavailable`, `Timeout` or
    /// what the handshake fails with.
    pub(super) async fn connect(
        &self,
        address: &str,
        mine: &Identity,
        to: Option<u64>,
        purpose: Purpose,
        within: Duration,
    ) -> Result<(FrameReader, FrameSink, Host), Failure> {
        let deadline = Instant::now() + within;
        let connection = match timeout_at(deadline, self.wire.connect(address)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if let Some(refusal) = failure_in(&error) {
                    return Err(refusal.clone());
                }
                return Err(Failure::new(Code::Unavailable, format!("Cannot connect to {address}: {error}.")));
            }
            Err(_) => return Err(no_answer(address, within)),
        };
        introduce(connection, mine, to, purpose, deadline.saturating_duration_since(Instant::now())).await
    }
}

/// `address` was silent for as long as it was given.
pub(super) fn no_answer(address: &str, within: Duration) -> Failure {
    Failure::new(Code::Timeout, format!("{address} did not answer within {} ms.", within.as_millis()))
}
