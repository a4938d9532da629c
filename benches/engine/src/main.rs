//! Measures the engine: processes, real TCP, real fsync; the floor under it; and writes the report of all benchmarks.
//!
//! `quorate-bench part NAME` writes rows into `target/bench/NAME.jsonl`, `quorate-bench report` reads all that is there. The
//! tasks `writers` and `floor` are for trying things out: figures go to stdout, one JSON object a line. Sentences for a
//! person go to stderr. See the README for the options and how to read the figures.

mod ask;
mod cluster;
mod disk;
mod facts;
mod floor;
mod latency;
mod load;
mod machine;
mod node;
mod options;
mod outage;
mod parts;
mod process;
mod reads;
mod report;
mod row;
mod strace;
mod writers;

use std::process::ExitCode;

use options::Task;

fn main() -> ExitCode {
    let task = match options::parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(sentence) => {
            eprintln!("{sentence}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let done = match task {
        Task::Part(part) => parts::run(&part),
        Task::Facts(out, data) => facts::write(&out, &data),
        Task::Report(directory, into) => report::run(&directory, into.as_ref()),
        Task::Writers(options) => writers::run(&options),
        Task::Floor(options) => floor::run(&options),
        Task::Syncs(options) => floor::run_syncs(&options),
        Task::Node(options) => node::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}
