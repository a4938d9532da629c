//! Which log files hold what, so that files are given back only when nothing would have to be rewritten first.
//!
//! raft-engine's purge rewrites what still lives in the oldest 70 % of the files into a second queue; indexes that
//! point into purged files after such a rewrite have been seen (tikv#17383, cause unknown). So purging is asked for
//! only when everything up to that mark is dead: then it merely drops files. The price is disk: at most about 3.4
//! times what lives.

use std::collections::VecDeque;
use std::path::Path;

const SUFFIX: &str = ".raftlog";
/// The share of files, from the oldest, that raft-engine's purge wants to be free of living data.
const REWRITE_RATIO: f64 = 0.7;

/// The number of the log file at `path`; nothing for files of any other kind.
pub(super) fn append_seq(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The name of log file number `seq`.
pub(super) fn append_name(seq: u64) -> String {
    format!("{seq:016}{SUFFIX}")
}

/// The log files in use, from the oldest.
#[derive(Debug)]
pub(super) struct Ledger {
    first: u64,
    /// Of each file, the highest index of an entry that was written to it.
    highest: VecDeque<Option<u64>>,
    file_bytes: u64,
    purge_bytes: u64,
}

impl Ledger {
    /// Files from `first` on are there, with entries up to the indexes `highest` at most.
    pub fn new(first: u64, highest: Vec<Option<u64>>, file_bytes: u64, purge_bytes: u64) -> Ledger {
        Ledger { first, highest: highest.into(), file_bytes, purge_bytes }
    }

    /// A batch with entries up to `highest` went to file `seq`. Returns whether that file is new.
    pub fn wrote(&mut self, seq: u64, highest: Option<u64>) -> bool {
        let known = self.highest.len();
        while self.first + (self.highest.len() as u64) <= seq {
            self.highest.push_back(None);
        }
        if let Some(slot) = seq.checked_sub(self.first).and_then(|at| self.highest.get_mut(at as usize)) {
            *slot = (*slot).max(highest);
        }
        self.highest.len() > known
    }

    /// How many of the oldest files can go, entries up to `purged` being dead, without anything being rewritten; 0 when
    /// it is not worth it yet.
    pub fn droppable(&self, purged: u64) -> u64 {
        let count = self.highest.len() as u64;
        if count * self.file_bytes <= self.purge_bytes {
            return 0;
        }
        let active = self.first + count - 1;
        let older = self.highest.iter().take(count as usize - 1);
        let dead = older.take_while(|highest| highest.is_none_or(|index| index <= purged)).count() as u64;
        let watermark = (self.first + (count as f64 * REWRITE_RATIO) as u64).min(active - 1);
        if self.first + dead > watermark { dead } else { 0 }
    }

    /// The oldest `count` files are gone.
    pub fn dropped(&mut self, count: u64) {
        self.highest.drain(..count as usize);
        self.first += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_in_use_have_a_number() {
        assert_eq!(append_seq(Path::new("/a/0000000000000007.raftlog")), Some(7));
        assert_eq!(append_seq(Path::new("/a/0000000000000007.raftlog.reserved")), None);
        assert_eq!(append_seq(Path::new("/a/0000000000000007.rewrite")), None);
        assert_eq!(append_seq(Path::new(&append_name(12))), Some(12));
    }

    #[test]
    fn files_go_only_when_everything_up_to_the_rewrite_mark_is_dead() {
        let mut ledger = Ledger::new(1, vec![None], 10, 20);
        for seq in 1..=10 {
            ledger.wrote(seq, Some(seq * 100));
        }
        assert_eq!(ledger.droppable(799), 0, "seven of ten dead: file 8 would be rewritten");
        assert_eq!(ledger.droppable(800), 8);
        assert_eq!(ledger.droppable(5000), 9, "the active file stays");
        ledger.dropped(8);
        assert_eq!(ledger.droppable(5000), 0, "two files of ten bytes are not worth it");
        assert!(ledger.wrote(11, Some(1100)));
        assert_eq!(ledger.droppable(1000), 2);
    }
}
