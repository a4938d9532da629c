//! A node as a process: see `quorate_crash::node`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_crash::node::main(std::env::args().skip(1))
}
