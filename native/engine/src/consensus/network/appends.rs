//! The append stream to one node: opened at first use, kept, and opened anew when it broke.

use tokio::time::Duration;

use crate::error::Failure;
use crate::transport::Peers;

use super::hold::Hold;
use super::stream::{Opening, Stream};

/// First and longest pause after a node could not be reached.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// What is kept from one `stream_append` to the next.
#[derive(Default)]
pub(super) struct Appends {
    /// The open one.
    pub(super) stream: Option<Stream>,
    /// How holding requests back went on it.
    pub(super) hold: Hold,
    opening: Option<Opening>,
    /// Attempts in a row that brought no stream, or one on which nothing was answered.
    useless_openings: u32,
}

impl Appends {
    /// Makes sure that there is a stream to node `target` at `address`, at the first call or after the last one broke.
    pub(super) async fn open(
        &mut self,
        peers: &Peers,
        address: &str,
        target: u64,
        patience: Duration,
    ) -> Result<(), Failure> {
        if self.stream.as_mut().is_some_and(|stream| stream.renew(patience)) {
            return Ok(());
        }
        if self.stream.take().is_some_and(|stream| stream.useful) {
            self.useless_openings = 0;
        }
        let (first, longest) = BACKOFF;
        let pause = match self.useless_openings {
            0 => Duration::ZERO,
            failures => (first * 2_u32.saturating_pow(failures - 1)).min(longest),
        };
        let open = || Opening::new(peers, address, target, patience, pause);
        let opened = self.opening.get_or_insert_with(open).done().await;
        self.opening = None;
        // One more, until the peer answers something on it.
        self.useless_openings = self.useless_openings.saturating_add(1).min(8);
        self.stream = Some(opened?);
        Ok(())
    }

    /// The peer has answered something.
    pub(super) fn answered(&mut self) {
        self.useless_openings = 0;
    }
}
