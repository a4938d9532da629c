//! The handshake: who talks to whom, in which protocol, about what.
//!
//! The first frame of a connection is the client's HELLO; the answer is WELCOME, or REFUSED with a sentence. The start of
//! HELLO (magic, version range) and the whole of REFUSED never change, so that releases that do not understand each other
//! can say so.
//!
//! ```text
//! HELLO   := "QRTP" · min u16 · max u16 · cluster · node u64 · name text · address text · to · purpose u8
//! WELCOME := version u16 · cluster · node u64 · name text
//! REFUSED := code u8 · sentence in UTF-8
//! cluster := 0 u8 | 1 u8 · 16 bytes
//! to      := 0 u8 | 1 u8 · node u64            the node that the client means to talk to
//! text    := length u32 · UTF-8
//! ```

use std::fmt::Write;

use bytes::{BufMut, Bytes};
use tokio::time::{Duration, timeout};

use crate::codec::{Reader, put_bytes};
use crate::error::{Code, Failure};
use crate::limits::{FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, INTRODUCTION_FRAME_BYTES_MAX};

use super::frame::{Frame, FrameReader, FrameSink, code, kind};
use super::wire::Duplex;

/// Oldest protocol version that this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol version that this release speaks.
pub const PROTOCOL_MAX: u16 = 1;

const MAGIC: &[u8; 4] = b"QRTP";

/// Who a node is, to others. Asked for anew at every handshake, for a node gets its cluster id while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to; `None` for a node that has not joined one yet.
    pub cluster: Option<[u8; 16]>,
    /// The Raft group.
    pub group: u16,
    /// Its Raft id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Requests and their answers, many at a time.
    Calls = 1,
    /// A stream of append requests one way, of their answers the other.
    Append = 2,
    /// One snapshot.
    Snapshot = 3,
}

/// The other side of an accepted connection, as it introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its Raft id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Where it says that it listens.
    pub address: String,
    /// Its cluster; `None` for a node that has not joined one yet.
    pub cluster: Option<[u8; 16]>,
    /// False when both sides are of the same cluster; true when one of them has none yet, so that only introductions
    /// (call kinds below [`super::MEMBER_CALLS_FROM`]) are served.
    pub stranger: bool,
}

/// What the server says of itself in WELCOME.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub cluster: Option<[u8; 16]>,
    pub node: u64,
    pub name: String,
}

struct Hello {
    max: u16,
    from: Identity,
    to: Option<u64>,
    purpose: Purpose,
}

/// The largest frame of a connection between strangers, or between members.
fn frame_max(stranger: bool) -> usize {
    if stranger { INTRODUCTION_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX }
}

/// True unless both sides are known to be of one cluster.
pub(super) fn strangers(one: Option<[u8; 16]>, other: Option<[u8; 16]>) -> bool {
    one.is_none() || one != other
}

/// Introduces `me` over `connection`. Fails with `Refused` (or the code that the server gave) and its sentence, with
/// `Timeout` when it does not answer `within` the time, with `Unavailable` when the connection breaks.
pub(super) async fn introduce(
    connection: Duplex,
    me: &Identity,
    to: Option<u64>,
    purpose: Purpose,
    within: Duration,
) -> Result<(FrameReader, FrameSink, Host), Failure> {
    let remote = connection.remote;
    let mut reader = FrameReader::new(connection.reader, HANDSHAKE_FRAME_BYTES_MAX, remote.clone());
    let mut sink = FrameSink::new(connection.writer, me.group, HANDSHAKE_FRAME_BYTES_MAX, remote.clone());
    sink.push(kind::HELLO, &[hello(me, to, purpose)])?;
    let talk = async {
        sink.flush().await?;
        reader.next_of_any_group().await
    };
    let answer = match timeout(within, talk).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Failure::new(Code::Timeout, silent(&remote, within))),
    };
    let host = match answer {
        Some((_, Frame { kind: kind::WELCOME, body })) => read_welcome(body)?,
        Some((_, Frame { kind: kind::REFUSED, body })) => return Err(read_refusal(&body)),
        Some(_) => {
            return Err(Failure::new(Code::Refused, format!("{remote} does not speak Quorate's protocol.")));
        }
        None => {
            return Err(Failure::new(Code::Unavailable, format!("{remote} closed the connection unanswered.")));
        }
    };
    check_host(me, to, &host, &remote)?;
    let max = frame_max(strangers(me.cluster, host.cluster));
    reader.admit(me.group, max);
    sink.admit(max);
    Ok((reader, sink, host))
}

fn silent(remote: &str, within: Duration) -> String {
    format!("{remote} did not answer the handshake within {} ms.", within.as_millis())
}

/// The server checks as much; a client does not rely on it.
fn check_host(me: &Identity, to: Option<u64>, host: &Host, remote: &str) -> Result<(), Failure> {
    if let (Some(mine), Some(theirs)) = (me.cluster, host.cluster)
        && mine != theirs
    {
        return Err(other_cluster(&host.name, theirs, &me.name, mine));
    }
    match to {
        Some(to) if to != host.node => Err(wrong_node(remote, &host.name, host.node, to)),
        _ => Ok(()),
    }
}

/// Receives a client on `connection` as `me`, and answers it. Fails as the client does; whatever the reason, the
/// connection is then of no more use.
pub(super) async fn receive(
    connection: Duplex,
    me: &Identity,
    within: Duration,
) -> Result<(FrameReader, FrameSink, Peer, Purpose), Failure> {
    let remote = connection.remote;
    let mut reader = FrameReader::new(connection.reader, HANDSHAKE_FRAME_BYTES_MAX, remote.clone());
    let mut sink = FrameSink::new(connection.writer, me.group, HANDSHAKE_FRAME_BYTES_MAX, remote.clone());
    let talk = async {
        let frame = reader.next_of_any_group().await?;
        match judge(frame, me, &remote) {
            Ok(hello) => {
                sink.push(kind::WELCOME, &[welcome(me, hello.max.min(PROTOCOL_MAX))])?;
                sink.flush().await?;
                Ok(hello)
            }
            Err(failure) => {
                refuse(&mut sink, &failure)?;
                sink.flush().await?;
                Err(failure)
            }
        }
    };
    let hello = match timeout(within, talk).await {
        Ok(hello) => hello?,
        Err(_) => return Err(Failure::new(Code::Timeout, silent(&remote, within))),
    };
    let Identity { cluster, node, name, address, .. } = hello.from;
    let stranger = strangers(me.cluster, cluster);
    reader.admit(me.group, frame_max(stranger));
    sink.admit(frame_max(stranger));
    Ok((reader, sink, Peer { node, name, address, cluster, stranger }, hello.purpose))
}

/// Queues a refusal.
pub(super) fn refuse(sink: &mut FrameSink, failure: &Failure) -> Result<(), Failure> {
    let sentence = Bytes::from(failure.message.clone());
    sink.push(kind::REFUSED, &[Bytes::copy_from_slice(&[failure.code as u8]), sentence])
}

fn judge(frame: Option<(u16, Frame)>, me: &Identity, remote: &str) -> Result<Hello, Failure> {
    let (group, body) = match frame {
        Some((group, Frame { kind: kind::HELLO, body })) => (group, body),
        Some(_) => {
            return Err(Failure::new(Code::Refused, format!("{remote} did not begin with a handshake.")));
        }
        None => {
            return Err(Failure::new(Code::Unavailable, format!("{remote} closed the connection in silence.")));
        }
    };
    let hello = read_hello(body, group, me, remote)?;
    if let (Some(mine), Some(theirs)) = (me.cluster, hello.from.cluster)
        && mine != theirs
    {
        return Err(other_cluster(&me.name, mine, &hello.from.name, theirs));
    }
    if group != me.group {
        let message = format!("Node \"{}\" does not host group {group}.", me.name);
        return Err(Failure::new(Code::Refused, message));
    }
    if let Some(to) = hello.to
        && to != me.node
    {
        return Err(wrong_node(&me.address, &me.name, me.node, to));
    }
    match hello.purpose {
        Purpose::Calls => Ok(hello),
        Purpose::Append | Purpose::Snapshot => members_only(hello, me),
    }
}

fn members_only(hello: Hello, me: &Identity) -> Result<Hello, Failure> {
    let (mine, theirs) = (&me.name, &hello.from.name);
    let message = match (me.cluster, hello.from.cluster, hello.to) {
        (Some(_), Some(_), Some(_)) => return Ok(hello),
        (None, _, _) => format!("Node \"{mine}\" has not joined a cluster yet and takes no entries from \"{theirs}\"."),
        (_, None, _) => format!("Node \"{theirs}\" has not joined the cluster of \"{mine}\" and may not send entries."),
        _ => format!("Node \"{theirs}\" did not say which node it means to send entries to."),
    };
    Err(Failure::new(Code::Refused, message))
}

fn other_cluster(node: &str, its: [u8; 16], asking: &str, theirs: [u8; 16]) -> Failure {
    let message = format!(
        "Node \"{node}\" belongs to another cluster: it is of {}, node \"{asking}\" is of {}.",
        hex(&its),
        hex(&theirs)
    );
    Failure::new(Code::Refused, message)
}

fn wrong_node(address: &str, name: &str, id: u64, wanted: u64) -> Failure {
    let message = format!("At {address} answers node \"{name}\" ({id:x}), not the node {wanted:x} that was meant.");
    Failure::new(Code::Refused, message)
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn put_cluster(out: &mut Vec<u8>, cluster: Option<[u8; 16]>) {
    out.put_u8(cluster.is_some() as u8);
    out.put_slice(cluster.as_ref().map_or(&[], |id| &id[..]));
}

fn get_flag(reader: &mut Reader) -> Result<bool, Failure> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::new(Code::Corrupt, format!("A flag of {other}."))),
    }
}

fn get_cluster(reader: &mut Reader) -> Result<Option<[u8; 16]>, Failure> {
    if !get_flag(reader)? {
        return Ok(None);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&reader.take(16)?);
    Ok(Some(id))
}

fn hello(me: &Identity, to: Option<u64>, purpose: Purpose) -> Bytes {
    let mut out = Vec::with_capacity(64 + me.name.len() + me.address.len());
    out.put_slice(MAGIC);
    out.put_u16_le(PROTOCOL_MIN);
    out.put_u16_le(PROTOCOL_MAX);
    put_cluster(&mut out, me.cluster);
    out.put_u64_le(me.node);
    put_bytes(&mut out, me.name.as_bytes());
    put_bytes(&mut out, me.address.as_bytes());
    out.put_u8(to.is_some() as u8);
    to.into_iter().for_each(|to| out.put_u64_le(to));
    out.put_u8(purpose as u8);
    Bytes::from(out)
}

fn read_hello(body: Bytes, group: u16, me: &Identity, remote: &str) -> Result<Hello, Failure> {
    let stranger = || Failure::new(Code::Refused, format!("{remote} does not speak Quorate's protocol."));
    let mut reader = Reader::new(body);
    if reader.take(MAGIC.len()).map_err(|_| stranger())? != MAGIC[..] {
        return Err(stranger());
    }
    let (min, max) = (reader.u16().map_err(|_| stranger())?, reader.u16().map_err(|_| stranger())?);
    if min > PROTOCOL_MAX || max < PROTOCOL_MIN {
        let message = format!(
            "Node \"{}\" speaks versions {PROTOCOL_MIN} to {PROTOCOL_MAX} of the protocol, {remote} speaks {min} to \
             {max}: bring both nodes to releases that understand each other.",
            me.name
        );
        return Err(Failure::new(Code::Refused, message));
    }
    read_hello_rest(&mut reader, group, max)
        .map_err(|failure| Failure::new(Code::Refused, format!("{remote} sent a damaged handshake: {failure}")))
}

fn read_hello_rest(reader: &mut Reader, group: u16, max: u16) -> Result<Hello, Failure> {
    let cluster = get_cluster(reader)?;
    let from = Identity { cluster, group, node: reader.u64()?, name: reader.text()?, address: reader.text()? };
    let to = if get_flag(reader)? { Some(reader.u64()?) } else { None };
    let purpose = match reader.u8()? {
        1 => Purpose::Calls,
        2 => Purpose::Append,
        3 => Purpose::Snapshot,
        other => {
            return Err(Failure::new(Code::Corrupt, format!("There is no purpose {other}.")));
        }
    };
    // A later release of the same protocol may add to the end.
    Ok(Hello { max, from, to, purpose })
}

fn welcome(me: &Identity, version: u16) -> Bytes {
    let mut out = Vec::with_capacity(64 + me.name.len());
    out.put_u16_le(version);
    put_cluster(&mut out, me.cluster);
    out.put_u64_le(me.node);
    put_bytes(&mut out, me.name.as_bytes());
    Bytes::from(out)
}

fn read_welcome(body: Bytes) -> Result<Host, Failure> {
    let mut reader = Reader::new(body);
    let version = reader.u16()?;
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&version) {
        return Err(Failure::new(Code::Refused, format!("The peer chose version {version} of the protocol.")));
    }
    Ok(Host { cluster: get_cluster(&mut reader)?, node: reader.u64()?, name: reader.text()? })
}

fn read_refusal(body: &Bytes) -> Failure {
    match body.split_first() {
        Some((number, sentence)) => Failure::new(code(*number), String::from_utf8_lossy(sentence)),
        None => Failure::new(Code::Refused, "The peer refused the connection without a reason."),
    }
}
