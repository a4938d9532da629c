//! The program on directories that real nodes made, sound, damaged and in use.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_engine::NodeConfig;
use quorate_engine::kv::op::Txn;
use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Node, Observer, Reply};

const PATIENCE: Duration = Duration::from_secs(20);
const WRITES: u64 = 600;

struct Nobody;

impl Observer for Nobody {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
    fn leader(&self, _event: &LeaderEvent) {}
}

fn start(dir: &Path) -> Node {
    let mut config = NodeConfig::new("solo", [("solo".to_string(), String::new())].into(), dir);
    (config.snapshot_commands, config.log_keep_entries, config.log_bytes) = (200, 50, 1 << 20);
    let node = Node::start(config, Arc::new(Nobody)).unwrap();
    let begun = Instant::now();
    while !node.status().contains(":role :leader") {
        assert!(begun.elapsed() < PATIENCE, "{}", node.status());
        std::thread::sleep(Duration::from_millis(10));
    }
    node
}

fn put(node: &Node, number: u64) {
    let (say, hear) = std::sync::mpsc::channel();
    let txn = Txn::put(format!("key-{}", number % 50), format!("value {number} {}", "x".repeat(900)));
    let reply = Reply::Call(Box::new(move |outcome| drop(say.send(outcome))));
    node.submit(txn.encode().unwrap().into(), PATIENCE, reply).unwrap();
    hear.recv_timeout(PATIENCE).unwrap().unwrap();
}

/// A directory in which the log was purged behind snapshots and went through several files.
fn make(dir: &Path) {
    let node = start(dir);
    (0..WRITES).for_each(|number| put(&node, number));
    let begun = Instant::now();
    while node.status().contains(":purged-log-index nil") {
        assert!(begun.elapsed() < PATIENCE, "{}", node.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    (0..20).for_each(|number| put(&node, number));
    node.close();
}

fn quorate(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn verify(dir: &Path) -> (i32, String, String) {
    quorate(&["verify", dir.to_str().unwrap()])
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    found
}

fn newest(dir: &Path, suffix: &str) -> PathBuf {
    files(dir).into_keys().filter(|path| path.to_str().unwrap().ends_with(suffix)).max().unwrap()
}

fn wrong_line(dir: &Path) -> String {
    let (status, out, said) = verify(dir);
    assert_eq!(status, 1, "{out}{said}");
    out.lines().find(|line| line.starts_with("WRONG")).unwrap().to_string()
}

#[test]
fn a_sound_directory_is_found_sound_and_stays_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    make(&dir);
    let before = files(&dir);
    let (status, out, said) = verify(&dir);
    assert_eq!((status, said.as_str()), (0, ""), "{out}");
    for part in ["node", "forming", "log", "snapshot", "state", "together"] {
        assert!(out.lines().any(|line| line.starts_with("ok ") && line.contains(part)), "{part} in\n{out}");
    }
    assert!(out.contains("no hole") && out.contains("agrees with its digest") && out.contains("\"solo\""), "{out}");
    quorate(&["log", dir.to_str().unwrap()]);
    assert!(files(&dir) == before, "looking changed the directory");
}

#[test]
fn the_log_is_printed_whole_or_in_part() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let node = start(&dir);
    (0..30).for_each(|number| put(&node, number));
    node.close();
    let path = dir.to_str().unwrap();
    let (status, out, _) = quorate(&["log", path]);
    assert_eq!(status, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("0 term 0 membership: voters [solo ("), "{}", lines[0]);
    assert!(out.contains(" blank\n"), "{out}");
    let commands: Vec<&&str> = lines.iter().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(commands.len(), 30);
    assert!(commands[7].contains("put \"key-7\" \"value 7 xxx"), "{}", commands[7]);
    let (status, out, _) = quorate(&["log", path, "--from", "4", "--to", "5"]);
    let heads: Vec<&str> = out.lines().filter(|line| !line.starts_with("  ")).collect();
    assert_eq!((status, heads.len()), (0, 2), "{out}");
    assert!(heads[0].starts_with("4 ") && heads[1].starts_with("5 "), "{out}");
}

#[test]
fn a_directory_in_use_and_nonsense_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let node = start(&dir);
    let (status, out, said) = verify(&dir);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(said.contains("in use"), "{said}");
    node.close();
    // The threads of a closed node end a moment later.
    let begun = Instant::now();
    while verify(&dir).0 == 2 && begun.elapsed() < PATIENCE {}
    assert_eq!(verify(&dir).0, 0);
    for words in [&["verify"][..], &["check", "x"], &["log", "x", "--from"], &["verify", "x", "--from", "1"], &[]] {
        let (status, _, said) = quorate(words);
        assert!(status == 2 && said.contains("quorate verify DIR"), "{words:?}: {said}");
    }
    let (status, _, said) = verify(&root.path().join("nothing"));
    assert!(status == 2 && said.contains("not the data directory"), "{said}");
    assert!(!root.path().join("nothing").exists());
}

#[test]
fn damage_is_told_with_file_and_offset() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    make(&dir);
    let log = newest(&dir, ".raftlog");
    let snapshot = newest(&dir, ".snap");
    let sound = files(&dir);
    let hurt = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut data = sound[path].clone();
        change(&mut data);
        fs::write(path, data).unwrap();
        let line = wrong_line(&dir);
        fs::write(path, &sound[path]).unwrap();
        line
    };
    let named = |line: &str, path: &Path| line.contains(&*path.file_name().unwrap().to_string_lossy());
    // In the middle of the newest log file, whole batches behind it.
    let line = hurt(&log, &|data| data[400] ^= 1);
    assert!(named(&line, &log) && line.contains("offset") && line.contains("move it away"), "{line}");
    let line = hurt(&snapshot, &|data| data.truncate(data.len() / 2));
    assert!(named(&line, &snapshot) && line.contains("offset") && line.contains("sets it aside"), "{line}");
    let line = hurt(&dir.join("node"), &|data| data[30] ^= 1);
    assert!(line.contains("node") && line.contains("Restore"), "{line}");
    // More was durable than is there.
    let line = hurt(&dir.join("group-0/state/durable"), &|data| {
        *data = [&b"QKVD"[..], &1_000_000_u64.to_le_bytes()].concat();
        data.extend(crc32fast::hash(data).to_le_bytes());
    });
    assert!(line.contains("sled has lost changes") && line.contains("rebuilds it"), "{line}");
    assert_eq!(verify(&dir).0, 0, "all is as it was");
    let logs: Vec<&PathBuf> = sound.keys().filter(|path| path.to_str().unwrap().ends_with(".raftlog")).collect();
    let before = logs[logs.len() - 2];
    fs::remove_file(before).unwrap();
    let line = wrong_line(&dir);
    assert!(named(&line, before) && line.contains("is missing"), "{line}");
}

#[test]
fn a_hole_between_snapshot_and_log_is_found() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    make(&dir);
    fs::remove_file(newest(&dir, ".snap")).unwrap();
    let (status, out, _) = verify(&dir);
    assert_eq!(status, 0, "the state has it: {out}");
    assert!(out.contains("a start takes a snapshot"), "{out}");
    fs::remove_dir_all(dir.join("group-0/state")).unwrap();
    let line = wrong_line(&dir);
    assert!(line.contains("together") && line.contains("what lies between is not here"), "{line}");
}
