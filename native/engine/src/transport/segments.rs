//! Bytes that wait to be written: small pieces are copied together, large ones are kept shared.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces of at least this many bytes are not copied: below it, copying is cheaper than another slice in the write.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// A queue of bytes made of shared slices and one growing tail; written out with vectored writes.
#[derive(Debug, Default)]
pub(super) struct Segments {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Segments {
    /// Copies `data` to the end.
    pub(super) fn put(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(data);
        self.len += data.len();
    }

    /// Appends `data` without copying it when it is large.
    pub(super) fn put_shared(&mut self, data: &Bytes) {
        if data.len() < SHARED_BYTES_MIN {
            return self.put(data);
        }
        if !self.tail.is_empty() {
            self.sealed.push_back(self.tail.split().freeze());
        }
        self.len += data.len();
        self.sealed.push_back(data.clone());
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.sealed.front().map_or(&self.tail[..], |first| first)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let pieces = self.sealed.iter().map(|piece| &piece[..]).chain(tail);
        out.iter_mut().zip(pieces).map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, count: usize) {
        let mut left = count;
        self.len -= count;
        while let Some(first) = self.sealed.front_mut() {
            if left < first.len() {
                return first.advance(left);
            }
            left -= first.len();
            self.sealed.pop_front();
        }
        self.tail.advance(left);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filled() -> (Segments, Vec<u8>) {
        let large = Bytes::from(vec![7u8; SHARED_BYTES_MIN]);
        let mut segments = Segments::default();
        segments.put(b"ab");
        segments.put_shared(&large);
        segments.put_shared(&Bytes::from_static(b"cd"));
        segments.put_shared(&large);
        segments.put(b"e");
        let flat = [&b"ab"[..], &large, b"cd", &large, b"e"].concat();
        (segments, flat)
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_whatever_the_step() {
        for step in [1, 3, 1000, 5000, 100_000] {
            let (mut segments, flat) = filled();
            let mut seen = Vec::new();
            while segments.has_remaining() {
                let take = step.min(segments.chunk().len());
                seen.extend_from_slice(&segments.chunk()[..take]);
                segments.advance(take);
            }
            assert_eq!(seen, flat, "step {step}");
        }
    }

    #[test]
    fn a_vectored_write_sees_every_piece_and_may_stop_anywhere() {
        for cut in [0, 1, 2, 3, 4098, 4099, 8196, 8197] {
            let (mut segments, flat) = filled();
            segments.advance(cut);
            let mut slots = [IoSlice::new(&[]); 8];
            let used = segments.chunks_vectored(&mut slots);
            let seen: Vec<u8> = slots[..used].iter().flat_map(|slot| slot.to_vec()).collect();
            assert_eq!(seen, flat[cut..], "cut {cut}");
        }
    }

    #[test]
    fn a_large_piece_is_not_copied() {
        let large = Bytes::from(vec![1u8; SHARED_BYTES_MIN]);
        let mut segments = Segments::default();
        segments.put_shared(&large);
        assert_eq!(segments.chunk().as_ptr(), large.as_ptr());
    }
}
