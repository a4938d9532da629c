//! Datagrams: what the host carries from one server to another.
//!
//! ```text
//! datagram := version u8 · crc32 u32 (of all that follows) · kind u8 · from · to · connection u64 · fields
//! from, to := length u8 · name in UTF-8
//!
//! OPEN   1 := window u32                                        a connection is wanted
//! ACCEPT 2 := window u32                                        and is there
//! DATA   3 := ack u64 · window u32 · offset u64 · last u8 · bytes
//! ACK    4 := ack u64 · window u32 · ranges u8 · (begin u64 · end u64)*
//! PING   5 := ack u64 · window u32                              answered by ACK
//! RESET  6 := nothing                                           there is no such connection (any more)
//! ```
//! `ack` is the offset that is expected next, `window` how many bytes from there on are taken in. The end of a stream counts
//! as one byte, so that it is acknowledged like any other.

use bytes::{Buf, BufMut, Bytes};

use crate::codec::Reader;
use crate::error::Failure;
use crate::limits::{CARRIED_DATAGRAM_BYTES_MAX, NAME_BYTES_MAX};

const VERSION: u8 = 1;
/// Version and checksum.
const PREFIX_BYTES: usize = 5;
/// All fields of a datagram but the bytes of DATA: prefix, kind, two names, connection, acknowledgement, offset, end.
const FIELDS_BYTES_MAX: usize = PREFIX_BYTES + 1 + 2 * (1 + NAME_BYTES_MAX) + 8 + 12 + 8 + 1;
/// Bytes of a stream that one datagram carries at most.
pub(super) const PAYLOAD_BYTES_MAX: usize = CARRIED_DATAGRAM_BYTES_MAX - FIELDS_BYTES_MAX;
/// Ranges that one ACK tells of.
pub(super) const RANGES_MAX: usize = 32;

/// How far one side has received, and how much more it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    /// The offset that is expected next.
    pub next: u64,
    /// Bytes from there on that there is room for.
    pub window: u32,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Open {
        window: u32,
    },
    Accept {
        window: u32,
    },
    Data {
        ack: Ack,
        offset: u64,
        last: bool,
        bytes: Bytes,
    },
    /// `early` are ranges received beyond what is expected next: begin and end, ascending.
    Ack {
        ack: Ack,
        early: Vec<(u64, u64)>,
    },
    Ping {
        ack: Ack,
    },
    Reset,
}

/// A datagram with its addressing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub from: String,
    pub to: String,
    /// The number that the side which opened the connection chose.
    pub connection: u64,
    pub packet: Packet,
}

fn put_ack(out: &mut Vec<u8>, ack: Ack) {
    out.put_u64_le(ack.next);
    out.put_u32_le(ack.window);
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    // Names are checked when the node starts.
    out.put_u8(name.len().min(NAME_BYTES_MAX) as u8);
    out.put_slice(&name.as_bytes()[..name.len().min(NAME_BYTES_MAX)]);
}

/// The bytes of a datagram.
pub(super) fn encode(from: &str, to: &str, connection: u64, packet: &Packet) -> Vec<u8> {
    let payload = if let Packet::Data { bytes, .. } = packet { bytes.len() } else { 0 };
    let mut out = Vec::with_capacity(PREFIX_BYTES + 48 + from.len() + to.len() + payload);
    out.put_u8(VERSION);
    out.put_u32_le(0);
    let kind = match packet {
        Packet::Open { .. } => 1,
        Packet::Accept { .. } => 2,
        Packet::Data { .. } => 3,
        Packet::Ack { .. } => 4,
        Packet::Ping { .. } => 5,
        Packet::Reset => 6,
    };
    out.put_u8(kind);
    put_name(&mut out, from);
    put_name(&mut out, to);
    out.put_u64_le(connection);
    put_fields(&mut out, packet);
    let checksum = crc32fast::hash(&out[PREFIX_BYTES..]);
    out[1..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn put_fields(out: &mut Vec<u8>, packet: &Packet) {
    match packet {
        Packet::Open { window } | Packet::Accept { window } => out.put_u32_le(*window),
        Packet::Data { ack, offset, last, bytes } => {
            put_ack(out, *ack);
            out.put_u64_le(*offset);
            out.put_u8(u8::from(*last));
            out.put_slice(bytes);
        }
        Packet::Ack { ack, early } => {
            put_ack(out, *ack);
            let told = &early[..early.len().min(RANGES_MAX)];
            out.put_u8(told.len() as u8);
            for (begin, end) in told {
                out.put_u64_le(*begin);
                out.put_u64_le(*end);
            }
        }
        Packet::Ping { ack } => put_ack(out, *ack),
        Packet::Reset => {}
    }
}

/// Reads a datagram. Whatever is not one of ours is `Invalid`, with why.
pub(super) fn decode(mut datagram: Bytes) -> Result<Datagram, Failure> {
    let rubbish = |why: &str| Failure::invalid(format!("This is no datagram of Quorate's transport: {why}."));
    if datagram.len() > CARRIED_DATAGRAM_BYTES_MAX {
        return Err(rubbish("it is too long"));
    }
    if datagram.len() < PREFIX_BYTES || datagram[0] != VERSION {
        return Err(rubbish("it does not begin like one"));
    }
    let checksum = datagram.slice(1..PREFIX_BYTES).get_u32_le();
    datagram.advance(PREFIX_BYTES);
    if crc32fast::hash(&datagram) != checksum {
        return Err(rubbish("its checksum is wrong"));
    }
    read(Reader::new(datagram)).map_err(|failure| rubbish(&failure.message))
}

fn read(mut reader: Reader) -> Result<Datagram, Failure> {
    let kind = reader.u8()?;
    let (from, to, connection) = (name(&mut reader)?, name(&mut reader)?, reader.u64()?);
    let packet = match kind {
        1 => Packet::Open { window: reader.u32()? },
        2 => Packet::Accept { window: reader.u32()? },
        3 => {
            let (ack, offset, last) = (ack(&mut reader)?, reader.u64()?, reader.u8()? == 1);
            let bytes = reader.take(reader.remaining())?;
            offset.checked_add(bytes.len() as u64 + 1).ok_or_else(|| Failure::invalid("its offset is impossible"))?;
            Packet::Data { ack, offset, last, bytes }
        }
        4 => {
            let (ack, ranges) = (ack(&mut reader)?, reader.u8()?);
            let early = (0..ranges).map(|_| Ok((reader.u64()?, reader.u64()?))).collect::<Result<_, Failure>>()?;
            Packet::Ack { ack, early }
        }
        5 => Packet::Ping { ack: ack(&mut reader)? },
        6 => Packet::Reset,
        other => return Err(Failure::invalid(format!("there is no kind {other}"))),
    };
    reader.end()?;
    Ok(Datagram { from, to, connection, packet })
}

fn ack(reader: &mut Reader) -> Result<Ack, Failure> {
    Ok(Ack { next: reader.u64()?, window: reader.u32()? })
}

fn name(reader: &mut Reader) -> Result<String, Failure> {
    let len = reader.u8()?;
    String::from_utf8(reader.take(len.into())?.to_vec()).map_err(|_| Failure::invalid("a name is not UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all() -> Vec<Packet> {
        let ack = Ack { next: 7, window: 8 };
        vec![
            Packet::Open { window: 1 },
            Packet::Accept { window: 2 },
            Packet::Data { ack, offset: 9, last: true, bytes: Bytes::from_static(b"bytes") },
            Packet::Ack { ack, early: vec![(10, 11), (12, 20)] },
            Packet::Ping { ack },
            Packet::Reset,
        ]
    }

    #[test]
    fn datagrams_come_back_as_they_went_and_the_largest_fits() {
        for packet in all() {
            let bytes = encode("ä", "b", 5, &packet);
            let back = decode(bytes.into()).unwrap();
            assert_eq!(back, Datagram { from: "ä".into(), to: "b".into(), connection: 5, packet });
        }
        let (name, bytes) = ("n".repeat(NAME_BYTES_MAX), Bytes::from(vec![1; PAYLOAD_BYTES_MAX]));
        let ack = Ack { next: 0, window: 0 };
        let largest = encode(&name, &name, 1, &Packet::Data { ack, offset: 0, last: false, bytes });
        assert_eq!(largest.len(), CARRIED_DATAGRAM_BYTES_MAX);
        decode(largest.into()).unwrap();
    }

    #[test]
    fn a_changed_cut_or_lengthened_datagram_is_none() {
        for packet in all() {
            let whole = encode("a", "b", 5, &packet);
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 0x40;
                assert!(decode(changed.into()).is_err(), "{packet:?} changed at {at}");
                assert!(decode(whole[..at].to_vec().into()).is_err(), "{packet:?} cut at {at}");
            }
            assert!(decode([&whole[..], b"x"].concat().into()).is_err());
        }
        assert!(decode(vec![0; CARRIED_DATAGRAM_BYTES_MAX + 1].into()).is_err());
    }

    #[test]
    fn what_is_rubbish_under_a_right_checksum_is_refused_too() {
        let ack = Ack { next: 0, window: 0 };
        let impossible = Packet::Data { ack, offset: u64::MAX, last: false, bytes: Bytes::new() };
        assert!(decode(encode("a", "b", 1, &impossible).into()).unwrap_err().message.contains("impossible"));
        let mut unknown = encode("a", "b", 1, &Packet::Reset);
        unknown[PREFIX_BYTES] = 99;
        let checksum = crc32fast::hash(&unknown[PREFIX_BYTES..]);
        unknown[1..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
        assert!(decode(unknown.into()).unwrap_err().message.contains("no kind 99"));
    }
}
