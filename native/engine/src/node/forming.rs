//! How empty nodes agree on the id of the cluster that they found: single-decree Paxos ("Paxos Made Simple") among the
//! configured servers, with promises on disk.
//!
//! Two majorities of the configured servers share a node, so two different clusters can never come of one list; a node
//! that crashes half-way stalls nobody, because any other can bring the chosen id to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::datadir::DataDir;
use crate::error::{Code, Failure};
use crate::node::core::Core;
use crate::node::messages::{ACCEPT, Accept, Ballot, ClusterId, PREPARE, Prepare, Promise, decode, encode};
use crate::surroundings::fill_random;

/// How long one phase waits for answers.
const PHASE_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Names and addresses of the configured servers, ascending.
type Servers = Vec<(String, String)>;

/// What an acceptor keeps on disk. The file outlives the agreement: as long as it is there, an empty log is a new one
/// and not a lost one, and a founding member knows whom it founded the cluster with, whatever is configured later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    servers: Servers,
    promised: Ballot,
    accepted: Option<(Ballot, ClusterId)>,
}

impl Acceptor {
    /// What is kept of the agreement among `servers`; each list of servers has an agreement of its own.
    fn load(data: &DataDir, servers: &Servers) -> Result<Acceptor, Failure> {
        let stored = data.load_forming()?.map(|stored| decode::<Acceptor>(&stored)).transpose()?;
        let fresh = || Acceptor { servers: servers.clone(), ..Acceptor::default() };
        Ok(stored.filter(|stored| stored.servers == *servers).unwrap_or_else(fresh))
    }

    /// Takes one step, durably, before it is answered. One at a time: a promise must not be lost under another's feet.
    fn step(
        data: &Mutex<DataDir>,
        servers: &Servers,
        step: impl FnOnce(&mut Acceptor) -> bool,
    ) -> Result<Promise, Failure> {
        let mut data = data.lock();
        if data.identity().is_some() {
            return Err(Failure::new(Code::Refused, "This node belongs to a cluster already."));
        }
        let mut acceptor = Acceptor::load(&data, servers)?;
        let agreed = step(&mut acceptor);
        if agreed {
            data.save_forming(Some(&encode(&acceptor)?))?;
        }
        Ok(acceptor.answer(agreed))
    }

    fn promise(&mut self, ballot: Ballot) -> bool {
        let agreed = ballot > self.promised;
        if agreed {
            self.promised = ballot;
        }
        agreed
    }

    fn accept(&mut self, ballot: Ballot, cluster: ClusterId) -> bool {
        let agreed = ballot >= self.promised;
        if agreed {
            self.promised = ballot;
            self.accepted = Some((ballot, cluster));
        }
        agreed
    }

    fn answer(&self, agreed: bool) -> Promise {
        Promise { agreed, promised: self.promised, accepted: self.accepted }
    }
}

/// The cluster id that this node accepted, if it took part in founding one with the configured servers.
pub fn accepted(core: &Core) -> Result<Option<ClusterId>, Failure> {
    Ok(Acceptor::load(&core.data.lock(), &servers(core))?.accepted.map(|(_, cluster)| cluster))
}

/// Notes durably, before the node has an identity, that its log is about to begin.
pub fn expect_empty_log(data: &mut DataDir) -> Result<(), Failure> {
    match data.load_forming()? {
        Some(_) => Ok(()),
        None => data.save_forming(Some(&encode(&Acceptor::default())?)),
    }
}

/// The servers that this node founds its cluster with; none when its log began before. Fails with `Corrupt`, `Io`.
pub fn founders(data: &DataDir) -> Result<Option<Vec<(String, String)>>, Failure> {
    let stored = data.load_forming()?.map(|stored| decode::<Acceptor>(&stored)).transpose()?;
    Ok(stored.map(|acceptor| acceptor.servers))
}

/// How many servers found the cluster, by what [`DataDir::load_forming`] gave; 0 for a node that waits to be let into one. Fails
/// with `Internal` when it cannot be read.
pub fn founders_stored(stored: &[u8]) -> Result<usize, Failure> {
    decode::<Acceptor>(stored).map(|acceptor| acceptor.servers.len())
}

/// Answers phase 1. Fails with `Refused` when this node has a cluster or another list of servers.
pub fn prepare(core: &Core, request: &Prepare) -> Result<Promise, Failure> {
    check(core, &request.servers)?;
    Acceptor::step(&core.data, &request.servers, |acceptor| acceptor.promise(request.ballot))
}

/// Answers phase 2. Fails as [`prepare`].
pub fn accept(core: &Core, request: &Accept) -> Result<Promise, Failure> {
    check(core, &request.servers)?;
    Acceptor::step(&core.data, &request.servers, |acceptor| acceptor.accept(request.ballot, request.cluster))
}

fn check(core: &Core, asked: &Servers) -> Result<(), Failure> {
    if core.config.join_only {
        return Err(Failure::new(Code::Refused, "This node only joins a cluster that exists."));
    }
    if *asked != servers(core) {
        return Err(Failure::new(Code::Refused, "This node was configured with other servers."));
    }
    Ok(())
}

fn servers(core: &Core) -> Servers {
    core.config.servers.clone().into_iter().collect()
}

/// One attempt to have a cluster id chosen; `None` when another proposer was in the way or a majority did not answer.
pub async fn propose(core: &Arc<Core>) -> Result<Option<ClusterId>, Failure> {
    let servers = servers(core);
    let known = Acceptor::load(&core.data.lock(), &servers)?;
    let ballot = Ballot { round: known.promised.round + 1, proposer: hash(&core.config.name) };
    let request = Prepare { ballot, servers: servers.clone() };
    let own = prepare(core, &request)?;
    let promises = ask_all(core, PREPARE, &request, own).await?;
    let Some(promises) = majority(core, promises) else { return Ok(None) };
    let adopted = promises.iter().filter_map(|promise| promise.accepted).max_by_key(|(ballot, _)| *ballot);
    let cluster = match adopted {
        Some((_, cluster)) => cluster,
        None => random_id()?,
    };
    let request = Accept { ballot, cluster, servers };
    let own = accept(core, &request)?;
    let answers = ask_all(core, ACCEPT, &request, own).await?;
    Ok(majority(core, answers).map(|_| cluster))
}

async fn ask_all<T: Serialize>(core: &Arc<Core>, kind: u8, request: &T, own: Promise) -> Result<Vec<Promise>, Failure> {
    let body = encode(request)?;
    let calls =
        core.config.peers().map(|(_, address)| core.peers.call(address, None, kind, body.clone(), PHASE_TIMEOUT));
    let answers = join_all(calls).await;
    let mut promises = vec![own];
    // Silence and refusals count the same: that server did not agree.
    promises.extend(answers.into_iter().flatten().filter_map(|answer| decode::<Promise>(&answer).ok()));
    Ok(promises)
}

fn majority(core: &Core, promises: Vec<Promise>) -> Option<Vec<Promise>> {
    if let Some(highest) = promises.iter().map(|promise| promise.promised).max() {
        remember_round(core, highest);
    }
    let agreed: Vec<Promise> = promises.into_iter().filter(|promise| promise.agreed).collect();
    (agreed.len() > core.config.servers.len() / 2).then_some(agreed)
}

/// The next attempt must be above every round seen.
fn remember_round(core: &Core, seen: Ballot) {
    let higher = Ballot { round: seen.round, proposer: 0 };
    let raised = Acceptor::step(&core.data, &servers(core), |acceptor| acceptor.promise(higher));
    if let Err(failure) = raised {
        tracing::warn!("The round of the founding agreement could not be kept: {failure}");
    }
}

fn random_id() -> Result<ClusterId, Failure> {
    let mut id = [0; 16];
    fill_random(&mut id)?;
    Ok(id)
}

/// The raft id of a founding member: FNV-1a of its name, never 0.
pub fn hash(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.max(1)
}

/// Refuses names whose raft ids collide.
pub fn check_hashes<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    let mut seen = BTreeMap::new();
    for name in names {
        if let Some(other) = seen.insert(hash(name), name) {
            return Err(Failure::invalid(format!(
                "The server names {other:?} and {name:?} have the same hash; rename one."
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, proposer: u64) -> Ballot {
        Ballot { round, proposer }
    }

    #[test]
    fn a_promise_binds_and_a_later_proposer_finds_what_was_accepted() {
        let mut acceptor = Acceptor::default();
        assert!(acceptor.promise(ballot(1, 1)));
        assert!(acceptor.promise(ballot(1, 2)));
        assert!(!acceptor.accept(ballot(1, 1), [1; 16]));
        assert!(acceptor.accept(ballot(1, 2), [2; 16]));
        assert!(!acceptor.promise(ballot(1, 2)));
        assert!(acceptor.promise(ballot(2, 1)));
        assert_eq!(acceptor.answer(true).accepted, Some((ballot(1, 2), [2; 16])));
    }

    fn servers(names: &[&str]) -> Servers {
        names.iter().map(|name| (name.to_string(), format!("{name}:1"))).collect()
    }

    #[test]
    fn steps_at_the_same_time_lose_no_promise() {
        let root = tempfile::tempdir().unwrap();
        let data = Mutex::new(DataDir::open(root.path(), "a").unwrap());
        let (data, list) = (&data, &servers(&["a", "b", "c"]));
        std::thread::scope(|scope| {
            for proposer in 1..=4 {
                scope.spawn(move || {
                    for round in 1..50 {
                        let mine = ballot(round, proposer);
                        let promise = Acceptor::step(data, list, |acceptor| acceptor.promise(mine)).unwrap();
                        let present = Acceptor::load(&data.lock(), list).unwrap().promised;
                        assert!(present >= promise.promised, "{present:?} after {promise:?}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_node_with_an_identity_agrees_to_nothing_more() {
        let root = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(root.path(), "a").unwrap();
        let identity = crate::datadir::NodeIdentity { cluster: [1; 16], node: 7, name: "a".into(), incarnation: 1 };
        expect_empty_log(&mut data).unwrap();
        data.save_identity(&identity).unwrap();
        let refused = Acceptor::step(&Mutex::new(data), &servers(&["a"]), |acceptor| acceptor.promise(ballot(9, 9)));
        assert_eq!(refused.unwrap_err().code, Code::Refused);
    }

    #[test]
    fn another_list_of_servers_is_another_agreement_and_a_founder_remembers_his() {
        let root = tempfile::tempdir().unwrap();
        let data = Mutex::new(DataDir::open(root.path(), "a").unwrap());
        let (three, alone) = (servers(&["a", "b", "c"]), servers(&["a"]));
        Acceptor::step(&data, &three, |acceptor| acceptor.accept(ballot(3, 1), [3; 16])).unwrap();
        assert_eq!(founders(&data.lock()).unwrap(), Some(three));
        assert_eq!(Acceptor::load(&data.lock(), &alone).unwrap().accepted, None);
    }
}
