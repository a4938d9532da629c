//! A node's status as an EDN map: what it is, how far it is, and what is wrong with it.

use std::fmt::Write;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;

use crate::node::bootstrap::short;
use crate::node::core::Core;
use crate::node::observer::LeaderEvent;
use crate::node::view::Leader;

/// Writes EDN maps with keyword keys.
#[derive(Default)]
pub struct Edn(String);

impl Edn {
    /// An open map.
    pub fn map() -> Edn {
        Edn("{".into())
    }

    /// `:key value`, the value being EDN already.
    pub fn raw(mut self, key: &str, value: impl std::fmt::Display) -> Edn {
        if self.0.len() > 1 {
            self.0.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = write!(self.0, ":{key} {value}");
        self
    }

    /// `:key "text"`.
    pub fn text(self, key: &str, value: &str) -> Edn {
        let quoted = quote(value);
        self.raw(key, quoted)
    }

    /// `:key "text"` or `:key nil`.
    pub fn text_or_nil(self, key: &str, value: Option<&str>) -> Edn {
        match value {
            Some(value) => self.text(key, value),
            None => self.raw(key, "nil"),
        }
    }

    /// `:key number` or `:key nil`.
    pub fn number_or_nil(self, key: &str, value: Option<u64>) -> Edn {
        match value {
            Some(value) => self.raw(key, value),
            None => self.raw(key, "nil"),
        }
    }

    /// The closed map.
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Text as an EDN string. EDN knows `\t \r \n \\ \"`; other characters stand for themselves.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The status of a node.
pub fn status(core: &Core) -> String {
    let identity = core.identity.read().clone();
    let view = core.leadership.borrow().clone();
    let progress = *core.applier.progress.borrow();
    let (in_flight, in_flight_bytes) = core.pending.in_flight();
    let leader_address = match &view.leader {
        Some(Leader::Me) => Some(core.config.address()),
        Some(Leader::Other { address, .. }) => Some(address.as_str()),
        None => None,
    };
    let edn = Edn::map()
        .text("name", &core.config.name)
        .raw("id", quote(&format!("{:x}", identity.node)))
        .raw("incarnation", identity.incarnation)
        .text_or_nil("cluster-id", identity.cluster.as_ref().map(short).as_deref())
        .raw("role", format_args!(":{}", if core.is_closing() { "closed" } else { view.role.name() }))
        .raw("term", view.term)
        .text_or_nil("leader", view.leader_name())
        .text_or_nil("leader-address", leader_address)
        .raw("index", visible_index(core))
        .text_or_nil("voted-for", voted_for(core).as_deref())
        .raw("snapshot-index", progress.snapshot_index)
        .number_or_nil("snapshot-term", progress.snapshot_log_id.map(|log_id| log_id.leader_id.term))
        .raw("in-flight", in_flight)
        .raw("in-flight-bytes", in_flight_bytes)
        .raw("requests", core.requests.len());
    let edn = consensus(core, edn);
    let edn = problems(core, edn);
    edn.raw("election", election(core)).raw("fsync", fsync(core)).raw("peers", peers(core)).end()
}

/// The user-visible index up to which results are out: a hosted machine's own, where there is one.
fn visible_index(core: &Core) -> u64 {
    match &core.host {
        Some(_) => *core.host_applied.borrow(),
        None => core.applier.progress.borrow().index,
    }
}

fn consensus(core: &Core, edn: Edn) -> Edn {
    let progress = *core.applier.progress.borrow();
    let handed_lag = core.host.as_ref().map_or(0, |host| host.lag().1 as u64);
    let Some(running) = core.running.read().clone() else {
        return edn.raw("members", "[]").raw("apply-lag", handed_lag);
    };
    let data = running.raft.data_metrics();
    let data = data.borrow_watched().clone();
    let committed = data.cluster_committed.map(|log_id| log_id.index);
    let behind = committed.map_or(0, |committed| (committed + 1).saturating_sub(progress.next_log_index));
    edn.number_or_nil("last-log-index", data.last_log.map(|log_id| log_id.index))
        .number_or_nil("committed-index", committed)
        .raw("applied-log-index", progress.next_log_index.saturating_sub(1))
        .number_or_nil("purged-log-index", data.purged.map(|log_id| log_id.index))
        .number_or_nil("log-first-index", data.last_log.map(|_| data.purged.map_or(0, |log_id| log_id.index + 1)))
        .raw("apply-lag", behind + handed_lag)
        .number_or_nil("quorum-ack-ms", data.last_quorum_acked.as_deref().map(|at| at.elapsed().as_millis() as u64))
        .raw("members", members(&running.raft, &data))
}

/// Name of the server that has this node's vote in the present term: the leader it follows, or who it stands for.
fn voted_for(core: &Core) -> Option<String> {
    let running = core.running.read().clone()?;
    let metrics = running.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let vote = &metrics.vote.leader_id;
    if vote.term == 0 {
        return None;
    }
    if vote.node_id == metrics.id {
        return Some(core.config.name.clone());
    }
    metrics.membership_config.get_node(&vote.node_id).map(|member| member.name.clone())
}

/// Only a leader has `:matched-log-index` and `:next-index`; openraft shows no more than how far a member matches, so the
/// next index is the one after that.
fn members(
    raft: &crate::node::adapter::RaftNode,
    data: &openraft::metrics::RaftDataMetrics<crate::consensus::types::TypeConfig>,
) -> String {
    let server = raft.server_metrics();
    let membership = server.borrow_watched().membership_config.clone();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let mut all: Vec<String> = Vec::new();
    for (id, member) in membership.nodes() {
        let matched = data.replication.as_ref().and_then(|replication| replication.get(id).copied().flatten());
        let edn = Edn::map()
            .text("name", &member.name)
            .text("id", &format!("{id:x}"))
            .text("address", &member.address)
            .raw("voter", voters.contains(id))
            .number_or_nil("matched-log-index", matched.map(|log_id| log_id.index))
            .number_or_nil(
                "next-index",
                data.replication.as_ref().map(|_| matched.map_or(0, |log_id| log_id.index + 1)),
            );
        all.push(edn.end());
    }
    format!("[{}]", all.join(" "))
}

fn problems(core: &Core, edn: Edn) -> Edn {
    let mut sentences = core.problems.sentences();
    sentences.extend(core.host.as_ref().and_then(|host| host.overdue()));
    let problem = (!sentences.is_empty()).then(|| sentences.join(" "));
    let waiting = core.waiting_for.lock().clone();
    let past = core
        .problems
        .past()
        .into_iter()
        .map(|(message, age)| Edn::map().text("problem", &message).raw("ms-ago", age.as_millis()).end());
    edn.text_or_nil("problem", problem.as_deref())
        .raw("last-problems", format_args!("[{}]", past.collect::<Vec<_>>().join(" ")))
        .text_or_nil("waiting-for", waiting.as_deref())
}

fn election(core: &Core) -> String {
    match &*core.last_election.lock() {
        Some((cause, term, at)) => Edn::map()
            .raw("cause", format_args!(":{cause}"))
            .raw("term", term)
            .raw("ms-ago", at.elapsed().as_millis())
            .end(),
        None => "nil".into(),
    }
}

fn fsync(core: &Core) -> String {
    match &*core.applier.log.lock() {
        Some(log) => {
            let stats = log.stats();
            Edn::map()
                .raw("count", stats.syncs)
                .raw("entries", stats.entries)
                .raw("bytes", stats.bytes)
                .raw("last-us", stats.sync_last_us)
                .raw("mean-us", stats.sync_mean_us)
                .raw("max-us", stats.sync_max_us)
                .end()
        }
        None => "nil".into(),
    }
}

fn peers(core: &Core) -> String {
    let stats = core.peers.stats();
    let all = stats.iter().map(|peer| {
        Edn::map()
            .text("address", &peer.address)
            .raw("connected", peer.connected)
            .number_or_nil("round-trip-us", peer.round_trip_us)
            .text_or_nil("last-error", peer.last_error.as_deref())
            .end()
    });
    format!("[{}]", all.collect::<Vec<_>>().join(" "))
}

/// A leader event as an EDN map.
pub fn leader_event(server: &str, event: &LeaderEvent) -> String {
    let kind = match (event.old_role, event.new_role) {
        (old, new) if old == new => "leader-change",
        (_, crate::node::observer::Role::Leader) => "become-leader",
        (_, crate::node::observer::Role::Follower | crate::node::observer::Role::Learner) => "become-follower",
        _ => "role-change",
    };
    Edn::map()
        .raw("event", format_args!(":{kind}"))
        .raw("cause", format_args!(":{}", event.cause))
        .text_or_nil("old-leader", event.old_leader.as_deref())
        .text_or_nil("new-leader", event.new_leader.as_deref())
        .text("server", server)
        .raw("term", event.term)
        .raw("old-role", format_args!(":{}", event.old_role.name()))
        .raw("role", format_args!(":{}", event.new_role.name()))
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_so_that_edn_reads_it_back() {
        assert_eq!(quote("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
        assert_eq!(Edn::map().text("a", "b").raw("c", 1).text_or_nil("d", None).end(), r#"{:a "b" :c 1 :d nil}"#);
    }
}
