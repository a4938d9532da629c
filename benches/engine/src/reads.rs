//! Reads of the key-value store in a closed loop, as a program in Rust would do them: so many tasks, each awaits one answer
//! after the other.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_engine::Failure;
use quorate_engine::kv::op::{GetAnswer, Read};
use quorate_engine::node::Node;
use quorate_engine::session::Consistency;
use tokio::task::LocalSet;

use crate::latency::histogram;
use crate::load::{KEYS, Outcomes, WARM_UP, key};

/// How long one read may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads the keys that [`crate::load::commands`] puts, by `readers` at a time for `time` after a warm-up. Fails with the
/// first failure of a read, and with `Internal` when a key is missing.
pub fn run(node: &Arc<Node>, consistency: Consistency, readers: usize, time: Duration) -> Result<Outcomes, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
    let latencies = Rc::new(std::cell::RefCell::new(histogram()?));
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let tasks = LocalSet::new();
    let running: Vec<_> = (0..readers)
        .map(|reader| {
            let (node, latencies) = (node.clone(), latencies.clone());
            tasks.spawn_local(async move {
                // Far apart, so that no two read the same key at the same time.
                let mut number = (reader * KEYS / readers) as u64;
                loop {
                    let started = Instant::now();
                    read_one(&node, consistency, number % KEYS as u64).await?;
                    let now = Instant::now();
                    if now > end {
                        return Ok::<(), Failure>(());
                    }
                    if now > begin {
                        latencies.borrow_mut().saturating_record((now - started).as_nanos() as u64);
                    }
                    number += 1;
                }
            })
        })
        .collect();
    tasks.block_on(&runtime, async {
        for task in running {
            task.await.map_err(|error| Failure::internal(error.to_string()))??;
        }
        Ok::<(), Failure>(())
    })?;
    let latencies = std::mem::replace(&mut *latencies.borrow_mut(), histogram()?);
    Ok(Outcomes { latencies, elapsed: time })
}

async fn read_one(node: &Node, consistency: Consistency, number: u64) -> Result<(), Failure> {
    let read = Read::Get { key: key(number).into() }.encode();
    let answer = node.read(consistency, read.into(), PATIENCE).await?;
    match GetAnswer::decode(answer)?.found {
        Some(_) => Ok(()),
        None => Err(Failure::internal(format!("The key {} is not there.", key(number)))),
    }
}
