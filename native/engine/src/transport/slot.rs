//! What is known of one address: the connection for calls, when to try again, and statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use crate::error::{Code, Failure};

use super::MEMBER_CALLS_FROM;
use super::backoff::backoff;
use super::dialer::Dialer;
use super::handshake::{Host, Purpose};
use super::link::Link;

/// A connection attempt for calls, handshake included, takes at most this long.
const DIAL: Duration = Duration::from_secs(2);
/// Strangers introduce themselves anew at most this often: one of them may have joined.
const REINTRODUCE: Duration = Duration::from_millis(250);

/// What is known of the node at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The address, `host:port`.
    pub address: String,
    /// The Raft id of the node that answered there last.
    pub node: Option<u64>,
    /// Its name.
    pub name: Option<String>,
    /// Whether a connection to it is open, for calls or for appends.
    pub connected: bool,
    /// The last thing that went wrong with it, as a sentence; stays when all is well again.
    pub last_error: Option<String>,
    /// Smoothed round-trip time of the transport's own messages and of heartbeats, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Bytes of the snapshot that is being sent there: sent so far, and in all.
    pub snapshot: Option<(u64, u64)>,
}

type Attempt = Shared<BoxFuture<'static, Result<Arc<Link>, Failure>>>;

enum Calls {
    Down { until: Instant },
    Dialing(Attempt),
    Up(Arc<Link>),
}

struct State {
    calls: Calls,
    failures: u32,
    last_error: Option<String>,
    host: Option<(u64, String)>,
    snapshot: Option<(u64, u64)>,
}

/// One address.
pub(super) struct Slot {
    address: String,
    state: Mutex<State>,
    streams: AtomicUsize,
    round_trip_us: AtomicU64,
}

/// Counts an append stream as open as long as it lives.
pub(super) struct OpenStream(Arc<Slot>);

impl OpenStream {
    pub(super) fn new(slot: Arc<Slot>) -> OpenStream {
        slot.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(slot)
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.0
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    pub(super) fn new(address: &str) -> Slot {
        let calls = Calls::Down { until: Instant::now() };
        let state = State { calls, failures: 0, last_error: None, host: None, snapshot: None };
        let (streams, round_trip_us) = (AtomicUsize::new(0), AtomicU64::new(0));
        Slot { address: address.to_owned(), state: Mutex::new(state), streams, round_trip_us }
    }

    /// The connection for a call of `kind` to node `to`: the present one, or a new one. Fails at once with `Unavailable` while it is
    /// too early to try again, else as dialling does.
    pub(super) async fn link(
        self: &Arc<Slot>,
        dialer: &Arc<Dialer>,
        to: Option<u64>,
        kind: u8,
    ) -> Result<Arc<Link>, Failure> {
        let attempt = {
            let mut state = self.state.lock();
            match &state.calls {
                Calls::Up(link) if link.alive() && !self.must_reintroduce(dialer, link, to, kind) => {
                    return Ok(link.clone());
                }
                Calls::Dialing(attempt) => attempt.clone(),
                Calls::Down { until } if Instant::now() < *until => {
                    return Err(self.unavailable(&state));
                }
                _ => {
                    let attempt = self.dial(dialer);
                    state.calls = Calls::Dialing(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    fn must_reintroduce(&self, dialer: &Dialer, link: &Link, to: Option<u64>, kind: u8) -> bool {
        kind >= MEMBER_CALLS_FROM && link.outdated(dialer.identity().cluster, to, REINTRODUCE)
    }

    fn unavailable(&self, state: &State) -> Failure {
        let reason = state.last_error.as_deref().unwrap_or("It has not answered yet.");
        Failure::new(Code::Unavailable, format!("{} cannot be reached at the moment. {reason}", self.address))
    }

    /// Dials in a task of its own: a caller with little patience does not cut the attempt short for the others.
    fn dial(self: &Arc<Slot>, dialer: &Arc<Dialer>) -> Attempt {
        let (slot, dialer) = (self.clone(), dialer.clone());
        let task = tokio::spawn(async move {
            let mine = dialer.identity();
            let dialled = dialer.connect(&slot.address, &mine, None, Purpose::Calls, DIAL).await;
            let link = dialled.map(|(reader, sink, host)| {
                slot.met(&host);
                Arc::new(Link::start(&slot, reader, sink, mine.cluster, host))
            });
            slot.dialled(&link);
            link
        });
        let lost = |error| Failure::internal(format!("A connection attempt was lost: {error}."));
        async move { task.await.unwrap_or_else(|error| Err(lost(error))) }.boxed().shared()
    }

    fn dialled(&self, link: &Result<Arc<Link>, Failure>) {
        let mut state = self.state.lock();
        if !matches!(state.calls, Calls::Dialing(_)) {
            return; // closed meanwhile
        }
        match link {
            Ok(link) => {
                state.failures = 0;
                state.calls = Calls::Up(link.clone());
            }
            Err(failure) => down(&mut state, &failure.message),
        }
    }

    /// The connection for calls ended by itself.
    pub(super) fn link_ended(&self, reason: &str) {
        let mut state = self.state.lock();
        // A successor may already be there; then this is history.
        if matches!(&state.calls, Calls::Up(link) if !link.alive()) {
            down(&mut state, reason);
        }
    }

    /// Ends the connection for calls and any attempt at one.
    pub(super) fn close(&self) {
        let calls = std::mem::replace(&mut self.state.lock().calls, Calls::Down { until: Instant::now() });
        drop(calls);
    }

    /// Notes who answers at this address.
    pub(super) fn met(&self, host: &Host) {
        self.state.lock().host = Some((host.node, host.name.clone()));
    }

    /// Notes why something failed here.
    pub(super) fn failed(&self, message: &str) {
        self.state.lock().last_error = Some(message.to_owned());
    }

    /// Notes how much of a snapshot has left, `(bytes sent, bytes in all)`; `None` when none is under way.
    pub(super) fn snapshot_progress(&self, progress: Option<(u64, u64)>) {
        self.state.lock().snapshot = progress;
    }

    /// Smooths round-trip times as TCP does (RFC 6298: one eighth of each new sample).
    pub(super) fn round_trip(&self, sample: Duration) {
        let sample = sample.as_micros().clamp(1, u64::MAX as u128) as u64;
        let smoothed = match self.round_trip_us.load(Ordering::Relaxed) {
            0 => sample,
            old => (old * 7).saturating_add(sample).div_ceil(8),
        };
        self.round_trip_us.store(smoothed, Ordering::Relaxed);
    }

    /// Whether nothing depends on this slot any more.
    pub(super) fn idle(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && matches!(self.state.lock().calls, Calls::Down { .. })
    }

    pub(super) fn stats(&self) -> PeerStats {
        let state = self.state.lock();
        let calls = matches!(&state.calls, Calls::Up(link) if link.alive());
        let round_trip_us = self.round_trip_us.load(Ordering::Relaxed);
        PeerStats {
            address: self.address.clone(),
            node: state.host.as_ref().map(|(node, _)| *node),
            name: state.host.as_ref().map(|(_, name)| name.clone()),
            connected: calls || self.streams.load(Ordering::Relaxed) > 0,
            last_error: state.last_error.clone(),
            round_trip_us: (round_trip_us > 0).then_some(round_trip_us),
            snapshot: state.snapshot,
        }
    }
}

fn down(state: &mut State, reason: &str) {
    state.failures = state.failures.saturating_add(1);
    state.last_error = Some(reason.to_owned());
    state.calls = Calls::Down { until: Instant::now() + backoff(state.failures) };
}
