//! The records of a session's two queues ([`crate::session`] documents them) and the queue that holds them.
//!
//! Every encoder appends one whole record to a buffer, so that a burst (the outcomes of one batch, say) is encoded into
//! one buffer and enters the queue under one lock, with at most one wake-up.

mod queue;

use bytes::BufMut;

use crate::machine::{Committed, Outcome};

pub use queue::RecordQueue;

const COMPLETION: u8 = 1;
const LEADER: u8 = 2;
const LOG: u8 = 3;
const WATCH: u8 = 4;
const EVENTS_CLOSED: u8 = 5;
const DATAGRAM: u8 = 6;
const ASK: u8 = 7;
const ENTRY: u8 = 1;
const SNAPSHOT: u8 = 2;
const INSTALL: u8 = 3;
const APPLY_CLOSED: u8 = 4;

/// Bytes of the length in front of a record.
const PREFIX_BYTES: usize = 4;

/// Writes a record: its length (filled in afterwards), its type and what `fields` appends.
fn record(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    fields(out);
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Appends the COMPLETION of `ticket`: its result, or the code and sentence of its failure.
pub fn completion(out: &mut Vec<u8>, ticket: u64, outcome: &Outcome) {
    let (status, payload) = match outcome {
        Ok(result) => (0, &result[..]),
        Err(failure) => (failure.code as u8, failure.message.as_bytes()),
    };
    record(out, COMPLETION, |out| {
        out.put_u64_le(ticket);
        out.put_u8(status);
        out.put_slice(payload);
    });
}

/// Appends a LEADER event; `edn` is an EDN map.
pub fn leader(out: &mut Vec<u8>, edn: &str) {
    record(out, LEADER, |out| out.put_slice(edn.as_bytes()));
}

/// Appends a LOG line of `level` (1 error … 5 trace). A target longer than a `u16` can say is cut at a character.
pub fn log(out: &mut Vec<u8>, level: u8, target: &str, message: &str) {
    record(out, LOG, |out| {
        out.put_u8(level);
        short_text(out, target);
        out.put_slice(message.as_bytes());
    });
}

/// Appends a DATAGRAM for the server of that name.
pub fn datagram(out: &mut Vec<u8>, server: &str, datagram: &[u8]) {
    record(out, DATAGRAM, |out| {
        short_text(out, server);
        out.put_slice(datagram);
    });
}

/// Appends an ASK: the host of the server `from` asks this one.
pub fn ask(out: &mut Vec<u8>, ticket: u64, from: &str, question: &[u8]) {
    record(out, ASK, |out| {
        out.put_u64_le(ticket);
        short_text(out, from);
        out.put_slice(question);
    });
}

/// `text` with its length as a `u16`; what is longer is cut at a character.
fn short_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16_le(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

/// Appends a WATCH event of the watch `watch`; `event` is encoded as [`crate::kv::op`] says.
pub fn watch(out: &mut Vec<u8>, watch: u64, event: &[u8]) {
    record(out, WATCH, |out| {
        out.put_u64_le(watch);
        out.put_slice(event);
    });
}

/// Appends the CLOSED record of the events queue.
pub fn events_closed(out: &mut Vec<u8>) {
    record(out, EVENTS_CLOSED, |_| {});
}

/// Appends the ENTRY record of a committed command.
pub fn entry(out: &mut Vec<u8>, command: &Committed) {
    record(out, ENTRY, |out| {
        out.put_u64_le(command.index);
        out.put_u64_le(command.term);
        out.put_u64_le(command.time_ms);
        out.put_u64_le(command.seed);
        out.put_u8(u8::from(command.local));
        out.put_u64_le(command.id.node);
        out.put_u64_le(command.id.incarnation);
        out.put_u64_le(command.id.sequence);
        out.put_slice(&command.body);
    });
}

/// Appends a SNAPSHOT request: the host is to write its state as of `index` to the file `path`, then say so for `ticket`.
pub fn snapshot(out: &mut Vec<u8>, ticket: u64, index: u64, path: &str) {
    transfer(out, SNAPSHOT, ticket, index, path);
}

/// Appends an INSTALL request: the host is to replace its state by the file `path`, then say so for `ticket`.
pub fn install(out: &mut Vec<u8>, ticket: u64, index: u64, path: &str) {
    transfer(out, INSTALL, ticket, index, path);
}

fn transfer(out: &mut Vec<u8>, kind: u8, ticket: u64, index: u64, path: &str) {
    record(out, kind, |out| {
        out.put_u64_le(ticket);
        out.put_u64_le(index);
        out.put_slice(path.as_bytes());
    });
}

/// Appends the CLOSED record of the apply queue.
pub fn apply_closed(out: &mut Vec<u8>) {
    record(out, APPLY_CLOSED, |_| {});
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::Reader;
    use crate::command::CommandId;
    use crate::error::{Code, Failure};

    #[test]
    fn each_record_is_read_back_field_by_field() {
        let mut out = Vec::new();
        completion(&mut out, 7, &Err(Failure::new(Code::Timeout, "späte")));
        log(&mut out, 2, "quorate::node", "line");
        entry(
            &mut out,
            &Committed {
                id: CommandId { node: 1, incarnation: 2, sequence: 3 },
                local: true,
                index: 4,
                term: 5,
                time_ms: 6,
                seed: 7,
                body: Bytes::from_static(b"body"),
            },
        );
        install(&mut out, 8, 9, "dir/file");
        let mut reader = Reader::new(Bytes::from(out));

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!((one.u8().unwrap(), one.u64().unwrap(), one.u8().unwrap()), (1, 7, 5));
        assert_eq!(one.take(one.remaining()).unwrap(), "späte".as_bytes());

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!((one.u8().unwrap(), one.u8().unwrap()), (3, 2));
        let target = one.u16().unwrap() as usize;
        assert_eq!(one.take(target).unwrap(), "quorate::node");
        assert_eq!(one.take(one.remaining()).unwrap(), "line");

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!(one.u8().unwrap(), 1);
        assert_eq!([4, 5, 6, 7].map(|_| one.u64().unwrap()), [4, 5, 6, 7]);
        assert_eq!(one.u8().unwrap(), 1);
        assert_eq!([1, 2, 3].map(|_| one.u64().unwrap()), [1, 2, 3]);
        assert_eq!(one.take(one.remaining()).unwrap(), "body");

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!((one.u8().unwrap(), one.u64().unwrap(), one.u64().unwrap()), (3, 8, 9));
        assert_eq!(one.take(one.remaining()).unwrap(), "dir/file");
        reader.end().unwrap();
    }

    #[test]
    fn datagrams_and_questions_are_read_back_field_by_field() {
        let mut out = Vec::new();
        datagram(&mut out, "bö", b"raw");
        ask(&mut out, 9, "c", b"why?");
        let mut reader = Reader::new(Bytes::from(out));

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!((one.u8().unwrap(), one.u16().unwrap()), (6, 3));
        assert_eq!(one.take(3).unwrap(), "bö".as_bytes());
        assert_eq!(one.take(one.remaining()).unwrap(), "raw");

        let mut one = Reader::new(reader.bytes().unwrap());
        assert_eq!((one.u8().unwrap(), one.u64().unwrap(), one.u16().unwrap()), (7, 9, 1));
        assert_eq!(one.take(1).unwrap(), "c");
        assert_eq!(one.take(one.remaining()).unwrap(), "why?");
        reader.end().unwrap();
    }

    #[test]
    fn an_overlong_log_target_is_cut_between_characters() {
        let mut out = Vec::new();
        log(&mut out, 1, &"ä".repeat(40_000), "m");
        let mut reader = Reader::new(Bytes::from(out).slice(PREFIX_BYTES + 2..));
        let target = reader.u16().unwrap() as usize;
        assert_eq!(target, 65_534);
        assert_eq!(reader.remaining(), target + 1);
    }
}
