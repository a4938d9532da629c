//! A replicated counter on three nodes, from Rust, without a JVM.
//!
//! `counter [DIRECTORY]` tells a story and checks it: three nodes count together, lose their leader, count on, and get it
//! back. The exit status is 0 only if everything held. With a DIRECTORY the count stays there for the next run.

mod cluster;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use quorate_engine::Failure;

use cluster::{Cluster, NAMES};

fn main() -> ExitCode {
    let told = match std::env::args_os().nth(1) {
        Some(directory) => story(&PathBuf::from(directory)),
        None => tempfile::tempdir()
            .map_err(|error| Failure::io("Making a temporary directory", &error))
            .and_then(|directory| story(directory.path())),
    };
    match told {
        Ok(()) => {
            println!("All held.");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn story(directory: &Path) -> Result<(), Failure> {
    println!("Three nodes start in {}.", directory.display());
    let mut cluster = Cluster::new(directory)?;
    for name in NAMES {
        cluster.start(name)?;
    }
    cluster.all_vote()?;
    let mut expected = cluster.read("a")?;
    println!("The count is {expected}.");

    println!("Each node adds; whoever leads, the outcome comes from the node that was asked.");
    for (name, amount) in NAMES.into_iter().zip([1, 10, 100]) {
        expected += amount;
        check(&format!("{name}: +{amount} makes"), cluster.add(name, amount)?, expected)?;
    }
    read_on(&cluster, &NAMES, expected)?;

    let former = cluster.leader()?;
    println!("The leader, {former}, is closed; the other two go on.");
    cluster.close(former);
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != former).collect();
    for name in &others {
        expected += 1_000;
        check(&format!("{name}: +1000 makes"), cluster.add(name, 1_000)?, expected)?;
    }
    read_on(&cluster, &others, expected)?;

    println!("{former} starts again, with what its disk holds, and catches up.");
    cluster.start(former)?;
    read_on(&cluster, &[former], expected)?;
    check(
        &format!("{former}: commands applied since the founding:"),
        cluster.index(former)?,
        cluster.index(others[0])?,
    )?;
    expected += 10_000;
    check(&format!("{former}: +10000 makes"), cluster.add(former, 10_000)?, expected)?;
    read_on(&cluster, &NAMES, expected)
}

fn read_on(cluster: &Cluster, names: &[&str], expected: i64) -> Result<(), Failure> {
    names
        .iter()
        .try_for_each(|name| check(&format!("{name}: a linearizable read gives"), cluster.read(name)?, expected))
}

fn check<T: PartialEq + std::fmt::Display>(what: &str, found: T, expected: T) -> Result<(), Failure> {
    println!("  {what} {found}");
    if found == expected {
        return Ok(());
    }
    Err(Failure::internal(format!("{what} {found}, and it should be {expected}.")))
}
