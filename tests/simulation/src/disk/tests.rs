use std::fs;
use std::path::PathBuf;

use super::*;

struct Bench {
    root: PathBuf,
    disk: SimDisk,
}

impl Bench {
    fn new(name: &str, seed: u64) -> Bench {
        let base = std::env::temp_dir().join(format!("quorate-simdisk-{}-{name}-{seed}", std::process::id()));
        let (root, graves) = (base.join("root"), base.join("graves"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&graves).unwrap();
        let disk = SimDisk::new(&root, &graves, Rng::new(seed), Power::new());
        Bench { root, disk }
    }

    fn write(&self, name: &str, content: &[u8], sync: bool) {
        let file = self.disk.open(&self.root.join(name), Open::Create).unwrap();
        assert_eq!(file.write_at(0, content).unwrap(), content.len());
        if sync {
            file.sync().unwrap();
        }
    }

    fn sync_names(&self) {
        self.disk.sync_dir(&self.root).unwrap();
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(name)).ok()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let base = self.root.parent().unwrap();
        fs::remove_dir_all(base).unwrap();
    }
}

/// How often `holds` is true after a power cut, in 100 seeds.
fn after_cuts(name: &str, prepare: impl Fn(&Bench), holds: impl Fn(&Bench) -> bool) -> usize {
    let run = |seed: &u64| {
        let bench = Bench::new(name, *seed);
        prepare(&bench);
        bench.disk.cut(0).unwrap();
        holds(&bench)
    };
    (0..100).filter(run).count()
}

#[test]
fn what_was_synced_stays_and_what_was_not_is_lost_in_some_seeds() {
    let old = [1; 2000];
    let over = |bench: &Bench| {
        bench.write("a", &old, true);
        bench.sync_names();
        let file = bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap();
        file.write_at(0, &[2; 2000]).unwrap();
    };
    let kept = after_cuts("over", over, |bench| bench.read("a") == Some(vec![2; 2000]));
    let torn = after_cuts("torn", over, |bench| {
        let content = bench.read("a").unwrap();
        content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            && content.contains(&1)
            && content.contains(&2)
    });
    assert!(kept > 0 && kept < 50 && torn > 50, "{kept} kept, {torn} torn");
    let synced = |bench: &Bench| {
        over(bench);
        bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap().sync().unwrap();
    };
    assert_eq!(after_cuts("synced", synced, |bench| bench.read("a") == Some(vec![2; 2000])), 100);
}

#[test]
fn a_length_may_be_lost_until_it_is_synced() {
    let longer = |bench: &Bench| {
        bench.write("a", &[1; 100], true);
        bench.sync_names();
        bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap().write_at(100, &[2; 100]).unwrap();
    };
    let lengths = |expected| after_cuts("length", longer, move |bench| bench.read("a").unwrap().len() == expected);
    assert!(lengths(100) > 20 && lengths(200) > 20 && lengths(100) + lengths(200) == 100);
    let cut = |bench: &Bench| {
        bench.write("a", &[1; 2000], true);
        bench.sync_names();
        bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap().set_len(0).unwrap();
    };
    let back = after_cuts("cut", cut, |bench| bench.read("a").unwrap().len() == 2000);
    assert!(back > 20 && back < 80, "{back}");
}

#[test]
fn a_rename_is_lost_in_some_seeds_without_a_sync_of_the_directory_and_never_after_it() {
    let replace = |bench: &Bench| {
        bench.write("a", b"old", true);
        bench.sync_names();
        bench.write("a.tmp", b"new", true);
        bench.disk.rename(&bench.root.join("a.tmp"), &bench.root.join("a")).unwrap();
    };
    let new = |bench: &Bench| {
        let content = bench.read("a").unwrap();
        assert!(content == b"old" || content == b"new", "{content:?}");
        content == b"new"
    };
    let kept = after_cuts("rename", replace, new);
    assert!(kept > 10 && kept < 90, "{kept}");
    let durable = |bench: &Bench| {
        replace(bench);
        bench.sync_names();
    };
    assert_eq!(after_cuts("renamed", durable, new), 100);
}

#[test]
fn made_and_removed_names_are_lost_in_some_seeds_and_in_order() {
    let change = |bench: &Bench| {
        bench.write("old", b"old", true);
        bench.sync_names();
        bench.write("first", b"1", true);
        bench.write("second", b"2", true);
        bench.disk.remove(&bench.root.join("old")).unwrap();
        bench.disk.create_dir(&bench.root.join("deep/er")).unwrap();
    };
    let look = |bench: &Bench| {
        let there = |name: &str| bench.root.join(name).exists();
        assert!(there("first") || !there("second"), "the second without the first");
        assert!(there("second") || there("old"), "removed before the second was made");
        assert!(!there("old") || !there("deep"), "a directory out of order");
        assert_eq!(bench.read("old").unwrap_or(b"old".to_vec()), b"old");
        there("old")
    };
    let back = after_cuts("names", change, look);
    assert!(back > 20 && back < 95, "{back}");
}

#[test]
fn a_synced_log_file_has_its_name_and_what_came_before_it_has_too() {
    let rotate = |bench: &Bench| {
        let log = bench.root.join("log");
        bench.disk.create_dir(&log).unwrap();
        bench.sync_names();
        for name in ["log/1", "log/2", "log/3"] {
            bench.write(name, b"x", name == "log/2");
        }
    };
    let whole = |bench: &Bench| bench.read("log/1").is_some() && bench.read("log/2") == Some(b"x".to_vec());
    assert_eq!(after_cuts("log", rotate, whole), 100);
    let third = after_cuts("log3", rotate, |bench| bench.read("log/3").is_some());
    assert!(third > 20 && third < 80, "{third}");
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next() {
    let failed = |bench: &Bench| {
        bench.write("a", &[1; 600], true);
        bench.sync_names();
        let file = bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap();
        file.write_at(0, &[2; 600]).unwrap();
        bench.disk.set_faults(|faults| faults.sync_errors = 1);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
    };
    let kept = after_cuts("fsync", failed, |bench| bench.read("a") == Some(vec![2; 600]));
    assert!(kept > 0 && kept < 60, "{kept}");
    let again = |bench: &Bench| {
        failed(bench);
        let file = bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap();
        file.write_at(0, &[3; 600]).unwrap();
        file.sync().unwrap();
    };
    assert_eq!(after_cuts("again", again, |bench| bench.read("a") == Some(vec![3; 600])), 100);
}

#[test]
fn a_full_disk_takes_nothing_or_only_what_has_room_already() {
    let bench = Bench::new("full", 1);
    bench.write("a", &[1; 100], true);
    let file = bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap();
    bench.disk.set_faults(|faults| faults.full = Some(Full::GrowingOnly));
    assert_eq!(file.write_at(50, &[2; 100]).unwrap(), 50);
    assert_eq!(file.write_at(100, &[2; 100]).unwrap_err().raw_os_error(), Some(28));
    bench.disk.set_faults(|faults| faults.full = Some(Full::Strict));
    assert_eq!(file.write_at(0, &[2; 1]).unwrap_err().raw_os_error(), Some(28));
    assert!(bench.disk.open(&bench.root.join("b"), Open::CreateNew).is_err());
    bench.disk.set_faults(|faults| *faults = Faults { write_errors: 1, short_writes: 100, ..Faults::default() });
    assert_eq!(file.write_at(0, &[2; 1]).unwrap_err().raw_os_error(), Some(5));
    assert!(file.write_at(0, &[2; 100]).unwrap() < 100);
    let harm = bench.disk.harm();
    assert_eq!((harm.no_space, harm.write_errors, harm.short_writes), (3, 1, 1));
}

#[test]
fn a_cut_inside_a_sequence_stops_everything_after_it() {
    let bench = Bench::new("inside", 1);
    bench.write("a", b"old", true);
    bench.sync_names();
    bench.disk.set_faults(|faults| faults.cut_after = Some(2));
    let file = bench.disk.open(&bench.root.join("b"), Open::Create).unwrap();
    file.write_at(0, b"new").unwrap();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    assert!(bench.disk.rename(&bench.root.join("b"), &bench.root.join("a")).is_err());
    assert!(!bench.disk.power.is_on());
    drop(file);
    bench.disk.cut(100).unwrap();
    assert!(bench.disk.power.is_on());
    assert_eq!((bench.read("a"), bench.read("b")), (Some(b"old".to_vec()), Some(b"new".to_vec())));
}

#[test]
fn the_same_seed_loses_the_same() {
    let run = |name: &str| {
        let bench = Bench::new(name, 77);
        bench.write("a", &[1; 9000], true);
        bench.sync_names();
        let file = bench.disk.open(&bench.root.join("a"), Open::ReadWrite).unwrap();
        file.write_at(100, &[2; 8000]).unwrap();
        bench.write("b", &[3; 100], false);
        bench.disk.cut(30).unwrap();
        (bench.read("a"), bench.read("b"), bench.disk.harm())
    };
    assert_eq!(run("one"), run("two"));
}
