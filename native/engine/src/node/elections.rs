//! When this node stands for election. openraft's own timer gives votes no longer than the shortest time between two of its
//! elections, and stands again in the same time however often it failed: on a slow network nobody is ever elected.
//!
//! A follower that hears nothing asks for votes 1.2 to 1.8 election timeouts after it last heard of its leader: the first one is the
//! lease in which it votes for nobody else. Where no leader is known, and after a round that was lost, the next comes 1 to 2
//! election timeouts later: time for answers to come back, for the winner to say so, and room to tell candidates apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::time::Instant;

use crate::error::{Code, Failure};
use crate::node::adapter::RaftNode;
use crate::node::core::Core;
use crate::node::problems::Problem;
use crate::surroundings::random_u64;
use crate::transport::PeerStats;

/// Looks in one election timeout.
const LOOKS: u32 = 8;
/// How often round trips are held against the election timeout.
const ROUND_TRIPS_LOOK: Duration = Duration::from_secs(1);

/// What the consensus core knows that decides whether to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// A voter that does not lead.
    may_stand: bool,
    /// The only voter.
    alone: bool,
    /// Whether its vote is for somebody who was elected.
    led: bool,
    /// When it voted, or last heard of the leader; never since it was started.
    heard: Option<Instant>,
}

/// Waits between elections, in units of one election timeout.
struct Timer {
    timeout: Duration,
    /// Of this wait, from 0 to 1.
    chance: f64,
    /// When it last asked for votes, unless a leader was heard of since.
    asked: Option<Instant>,
}

impl Timer {
    fn new(timeout: Duration) -> Timer {
        Timer { timeout, chance: chance(), asked: None }
    }

    /// Whether to ask for votes, now that it is `now`.
    fn is_due(&mut self, seen: Seen, now: Instant) -> bool {
        if seen.led && seen.heard > self.asked {
            self.asked = None;
        }
        if !seen.may_stand || self.due(seen) > Some(now) {
            return false;
        }
        self.asked = Some(now);
        self.chance = chance();
        true
    }

    /// How long to wait, from `now` on, before it is looked again.
    fn pause(&self, seen: Seen, now: Instant) -> Duration {
        let due = self.due(seen).map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        let longest = self.timeout / LOOKS;
        if due.is_zero() || !seen.may_stand { longest } else { due.min(longest) }
    }

    /// When to ask for votes; `None` for at once.
    fn due(&self, seen: Seen) -> Option<Instant> {
        let wait = |least: f64, more: f64| self.timeout.mul_f64(least + more * self.chance);
        let again = self.asked.map(|asked| asked + wait(1.0, 1.0));
        if seen.alone {
            return again;
        }
        let first = seen.heard.map(|heard| heard + if seen.led { wait(1.2, 0.6) } else { wait(1.0, 1.0) });
        again.max(first)
    }
}

/// Between 0 and 1; without random numbers the longest wait is taken.
fn chance() -> f64 {
    random_u64().map_or(1.0, |number| f64::from(number as u32) / f64::from(u32::MAX))
}

/// Asks for votes whenever it is time, until dropped.
pub async fn run(core: Arc<Core>, raft: RaftNode) {
    let timeout = Duration::from_millis(core.config.election_timeout_ms);
    let mut timer = Timer::new(timeout);
    // Nodes that were started at the same time do not stand at the same time.
    tokio::time::sleep((timeout / LOOKS).mul_f64(chance())).await;
    loop {
        // A core that stopped is reported by its own watch.
        let Some(seen) = look(&raft).await else { return std::future::pending().await };
        let now = Instant::now();
        // Who is alone need not ask whether it would be elected, nor wait for a lease of its own.
        if timer.is_due(seen, now) && raft.trigger().elect(!seen.alone).await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(timer.pause(seen, now)).await;
    }
}

async fn look(raft: &RaftNode) -> Option<Seen> {
    let me = *raft.node_id();
    let seen = raft.with_raft_state(move |state| {
        let members = &state.membership_state;
        let votes = [members.effective(), members.committed()].iter().any(|set| set.voter_ids().any(|id| id == me));
        Seen {
            may_stand: votes && state.server_state != ServerState::Leader,
            alone: members.effective().voter_ids().eq([me]),
            led: state.vote_ref().is_committed(),
            heard: state.vote_last_modified().and_then(|at| Instant::now().checked_sub(at.elapsed())),
        }
    });
    seen.await.ok()
}

/// Says in log and status when messages take too long for the election timeout, until dropped.
pub async fn watch_round_trips(core: &Core, raft: RaftNode) {
    let timeout = Duration::from_millis(core.config.election_timeout_ms);
    let mut suspect = None;
    loop {
        tokio::time::sleep(ROUND_TRIPS_LOOK).await;
        let slow = slowest(&core.peers.stats(), &voters(core, &raft), timeout);
        match &slow {
            None => core.problems.clear(Problem::RoundTrip),
            // Once may be chance.
            Some((name, round_trip)) if suspect.as_ref() == Some(name) => {
                let failure = too_slow(name, *round_trip, timeout);
                if !core.problems.has(Problem::RoundTrip) {
                    tracing::warn!("{failure}");
                }
                core.problems.set(Problem::RoundTrip, failure);
            }
            Some(_) => {}
        }
        suspect = slow.map(|(name, _)| name);
    }
}

/// Names of the voters, by the address at which this node reaches them.
fn voters(core: &Core, raft: &RaftNode) -> BTreeMap<String, String> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let members = &metrics.membership_config;
    let voters = members.voter_ids().filter_map(|id| members.get_node(&id));
    voters.map(|member| (core.config.reach(&member.name, &member.address).into(), member.name.clone())).collect()
}

/// The voter to which a round trip takes longest, when that is more than half of the election timeout.
fn slowest(stats: &[PeerStats], voters: &BTreeMap<String, String>, timeout: Duration) -> Option<(String, Duration)> {
    let round_trips = stats.iter().filter(|peer| peer.connected).filter_map(|peer| {
        let name = voters.get(&peer.address)?;
        Some((name.clone(), Duration::from_micros(peer.round_trip_us?)))
    });
    round_trips.max_by_key(|(_, round_trip)| *round_trip).filter(|(_, round_trip)| *round_trip * 2 > timeout)
}

fn too_slow(name: &str, round_trip: Duration, timeout: Duration) -> Failure {
    let (ms, timeout) = (round_trip.as_millis(), timeout.as_millis());
    let message = format!(
        "A message to {name} and back takes {ms} ms, more than half of the election timeout of {timeout} ms: leaders may be deposed for no reason, and elections fail. An election timeout of at least {} ms suits this network.",
        ms * 2 + 1
    );
    Failure::new(Code::Unavailable, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn timer(chance: f64) -> Timer {
        Timer { timeout: TIMEOUT, chance, asked: None }
    }

    #[test]
    fn a_lease_comes_first_and_each_round_that_was_lost_is_given_more_time() {
        let begun = Instant::now();
        let led = Seen { may_stand: true, alone: false, led: true, heard: Some(begun) };
        for (chance, first) in [(0.0, 120), (1.0, 180)] {
            let mut timer = timer(chance);
            assert!(!timer.is_due(led, begun + ms(first - 1)));
            assert_eq!(timer.pause(led, begun + ms(first - 5)), ms(5), "it looks in time");
            assert!(!timer.is_due(Seen { may_stand: false, ..led }, begun + ms(first)));
            assert!(timer.is_due(led, begun + ms(first)));
            assert!(!timer.is_due(led, begun + ms(first + 99)), "answers are under way");
            assert!(timer.is_due(led, begun + ms(first + 200)));
        }
    }

    #[test]
    fn who_voted_gives_the_winner_time_and_who_hears_of_a_leader_begins_from_there() {
        let begun = Instant::now();
        let voted = Seen { may_stand: true, alone: false, led: false, heard: Some(begun) };
        let mut timer = timer(0.0);
        assert!(!timer.is_due(voted, begun + ms(99)));
        assert!(timer.is_due(voted, begun + ms(100)));
        timer.chance = 0.0;
        let led = Seen { led: true, heard: Some(begun + ms(110)), ..voted };
        assert!(!timer.is_due(led, begun + ms(229)));
        assert!(timer.is_due(led, begun + ms(230)));
    }

    #[test]
    fn who_was_only_started_or_is_alone_stands_at_once_and_not_again_before_the_vote_can_be_on_disk() {
        let begun = Instant::now();
        let started = Seen { may_stand: true, alone: false, led: true, heard: None };
        let alone = Seen { may_stand: true, alone: true, led: true, heard: Some(begun) };
        for seen in [started, alone] {
            let mut timer = timer(0.0);
            assert!(timer.is_due(seen, begun));
            assert!(!timer.is_due(seen, begun + ms(99)));
            assert!(timer.is_due(seen, begun + ms(200)));
        }
    }

    #[test]
    fn the_slowest_voter_is_named_when_a_round_trip_takes_more_than_half_of_the_timeout() {
        let peer = |address: &str, us, connected| PeerStats {
            address: address.into(),
            node: None,
            name: None,
            connected,
            last_error: None,
            round_trip_us: us,
            snapshot: None,
        };
        let voters: BTreeMap<String, String> = [("x:1", "a"), ("x:2", "b")].map(|(a, n)| (a.into(), n.into())).into();
        let slow = |stats: &[PeerStats]| slowest(stats, &voters, TIMEOUT);
        assert_eq!(slow(&[peer("x:1", Some(50_000), true), peer("x:2", None, true)]), None);
        assert_eq!(slow(&[peer("x:9", Some(90_000), true), peer("x:2", Some(90_000), false)]), None, "no voter, gone");
        let found = slow(&[peer("x:1", Some(51_000), true), peer("x:2", Some(70_000), true)]).unwrap();
        assert_eq!(found, ("b".into(), ms(70)));
        let said = too_slow("b", ms(70), TIMEOUT).message;
        assert!(said.contains("to b and back takes 70 ms") && said.contains("at least 141 ms"), "{said}");
    }
}
