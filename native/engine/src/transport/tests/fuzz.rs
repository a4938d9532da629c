//! Damaged frames and handshakes.

use std::io::Cursor;

use bytes::BufMut;
use quorate_fuzz::{Allowance, fuzz};

use super::*;
use crate::codec::Reader;
use crate::limits::{HANDSHAKE_FRAME_BYTES_MAX, INTRODUCTION_FRAME_BYTES_MAX};
use crate::transport::frame::{FrameReader, decode_outcome};
use crate::transport::handshake::{introduce, receive};
use crate::transport::wire::Duplex;

/// Buffers of a connection; a frame's length is believed up to the limit of its connection.
const BUFFERS: u64 = 256 << 10;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn connection(input: Vec<u8>) -> Duplex {
    Duplex { reader: Box::new(Cursor::new(input)), writer: Box::new(tokio::io::sink()), remote: "peer".into() }
}

fn hellos() -> Vec<Vec<u8>> {
    (1..=3).map(|purpose| hostile::hello(1, 1, purpose)).collect()
}

#[test]
fn fuzz_frames() {
    let allowed = Allowance { fixed: BUFFERS + INTRODUCTION_FRAME_BYTES_MAX as u64, per_byte: 4 };
    let frames: Vec<u8> = (0..20).flat_map(|kind| hostile::framed(&[kind, 0, 0, kind, 1, 2, 3])).collect();
    let runtime = runtime();
    fuzz("frames", &[frames, hellos().concat()], &[], allowed, |input| {
        let mut reader = FrameReader::new(Box::new(Cursor::new(input)), HANDSHAKE_FRAME_BYTES_MAX, "peer".into());
        reader.admit(0, INTRODUCTION_FRAME_BYTES_MAX);
        while let Ok(Some(frame)) = runtime.block_on(reader.next()) {
            drop(decode_outcome(Reader::new(frame.body)));
        }
    });
}

#[test]
fn fuzz_the_handshake_of_a_client() {
    let allowed = Allowance { fixed: BUFFERS, per_byte: 8 };
    let (runtime, me) = (runtime(), identity(1, Some(7)));
    fuzz("hello", &hellos(), &["QRTP"], allowed, |input| {
        drop(runtime.block_on(receive(connection(input), &me, SOON)));
    });
}

#[test]
fn fuzz_the_answer_of_a_server() {
    let allowed = Allowance { fixed: BUFFERS, per_byte: 8 };
    let mut welcome = vec![2, 0, 0, 1, 0, 1];
    welcome.extend_from_slice(&[7; 16]);
    welcome.put_u64_le(1);
    welcome.extend_from_slice(b"\x07\0\0\0server1");
    let refused = [&[3, 0, 0, 11][..], b"The peer has its reasons."].concat();
    let samples = [hostile::framed(&welcome), hostile::framed(&refused)];
    let (runtime, me) = (runtime(), identity(2, Some(7)));
    fuzz("welcome", &samples, &[], allowed, |input| {
        drop(runtime.block_on(introduce(connection(input), &me, Some(1), Purpose::Append, SOON)));
    });
}
