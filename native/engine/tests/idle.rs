//! What waits, waits quietly. Alone in its file: it measures the whole process.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Cluster, eventually};

/// Seconds of processor time that this process has used.
fn used() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn a_member_that_listens_but_cannot_run_keeps_nobody_busy() {
    let mut cluster = Cluster::start_all(&["a", "b", "c"]);
    cluster.put("a", "k", "v").unwrap();
    let lost = cluster.follower();
    cluster.stop(&lost);
    std::fs::remove_dir_all(cluster.data_dir(&lost).join("group-0/log")).unwrap();
    cluster.start(&lost);
    eventually("the refusal", || cluster.node(&lost).status().contains("The log of this node is gone"));
    cluster.put(&cluster.leader_of_the_others(&lost), "k", "more").unwrap();
    let (before, span) = (used(), Duration::from_secs(4));
    std::thread::sleep(span);
    let share = (used() - before) / span.as_secs_f64();
    assert!(share < 0.25, "{:.0} % of a processor", share * 100.0);
}
