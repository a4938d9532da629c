//! What a client sees while the leader dies: it writes one command after the other and notes the longest wait.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_engine::Failure;
use quorate_engine::node::Node;

use crate::ask::Answer;

/// How long one command may take; far longer than an election.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes `command` again and again for `time`. Answers with the number of acknowledged writes, the longest time between two
/// acknowledgements, in microseconds, and when it ended, in microseconds since 1970. Fails with the first failure of a write.
pub fn run(node: &Node, command: Bytes, time: Duration) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
    let begin = Instant::now();
    let (mut last, mut ops) = (begin, 0_u64);
    let (mut longest, mut ended) = (Duration::ZERO, SystemTime::now());
    while begin.elapsed() < time {
        runtime.block_on(node.write(command.clone(), PATIENCE))?;
        let now = Instant::now();
        if now - last > longest {
            (longest, ended) = (now - last, SystemTime::now());
        }
        (last, ops) = (now, ops + 1);
    }
    let ended = ended.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Answer::default().with("ops", ops).with("gap_us", longest.as_micros()).with("ended_us", ended.as_micros()))
}
