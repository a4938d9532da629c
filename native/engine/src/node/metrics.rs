//! A node's figures in Prometheus' text format.

use std::fmt::Write;

use openraft::async_runtime::WatchReceiver;

use crate::node::core::Core;
use crate::node::observer::Role;

/// All metrics; times in seconds, sizes in bytes, as Prometheus wants it.
pub fn text(core: &Core) -> String {
    let mut out = String::new();
    let view = core.leadership.borrow().clone();
    let progress = *core.applier.progress.borrow();
    let (in_flight, in_flight_bytes) = core.pending.in_flight();
    gauge(&mut out, "quorate_leader", "1 when this node leads.", u64::from(view.role == Role::Leader) as f64);
    gauge(&mut out, "quorate_term", "The present Raft term.", view.term as f64);
    gauge(&mut out, "quorate_applied_index", "Commands applied, as users count them.", progress.index as f64);
    gauge(&mut out, "quorate_snapshot_index", "Index of the newest snapshot.", progress.snapshot_index as f64);
    gauge(&mut out, "quorate_in_flight", "Submissions without an outcome.", in_flight as f64);
    gauge(&mut out, "quorate_in_flight_bytes", "Bytes of submissions without an outcome.", in_flight_bytes as f64);
    gauge(
        &mut out,
        "quorate_problems",
        "Things that are wrong now; the status says which.",
        core.problems.sentences().len() as f64,
    );
    if let Some(host) = &core.host {
        gauge(&mut out, "quorate_host_lag", "Commands that the host has and has not applied.", host.lag().1 as f64);
    }
    core.arrivals.tell(&mut out);
    carried(core, &mut out);
    consensus(core, &mut out);
    log(core, &mut out);
    out
}

fn carried(core: &Core, out: &mut String) {
    let Some(stats) = core.carried.as_ref().map(|carried| carried.stats()) else { return };
    let datagrams = "quorate_datagrams";
    counter(out, &format!("{datagrams}_sent_total"), "Datagrams given to the host to carry.", stats.sent as f64);
    counter(out, &format!("{datagrams}_dropped_total"), "Datagrams that found no room.", stats.dropped as f64);
    counter(out, &format!("{datagrams}_received_total"), "Datagrams that arrived.", stats.received as f64);
    counter(out, &format!("{datagrams}_rubbish_total"), "What arrived and was no datagram.", stats.rubbish as f64);
    gauge(out, "quorate_carried_connections", "Connections over the host's transport.", stats.connections as f64);
}

fn consensus(core: &Core, out: &mut String) {
    let Some(running) = core.running.read().clone() else { return };
    let data = running.raft.data_metrics();
    let data = data.borrow_watched();
    let number =
        |log_id: &Option<crate::consensus::types::LogId>| log_id.as_ref().map_or(0.0, |log_id| log_id.index as f64);
    gauge(out, "quorate_last_log_index", "The newest Raft entry.", number(&data.last_log));
    gauge(out, "quorate_committed_log_index", "The newest committed Raft entry.", number(&data.cluster_committed));
    gauge(out, "quorate_purged_log_index", "The newest purged Raft entry.", number(&data.purged));
}

fn log(core: &Core, out: &mut String) {
    let Some(log) = core.applier.log.lock().clone() else { return };
    let stats = log.stats();
    counter(out, "quorate_log_syncs_total", "Log writes made durable.", stats.syncs as f64);
    counter(out, "quorate_log_bytes_total", "Bytes logged.", stats.bytes as f64);
    gauge(out, "quorate_log_sync_mean_seconds", "Mean time of a log sync.", stats.sync_mean_us as f64 / 1e6);
    gauge(out, "quorate_log_sync_max_seconds", "Longest log sync.", stats.sync_max_us as f64 / 1e6);
}

fn gauge(out: &mut String, name: &str, help: &str, value: f64) {
    sample(out, name, help, "gauge", value);
}

fn counter(out: &mut String, name: &str, help: &str, value: f64) {
    sample(out, name, help, "counter", value);
}

fn sample(out: &mut String, name: &str, help: &str, kind: &str, value: f64) {
    // Writing to a String cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}
