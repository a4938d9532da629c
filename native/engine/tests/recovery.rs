//! A node comes back with less than it went with, or elsewhere: it finds its way, or says why not, and never lies.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use quorate_engine::command::Batch;
use quorate_engine::consensus::log::{LogOptions, LogStore};
use quorate_engine::consensus::types::{Candidate, Entry, LeaderId, LogId, Payload, TypeConfig, Vote};
use quorate_engine::session::Consistency;
use support::{Cluster, block_on, eventually, id};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SHORT: Duration = Duration::from_secs(2);

#[test]
fn a_node_whose_log_is_gone_does_not_vote_under_its_old_name() {
    let mut cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v").unwrap();
    let lost = cluster.follower();
    let former = id(cluster.node(&lost));
    cluster.stop(&lost);
    std::fs::remove_dir_all(cluster.data_dir(&lost).join("group-0/log")).unwrap();
    cluster.start(&lost);
    eventually("the refusal", || cluster.node(&lost).status().contains("The log of this node is gone"));
    let leader = cluster.leader_of_the_others(&lost);
    cluster.stop(&leader);
    // Two are there, but only one of them has a vote.
    let third = NAMES.iter().find(|name| **name != lost && **name != leader).unwrap();
    assert!(cluster.put_within(third, "k", "no quorum", SHORT).is_err());
    cluster.start(&leader);
    cluster.put(third, "k", "quorum").unwrap();
    cluster.stop(&lost);
    cluster.wipe(&lost);
    cluster.start(&lost);
    assert_eq!(cluster.get(&lost, "k").unwrap().as_deref(), Some("quorum"));
    assert_ne!(former, id(cluster.node(&lost)));
}

fn small_log(cluster: &mut Cluster) {
    cluster.tune = |config| {
        config.snapshot_commands = 100;
        config.log_keep_entries = 8;
    };
}

fn fill(cluster: &Cluster, node: &str) {
    for number in 0..400 {
        cluster.put(node, &format!("key{number}"), "x").unwrap();
    }
    eventually("the purge", || !cluster.node(node).status().contains(":purged-log-index nil"));
}

#[test]
fn a_node_whose_snapshots_are_gone_takes_one_from_its_state() {
    let mut cluster = Cluster::new(&["a"]);
    small_log(&mut cluster);
    cluster.start("a");
    fill(&cluster, "a");
    cluster.stop("a");
    std::fs::remove_dir_all(cluster.data_dir("a").join("group-0/snapshots")).unwrap();
    cluster.start("a");
    assert_eq!(cluster.get("a", "key0").unwrap().as_deref(), Some("x"));
    let kept = std::fs::read_dir(cluster.data_dir("a").join("group-0/snapshots")).unwrap();
    assert!(kept.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".snap")));
}

#[test]
fn a_node_whose_state_is_gone_answers_no_read_before_it_is_rebuilt() {
    let mut cluster = Cluster::new(&NAMES);
    small_log(&mut cluster);
    NAMES.iter().for_each(|name| cluster.start(name));
    cluster.settle();
    fill(&cluster, "a");
    let lost = cluster.follower();
    block_on(cluster.node(&lost).barrier(Consistency::Linearizable, support::LONG)).unwrap();
    // The newest entry is in the snapshot: what a read has to wait for is nothing but the snapshot.
    block_on(cluster.node(&lost).snapshot(support::LONG)).unwrap();
    cluster.stop(&lost);
    std::fs::remove_dir_all(cluster.data_dir(&lost).join("group-0/state")).unwrap();
    cluster.start(&lost);
    assert_eq!(cluster.get(&lost, "key0").unwrap().as_deref(), Some("x"));
}

#[test]
fn a_node_that_moved_is_found_again_at_its_new_address() {
    let mut cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v1").unwrap();
    let moved = cluster.follower();
    cluster.stop(&moved);
    cluster.servers.insert(moved.clone(), support::free_address());
    cluster.start(&moved);
    cluster.put("a", "k", "v2").unwrap();
    assert_eq!(cluster.get(&moved, "k").unwrap().as_deref(), Some("v2"));
    let address = cluster.servers[&moved].clone();
    eventually("the new address in the membership", || cluster.node("a").status().contains(&address));
}

#[test]
fn a_member_that_was_taken_out_and_let_in_again_takes_writes() {
    let mut cluster = Cluster::start_all(&NAMES);
    let out = cluster.follower();
    let leader = cluster.leader();
    cluster.put(&out, "k", "v1").unwrap();
    block_on(cluster.node(&leader).remove_member(&out, support::LONG)).unwrap();
    cluster.put(&leader, "k", "v2").unwrap();
    let address = cluster.servers[&out].clone();
    block_on(cluster.node(&leader).add_member(&out, &address, true, support::LONG)).unwrap();
    cluster.settle();
    cluster.put(&out, "k", "v3").unwrap();
    assert_eq!(cluster.get(&leader, "k").unwrap().as_deref(), Some("v3"));
    cluster.stop(&out);
    cluster.start(&out);
    cluster.put(&out, "k", "v4").unwrap();
}

/// Its followers may have made durable, and so committed, what it had not yet on its own disk when the power went: in its
/// old term it would give the same log indexes away again.
#[test]
fn a_leader_that_comes_back_does_not_lead_on_in_its_old_term() {
    let mut cluster = Cluster::new(&NAMES);
    // Long enough that nobody else stands for election meanwhile.
    cluster.tune = |config| config.election_timeout_ms = 3_000;
    NAMES.iter().for_each(|name| cluster.start(name));
    cluster.settle();
    let leader = cluster.leader();
    let before = term(&cluster, &leader);
    cluster.put(&leader, "k", "v").unwrap();
    cluster.stop(&leader);
    cluster.start(&leader);
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
    cluster.put(others[0], "k", "v2").unwrap();
    assert!(term(&cluster, others[0]) > before);
    assert_eq!(cluster.get(&leader, "k").unwrap().as_deref(), Some("v2"));
}

/// Found by the simulation (seed 8233): a snapshot, or the store, was durable before the log was told to drop what conflicts
/// with it, and the power went. openraft refused the log, each time; or, where the entries were of a newer term, went on with
/// them.
#[test]
fn a_log_that_goes_elsewhere_than_the_state_gives_way() {
    for (older, last) in [(true, 0), (true, 3), (false, -2), (false, 3)] {
        let (mut cluster, node) = follower_of_some_entries();
        block_on(rewrite_end(&cluster, &node, older, last, -3));
        cluster.start(&node);
        cluster.sees(&node, "k", "v1");
        cluster.put(&node, "k", "v2").unwrap();
        // From now on its log counts.
        let other = NAMES.into_iter().find(|name| *name != node).unwrap();
        cluster.stop(other);
        cluster.put(&node, "k", "v3").unwrap();
    }
}

#[test]
fn a_log_that_holds_something_else_as_committed_is_refused() {
    let (mut cluster, node) = follower_of_some_entries();
    block_on(rewrite_end(&cluster, &node, true, 0, 0));
    cluster.start(&node);
    eventually("the refusal", || cluster.node(&node).status().contains("they are not of the same node"));
}

/// A cluster, and one of its followers, stopped.
fn follower_of_some_entries() -> (Cluster, String) {
    let mut cluster = Cluster::start_all(&NAMES);
    for number in 0..5 {
        cluster.put("a", &format!("key{number}"), "x").unwrap();
    }
    cluster.put("a", "k", "v1").unwrap();
    let node = cluster.follower();
    cluster.sees(&node, "k", "v1");
    cluster.stop(&node);
    (cluster, node)
}

/// Replaces the last two entries of the log of `node` by others, of an older or a newer term, that end `last` after where it
/// ended, and are committed up to `committed` after that.
async fn rewrite_end(cluster: &Cluster, node: &str, older: bool, last: i64, committed: i64) {
    let directory = cluster.data_dir(node).join("group-0/log");
    let mut log = LogStore::open(&directory, LogOptions::new(node, 0)).unwrap();
    let end = log.extent().last.unwrap();
    let after = |by: i64| (end.index as i64 + by) as u64;
    let term = if older { end.leader_id.term - 1 } else { end.leader_id.term + 1 };
    let id = |index| LogId { leader_id: LeaderId { term, node_id: 7 }, index };
    let entries = log.read_now(0, u64::MAX).unwrap();
    let before = |index| entries.iter().map(|entry| entry.log_id).find(|id| id.index == index).unwrap();
    if !older {
        log.save_vote(&Vote { leader_id: Candidate { term, node_id: 7 }, committed: true }).await.unwrap();
    }
    log.save_committed(Some(before(after(committed.min(-3))))).await.unwrap();
    log.truncate_after(Some(before(after(-3)))).await.unwrap();
    let never = |index| Entry { log_id: id(index), payload: Payload::Normal(Batch(Bytes::from_static(b"never"))) };
    let (done, durable) = TypeConfig::oneshot();
    log.append((after(-2)..=after(last)).map(never), IOFlushed::signal(done)).await.unwrap();
    durable.await.unwrap().unwrap();
    if committed > -3 {
        log.save_committed(Some(id(after(committed)))).await.unwrap();
    }
    log.closed().await;
}

fn term(cluster: &Cluster, name: &str) -> u64 {
    let status = cluster.node(name).status();
    let after = status.split_once(":term ").unwrap().1;
    after.split(' ').next().unwrap().parse().unwrap()
}
