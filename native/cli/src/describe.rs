//! Log entries as text for a person: a line an entry, and below it a line a command.

use std::fmt::Write;

use quorate_engine::consensus::types::{Entry, Membership, Payload};
use quorate_engine::kv::op::{Condition, Guard, Txn, Write as Change};
use quorate_engine::{Command, Failure};

/// Characters of a key, a value or a body that are shown.
const SHOWN_CHARACTERS: usize = 100;
/// Bytes of a body that is no text that are shown.
const SHOWN_BYTES: usize = 24;

/// `entry` as lines; `store` says whether commands are those of the key-value store. Fails with `Corrupt` when it cannot be
/// taken apart.
pub fn entry(entry: &Entry, store: bool) -> Result<String, Failure> {
    let mut out = format!("{} term {} ", entry.log_id.index, entry.log_id.leader_id.term);
    match &entry.payload {
        Payload::Blank => out.push_str("blank\n"),
        Payload::Membership(membership) => {
            out.push_str(&members(membership));
            out.push('\n');
        }
        Payload::Normal(batch) => {
            let decoded = batch.decode()?;
            let (commands, bytes, time) = (decoded.commands.len(), batch.0.len(), decoded.time_ms);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "batch of {commands} commands, {bytes} bytes, time {time} ms");
            for command in &decoded.commands {
                let _ = writeln!(out, "  {} {} bytes: {}", command.id, command.body.len(), body(command, store));
            }
        }
    }
    Ok(out)
}

fn members(membership: &Membership) -> String {
    let name = |id: &u64| {
        let member = membership.get_node(id).filter(|member| !member.name.is_empty());
        member.map_or(format!("{id:x}"), |member| format!("{} ({id:x}) {}", member.name, member.address).trim().into())
    };
    let list = |ids: Vec<u64>| ids.iter().map(name).collect::<Vec<_>>().join(", ");
    let voters: Vec<String> =
        membership.get_joint_config().iter().map(|ids| format!("[{}]", list(ids.iter().copied().collect()))).collect();
    let learners: Vec<u64> = membership.learner_ids().collect();
    let learners = if learners.is_empty() { String::new() } else { format!(", learners [{}]", list(learners)) };
    format!("membership: voters {}{learners}", voters.join(" and "))
}

fn body(command: &Command, store: bool) -> String {
    if store && let Ok(txn) = Txn::decode(command.body.clone()) {
        return transaction(&txn);
    }
    text(&command.body)
}

fn transaction(txn: &Txn) -> String {
    let guards: Vec<String> = txn.guards.iter().map(guard).collect();
    let list = |changes: &[Change]| changes.iter().map(change).collect::<Vec<_>>().join(", ");
    match (guards.is_empty(), txn.else_writes.is_empty()) {
        (true, _) => list(&txn.writes),
        (false, true) => format!("if {} then {}", guards.join(" and "), list(&txn.writes)),
        (false, false) => {
            format!("if {} then {} else {}", guards.join(" and "), list(&txn.writes), list(&txn.else_writes))
        }
    }
}

fn guard(guard: &Guard) -> String {
    let key = text(&guard.key);
    match &guard.condition {
        Condition::Exists => format!("{key} exists"),
        Condition::Absent => format!("{key} is absent"),
        Condition::Value(value) => format!("{key} is {}", text(value)),
        Condition::ModRevision(revision) => format!("{key} changed at {revision}"),
        Condition::CreateRevision(revision) => format!("{key} created at {revision}"),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Put { key, value } => format!("put {} {}", text(key), text(value)),
        Change::Delete { key } => format!("delete {}", text(key)),
    }
}

/// Text, quoted, or else the bytes as hexadecimal digits; either cut off where it gets long.
fn text(data: &[u8]) -> String {
    let printable = std::str::from_utf8(data).ok();
    match printable.filter(|text| text.chars().all(|character| !character.is_control() || character.is_whitespace())) {
        Some(text) => {
            let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            shown = format!("{shown:?}{more}");
            shown
        }
        None => {
            let hex: String = data.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
            format!("0x{hex}{}", if data.len() > SHOWN_BYTES { "…" } else { "" })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use quorate_engine::CommandId;

    fn shown(body: Vec<u8>, store: bool) -> String {
        let id = CommandId { node: 0xab, incarnation: 2, sequence: 3 };
        super::body(&Command { id, low_water: 1, body: body.into() }, store)
    }

    #[test]
    fn commands_of_the_store_are_shown_as_what_they_do() {
        let condition = Condition::Value("old".into());
        assert_eq!(shown(Txn::put("k", "v").encode().unwrap(), true), "put \"k\" \"v\"");
        let guarded = Txn::put_if("k", condition, "new").encode().unwrap();
        assert_eq!(shown(guarded, true), "if \"k\" is \"old\" then put \"k\" \"new\"");
        assert_eq!(shown(Txn::delete(vec![0, 255]).encode().unwrap(), true), "delete 0x00ff");
    }

    #[test]
    fn other_commands_are_shown_as_text_or_bytes_and_not_at_any_length() {
        assert_eq!(shown(b"{:op :set}".to_vec(), false), "\"{:op :set}\"");
        assert_eq!(shown(vec![7; 30], false), format!("0x{}…", "07".repeat(24)));
        let long = shown("é".repeat(500).into_bytes(), true);
        assert_eq!(long.chars().count(), SHOWN_CHARACTERS + 3);
    }
}
