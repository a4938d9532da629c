//! Cuts append requests that are too large for the wire.

use std::collections::VecDeque;

use crate::limits::APPEND_BYTES_MAX;

use super::codec::{Request, weight};

/// `request` as requests of at most [`APPEND_BYTES_MAX`] bytes of entries each, a larger entry alone; together they
/// append the same. Each is answered for itself.
pub(super) fn split(request: Request) -> VecDeque<Request> {
    let weights: usize = request.entries.iter().map(weight).sum();
    if weights <= APPEND_BYTES_MAX {
        return VecDeque::from([request]);
    }
    let (mut pieces, mut bytes) = (VecDeque::new(), 0);
    let Request { vote, prev_log_id, leader_commit, entries } = request;
    let mut piece = Request { vote, prev_log_id, leader_commit, entries: Vec::new() };
    for entry in entries {
        if bytes + weight(&entry) > APPEND_BYTES_MAX
            && let Some(last) = piece.entries.last()
        {
            let next = Request { vote, prev_log_id: Some(last.log_id), leader_commit, entries: Vec::new() };
            pieces.push_back(std::mem::replace(&mut piece, next));
            bytes = 0;
        }
        bytes += weight(&entry);
        piece.entries.push(entry);
    }
    pieces.push_back(piece);
    pieces
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::*;
    use crate::command::Batch;
    use crate::consensus::types::{Candidate, Entry, LeaderId, LogId, Vote};

    fn request(sizes: &[usize]) -> Request {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let shared = Bytes::from(vec![0; 2 * APPEND_BYTES_MAX]);
        let entry = |(size, index): (&usize, u64)| Entry {
            log_id: LogId { leader_id, index },
            payload: EntryPayload::Normal(Batch(shared.slice(..*size))),
        };
        let entries = sizes.iter().zip(1..).map(entry).collect();
        let prev_log_id = Some(LogId { leader_id, index: 0 });
        Request {
            vote: Vote { leader_id: Candidate { term: 1, node_id: 1 }, committed: true },
            prev_log_id,
            entries,
            leader_commit: None,
        }
    }

    fn shape(sizes: &[usize]) -> Vec<(u64, usize)> {
        split(request(sizes)).iter().map(|piece| (piece.prev_log_id.unwrap().index, piece.entries.len())).collect()
    }

    #[test]
    fn small_requests_stay_whole_and_large_ones_are_cut_between_entries() {
        let third = APPEND_BYTES_MAX / 3;
        assert_eq!(shape(&[]), [(0, 0)]);
        assert_eq!(shape(&[10, 10]), [(0, 2)]);
        assert_eq!(shape(&[third; 7]), [(0, 2), (2, 2), (4, 2), (6, 1)]);
        assert_eq!(shape(&[2 * APPEND_BYTES_MAX, 1, 2 * APPEND_BYTES_MAX]), [(0, 1), (1, 1), (2, 1)]);
    }
}
