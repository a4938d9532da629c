//! Measures the engine: three processes, real TCP, real fsync; and the floor under it, one disk sync and one round trip.
//!
//! `quorate-bench writers` and `quorate-bench floor`; see the README for the options and how to read the figures. Figures
//! go to stdout, one JSON object a line; sentences for a person go to stderr.

mod ask;
mod cluster;
mod disk;
mod floor;
mod load;
mod machine;
mod node;
mod options;
mod report;
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
        Task::Writers(options) => writers::run(&options),
        Task::Floor(options) => floor::run(&options),
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
