//! Stories of clusters: they form, lose nodes, get them back, change, and answer truly all along.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use quorate_engine::error::Code;
use quorate_engine::node::Node;
use quorate_engine::session::Consistency;
use support::{Cluster, Events, LONG, block_on, code, eventually, id};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[test]
fn a_single_node_keeps_its_keys_over_a_restart() {
    let mut cluster = Cluster::start_all(&["a"]);
    let first = cluster.put("a", "k", "v1").unwrap();
    cluster.put("a", "k", "v2").unwrap();
    cluster.stop("a");
    cluster.start("a");
    assert_eq!(cluster.get("a", "k").unwrap().as_deref(), Some("v2"));
    assert_eq!(cluster.put("a", "k", "v3").unwrap().revision, first.revision + 2);
}

#[test]
fn three_empty_nodes_found_one_cluster_and_each_takes_writes() {
    let cluster = Cluster::start_all(&NAMES);
    for name in NAMES {
        cluster.put(name, name, "here").unwrap();
    }
    for reader in NAMES {
        for key in NAMES {
            assert_eq!(cluster.get(reader, key).unwrap().as_deref(), Some("here"), "{key} on {reader}");
        }
    }
    let leader = cluster.leader();
    assert!(NAMES.contains(&leader.as_str()));
}

#[test]
fn a_minority_alone_founds_nothing_and_says_for_whom_it_waits() {
    let mut cluster = Cluster::new(&NAMES);
    cluster.start("b");
    assert_eq!(code(cluster.put_within("b", "k", "v", Duration::from_millis(1500))), Code::Unavailable);
    let status = cluster.node("b").status();
    assert!(status.contains("no answer from a, c"), "{status}");
    cluster.start("c");
    cluster.put("b", "k", "v").unwrap();
    cluster.start("a");
    assert_eq!(cluster.get("a", "k").unwrap().as_deref(), Some("v"));
}

#[test]
fn the_leader_goes_writes_go_on_and_it_catches_up_when_it_comes_back() {
    let mut cluster = Cluster::start_all(&NAMES);
    let leader = cluster.leader();
    cluster.put(&leader, "k", "before").unwrap();
    cluster.stop(&leader);
    let other = cluster.follower();
    cluster.put(&other, "k", "after").unwrap();
    cluster.start(&leader);
    assert_eq!(cluster.get(&leader, "k").unwrap().as_deref(), Some("after"));
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_nothing_is_read() {
    let mut cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v").unwrap();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let third = NAMES.iter().find(|name| **name != leader && **name != follower).unwrap().to_string();
    cluster.stop(&follower);
    cluster.stop(&third);
    let short = Duration::from_millis(1500);
    let refused = code(cluster.put_within(&leader, "k", "lost?", short));
    assert!(matches!(refused, Code::Timeout | Code::Unavailable), "{refused:?}");
    assert_eq!(code(cluster.get_within(&leader, "k", Consistency::Linearizable, short)), Code::Unavailable);
    assert_eq!(cluster.get_within(&leader, "k", Consistency::Local, short).unwrap().as_deref(), Some("v"));
    cluster.start(&follower);
    cluster.put(&leader, "k", "again").unwrap();
    assert_eq!(cluster.get(&follower, "k").unwrap().as_deref(), Some("again"));
}

#[test]
fn a_wiped_node_comes_back_under_a_new_id_and_replaces_its_former_self() {
    let mut cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v").unwrap();
    let lost = cluster.follower();
    let former = id(cluster.node(&lost));
    cluster.stop(&lost);
    cluster.wipe(&lost);
    cluster.start(&lost);
    assert_eq!(cluster.get(&lost, "k").unwrap().as_deref(), Some("v"));
    let present = id(cluster.node(&lost));
    assert_ne!(former, present);
    eventually("the replacement in the membership", || {
        let status = cluster.node(&cluster.leader()).status();
        let members = status.split(":members [").nth(1).unwrap().split(']').next().unwrap();
        members.matches(":voter true").count() == 3 && members.contains(&present) && !members.contains(&former)
    });
}

#[test]
fn a_node_that_held_data_alone_gives_it_to_the_empty_ones_that_join() {
    let mut alone = Cluster::start_all(&["a"]);
    alone.put("a", "k", "mine").unwrap();
    alone.stop("a");
    for name in ["b", "c"] {
        alone.servers.insert(name.into(), support::free_address());
    }
    NAMES.iter().for_each(|name| alone.start(name));
    for name in ["b", "c"] {
        assert_eq!(alone.get(name, "k").unwrap().as_deref(), Some("mine"));
    }
    alone.settle();
    alone.stop("a");
    alone.put("b", "k", "ours").unwrap();
    assert_eq!(alone.get("c", "k").unwrap().as_deref(), Some("ours"));
}

#[test]
fn members_are_added_taken_out_and_made_leader() {
    let mut cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v").unwrap();
    cluster.servers.insert("d".into(), support::free_address());
    let address = cluster.servers["d"].clone();
    let mut lonely = cluster.config("d");
    lonely.join_only = true;
    lonely.servers = [("d".to_string(), address.clone())].into();
    let newcomer = Node::start(lonely, std::sync::Arc::new(Events::default())).unwrap();
    cluster.nodes.insert("d".into(), newcomer);
    block_on(cluster.node("a").add_member("d", &address, true, LONG)).unwrap();
    assert_eq!(cluster.get("d", "k").unwrap().as_deref(), Some("v"));
    block_on(cluster.node("b").transfer_leader("d", LONG)).unwrap();
    assert_eq!(cluster.leader(), "d");
    block_on(cluster.node("a").remove_member("d", LONG)).unwrap();
    cluster.stop("d");
    assert_ne!(cluster.leader(), "d");
    cluster.put("c", "k", "still").unwrap();
    assert_eq!(code(block_on(cluster.node("a").remove_member("nobody", LONG))), Code::Membership);
    let down = support::free_address();
    // It is asked again until the end; when that comes in the middle of an attempt, its outcome is not known.
    let refused = code(block_on(cluster.node("a").add_member("e", &down, true, Duration::from_secs(2))));
    assert!(matches!(refused, Code::Unavailable | Code::Timeout), "{refused:?}");
}

/// A node that was just elected may be asked before it, or whoever asks, knows of it.
#[test]
fn a_leader_that_is_asked_to_take_the_lead_keeps_it() {
    let mut cluster = Cluster::new(&NAMES);
    // Beyond what a busy machine makes a node wait.
    cluster.tune = |config| config.election_timeout_ms = 2_000;
    NAMES.iter().for_each(|name| cluster.start(name));
    cluster.settle();
    let leader = cluster.leader();
    let term = || cluster.node(&leader).status().split_once(":term ").map(|(_, rest)| rest[..2].to_string());
    let before = term();
    block_on(cluster.node(&leader).transfer_leader(&leader, LONG)).unwrap();
    std::thread::sleep(Duration::from_millis(3 * cluster.config(&leader).election_timeout_ms));
    assert_eq!((cluster.leader(), term()), (leader.clone(), before));
}

#[test]
fn a_follower_that_missed_what_was_purged_gets_a_snapshot() {
    let mut cluster = Cluster::new(&NAMES);
    cluster.tune = |config| {
        config.snapshot_commands = 200;
        config.log_keep_entries = 16;
    };
    NAMES.iter().for_each(|name| cluster.start(name));
    cluster.settle();
    cluster.put("a", "first", "1").unwrap();
    let away = cluster.follower();
    cluster.stop(&away);
    let leader = cluster.leader();
    for number in 0..1000 {
        cluster.put(&leader, &format!("key{number}"), "x").unwrap();
    }
    eventually("the purge", || {
        let status = cluster.node(&leader).status();
        !status.contains(":purged-log-index nil")
    });
    cluster.start(&away);
    assert_eq!(cluster.get(&away, "key999").unwrap().as_deref(), Some("x"));
    assert_eq!(cluster.get(&away, "first").unwrap().as_deref(), Some("1"));
    let index = cluster.node(&leader).index();
    eventually("the same index", || cluster.node(&away).index() == index);
    cluster.stop(&away);
    cluster.start(&away);
    cluster.sees(&away, "key500", "x");
}

#[test]
fn a_node_of_another_cluster_is_refused_with_both_named() {
    let mut ours = Cluster::start_all(&["a"]);
    let theirs = Cluster::start_all(&["z"]);
    theirs.put("z", "k", "v").unwrap();
    ours.put("a", "k", "v").unwrap();
    let refused = block_on(ours.node("a").add_member("z", &theirs.servers["z"], true, Duration::from_secs(5)));
    let failure = refused.unwrap_err();
    assert!(failure.message.contains("another cluster"), "{failure}");
    ours.stop("a");
}

#[test]
fn one_directory_serves_one_node_and_one_port_one_listener() {
    let cluster = Cluster::start_all(&["a"]);
    let again = Node::start(cluster.config("a"), std::sync::Arc::new(Events::default()));
    assert_eq!(again.err().unwrap().code, Code::Locked);
    let mut elsewhere = cluster.config("a");
    elsewhere.data_dir = cluster.data_dir("other");
    let again = Node::start(elsewhere, std::sync::Arc::new(Events::default()));
    assert_eq!(again.err().unwrap().code, Code::AddressInUse);
}

#[test]
fn on_a_failover_the_winner_tells_of_the_loss_before_its_victory_and_the_others_of_the_new_leader() {
    let mut cluster = Cluster::new(&NAMES);
    let events: std::collections::BTreeMap<&str, std::sync::Arc<Events>> =
        NAMES.map(|name| (name, Default::default())).into();
    for name in NAMES {
        let node = Node::start(cluster.config(name), events[name].clone()).unwrap();
        cluster.nodes.insert(name.into(), node);
    }
    cluster.settle();
    let former = cluster.leader();
    let told = |name: &str| -> Vec<_> {
        let events = events[name].0.lock();
        events.iter().map(|one| (one.cause, one.old_leader.clone(), one.new_leader.clone())).collect()
    };
    let before: std::collections::BTreeMap<&str, usize> = NAMES.map(|name| (name, told(name).len())).into();
    cluster.stop(&former);
    let mut winner = former.clone();
    eventually("another leader", || {
        winner = cluster.leader();
        winner != former
    });
    for name in NAMES.into_iter().filter(|name| *name != former) {
        let cause = if name == winner { "become-leader" } else { "append-entries" };
        let mut news = Vec::new();
        eventually("the news", || {
            news = told(name).split_off(before[name]);
            news.last().is_some_and(|(last, _, new)| *last == cause && new.as_ref() == Some(&winner))
        });
        let chain: Vec<_> = news.windows(2).map(|pair| pair[0].2 == pair[1].1).collect();
        assert!(chain.iter().all(|linked| *linked), "events are missing or out of order on {name}: {news:?}");
        if name == winner {
            assert_eq!(news[0], ("request-votes", Some(former.clone()), None), "{news:?}");
        }
    }
    assert_eq!(told(&former).last().unwrap().0, "closed");
}

#[test]
fn the_status_tells_votes_terms_and_where_the_log_begins() {
    let cluster = Cluster::start_all(&NAMES);
    cluster.put("a", "k", "v").unwrap();
    let leader = cluster.leader();
    for name in NAMES {
        let status = cluster.node(name).status();
        assert!(status.contains(&format!(":voted-for \"{leader}\"")), "{status}");
        assert!(status.contains(":log-first-index 0") && status.contains(":snapshot-term nil"), "{status}");
        let numbered = status.matches(":next-index nil").count();
        assert_eq!(numbered, if name == leader { 0 } else { 3 }, "{status}");
    }
}
