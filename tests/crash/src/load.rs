//! Clients that write as fast as they are answered, each on the node that it was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_engine::Failure;

use crate::ledger::Ledger;
use crate::process::{self, Answer, Process};
use crate::rng::Rng;

/// Pause after a failure: a node without a leader fails at once.
const PAUSE: Duration = Duration::from_millis(2);
/// Largest value, in bytes; sizes are spread over the powers of two below it.
const VALUE_BYTES_MAX_LOG2: u64 = 13;

/// Running clients. Dropping it stops them.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients, spread over `processes`, writing what `ledger` says next. Fails with `Io`.
    pub fn start(ledger: &Arc<Ledger>, processes: &[Arc<Process>], clients: u64, seed: &Rng) -> Result<Load, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load { stop: stop.clone(), threads: Vec::new() };
        for client in 0..clients {
            let process = processes[client as usize % processes.len()].clone();
            let (ledger, stop, rng) = (ledger.clone(), stop.clone(), seed.split(client));
            let thread = std::thread::Builder::new().name(format!("client-{client}"));
            let thread = thread.spawn(move || write(client, &ledger, &process, &stop, rng));
            load.threads.push(thread.map_err(|error| Failure::io("Starting a client", &error))?);
        }
        Ok(load)
    }

    /// Tells the clients to stop after their present write; does not wait.
    pub fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tell_to_stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("A client panicked.");
            }
        }
    }
}

fn write(client: u64, ledger: &Ledger, process: &Process, stop: &AtomicBool, mut rng: Rng) {
    while !stop.load(Ordering::Relaxed) && !process.said().ended {
        let bytes = 1 << rng.range(4, VALUE_BYTES_MAX_LOG2 + 1);
        let write = ledger.attempt(client, bytes);
        match process.call(&format!("put {} {}", write.key, write.value), process::PATIENCE) {
            Answer::Ok(_) => ledger.acknowledge(&write),
            _ => std::thread::sleep(PAUSE),
        }
    }
}
