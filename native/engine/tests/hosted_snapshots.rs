//! Hosts whose snapshots fail, hang or come late: nothing is purged that they do not cover, and they are asked again.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_engine::NodeConfig;
use quorate_engine::error::Code;
use support::eventually;
use support::host::{Host, Snapshots};
use tempfile::TempDir;

fn config(directory: &TempDir) -> NodeConfig {
    let mut config = NodeConfig::new("a", BTreeMap::from([("a".into(), String::new())]), directory.path().join("a"));
    (config.heartbeat_ms, config.election_timeout_ms) = (50, 200);
    (config.snapshot_commands, config.log_keep_entries) = (1_000_000, 0);
    config.snapshot_timeout_ms = 300;
    config
}

fn start(tune: impl FnOnce(&mut NodeConfig)) -> (TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory);
    tune(&mut config);
    let host = Host::start(config);
    (directory, host)
}

fn purged(host: &Host) -> bool {
    !host.status().contains(":purged-log-index nil")
}

#[test]
fn a_snapshot_that_the_host_refuses_shows_until_one_succeeds_and_purges_nothing() {
    let (_directory, host) = start(|_| {});
    host.write("one");
    *host.snapshots.lock() = Snapshots::Refuse;
    let failure = host.snapshot().unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (Code::StateMachine, "the user's disk is full"));
    assert!(host.status().contains(":problem \"the user's disk is full\""), "{}", host.status());
    assert!(host.status().contains(":snapshot-index 0 :snapshot-term nil"), "{}", host.status());
    *host.snapshots.lock() = Snapshots::Write;
    host.write("two");
    host.snapshot().unwrap();
    eventually("the purge", || purged(&host));
    let status = host.status();
    assert!(status.contains(":problem nil") && status.contains(":snapshot-index 2 :snapshot-term 1"), "{status}");
    assert!(status.contains(":last-problems [{:problem \"the user's disk is full\""), "{status}");
}

#[test]
fn a_snapshot_that_hangs_is_given_up_and_its_late_answers_are_harmless() {
    let (_directory, host) = start(|_| {});
    host.write("one");
    *host.snapshots.lock() = Snapshots::KeepSilent;
    let failure = host.snapshot().unwrap_err();
    assert!(failure.code == Code::StateMachine && failure.message.contains("in 300 ms"), "{failure:?}");
    assert!(host.status().contains("did not write its snapshot"), "{}", host.status());
    let (ticket, index) = host.state.lock().asked[0];
    assert_eq!(index, 1);
    for _ in 0..2 {
        assert_eq!(host.done(ticket).unwrap_err().code, Code::Invalid);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!purged(&host), "purged without a snapshot: {}", host.status());
    *host.snapshots.lock() = Snapshots::Write;
    host.write("two");
    host.snapshot().unwrap();
    let answered = host.state.lock().asked.last().unwrap().0;
    assert_eq!(host.done(answered).unwrap_err().code, Code::Invalid);
    assert!(host.status().contains(":problem nil"));
}

#[test]
fn an_automatic_snapshot_that_fails_is_tried_again_and_not_at_once() {
    let (_directory, host) = start(|config| config.snapshot_commands = 3);
    *host.snapshots.lock() = Snapshots::Refuse;
    let started = Instant::now();
    ["one", "two", "three"].iter().for_each(|one| host.write(one));
    eventually("a second attempt", || host.state.lock().asked.len() >= 2);
    let attempts = host.state.lock().asked.len();
    assert!(attempts as u128 <= 2 + started.elapsed().as_millis() / 900, "{attempts} attempts");
    *host.snapshots.lock() = Snapshots::Write;
    eventually("a snapshot", || host.status().contains(":snapshot-index 3"));
    eventually("the purge", || purged(&host));
    assert!(host.status().contains(":problem nil"));
}

#[test]
fn without_news_the_host_is_not_asked_again() {
    let (_directory, host) = start(|_| {});
    host.write("one");
    let first = host.snapshot().unwrap();
    assert_eq!(host.snapshot().unwrap(), first);
    assert_eq!(host.state.lock().asked.len(), 1);
}

#[test]
fn a_machine_without_snapshots_is_never_asked_and_keeps_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let without = |directory: &TempDir| {
        let mut config = config(directory);
        (config.snapshots, config.snapshot_commands) = (false, 2);
        Host::start(config)
    };
    let host = without(&directory);
    ["one", "two", "three", "four"].iter().for_each(|one| host.write(one));
    let failure = host.snapshot().unwrap_err();
    assert!(failure.code == Code::StateMachine && failure.message.contains("has no snapshots"), "{failure:?}");
    std::thread::sleep(Duration::from_millis(500));
    assert!(host.state.lock().asked.is_empty() && !purged(&host));
    assert!(host.status().contains(":problem nil"), "{}", host.status());
    drop(host);
    let again = without(&directory);
    eventually("the state", || again.state.lock().applied == ["one", "two", "three", "four"]);
}

#[test]
fn a_host_that_is_writing_does_not_hold_up_the_close_and_the_snapshot_comes_back_after_it() {
    let (directory, host) = start(|config| config.snapshot_timeout_ms = 60_000);
    ["one", "two"].iter().for_each(|one| host.write(one));
    host.snapshot().unwrap();
    eventually("the purge", || purged(&host));
    host.write("three");
    *host.snapshots.lock() = Snapshots::KeepSilent;
    let ticket =
        host.session.submit(quorate_engine::session::Kind::Snapshot, Default::default(), support::LONG).unwrap();
    eventually("the request", || host.state.lock().asked.len() == 2);
    let started = Instant::now();
    host.session.close();
    assert!(started.elapsed() < Duration::from_secs(4), "closing took {:?}", started.elapsed());
    assert_eq!(host.wait(ticket).unwrap_err().code, Code::Closed);
    drop(host);
    let again = Host::start(config(&directory));
    eventually("the state", || again.state.lock().applied == ["one", "two", "three"]);
    assert_eq!(again.state.lock().installed, 1);
}
