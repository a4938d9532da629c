//! EXT4_IOC_SHUTDOWN, by a small helper: the call has no safe wrapper in Rust.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use quorate_engine::Failure;

/// Opens every directory, says "ready", waits for a line, shuts the file systems down one after the other, says "done".
/// 0x8004587d is EXT4_IOC_SHUTDOWN (`_IOR('X', 125, __u32)`), 2 is EXT4_GOING_FLAGS_NOLOGFLUSH.
const HELPER: &str = r#"
$| = 1;
my @open;
for my $path (@ARGV) { open(my $dir, "<", $path) or die "$path: $!\n"; push @open, $dir }
print "ready\n";
<STDIN> or exit 0;
my $flags = pack("L", 2);
for my $dir (@open) { ioctl($dir, 0x8004587d, $flags) or die "EXT4_IOC_SHUTDOWN: $!\n" }
print "done\n";
"#;

/// A shutdown that waits for its moment, so that starting a process does not delay it.
pub struct Shutdown(Child);

impl Shutdown {
    /// Opens the file systems at `points`. Fails with `Io`.
    pub fn arm(points: &[&Path]) -> Result<Shutdown, Failure> {
        let mut command = Command::new("perl");
        command.args(["-e", HELPER]).args(points).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| Failure::io("Starting perl", &error))?;
        let mut shutdown = Shutdown(child);
        shutdown.expect("ready")?;
        Ok(shutdown)
    }

    /// Shuts them down. Fails when the operating system refused.
    pub fn fire(mut self) -> Result<(), Failure> {
        let told = self.0.stdin.as_mut().map(|stdin| stdin.write_all(b"now\n"));
        told.unwrap_or(Ok(())).map_err(|error| Failure::io("Cutting the power", &error))?;
        self.expect("done")
    }

    fn expect(&mut self, word: &str) -> Result<(), Failure> {
        let mut line = String::new();
        if let Some(stdout) = self.0.stdout.as_mut() {
            // The helper says one line at a time and then waits: nothing is lost with the buffer.
            let read = BufReader::new(stdout).read_line(&mut line);
            read.map_err(|error| Failure::io("Cutting the power", &error))?;
        }
        if line.trim() == word { Ok(()) } else { Err(Failure::internal(format!("The power was not cut: {line:?}."))) }
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        // Without its stdin the helper ends by itself.
        self.0.stdin.take();
        drop(self.0.wait());
    }
}
