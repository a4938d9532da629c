//! The floor: what one command at a time cannot beat. One disk sync, one round trip.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_engine::Failure;
use rustix::fs::OFlags;

use crate::ask::Answer;
use crate::disk;
use crate::latency::{Json, Latency, histogram};
use crate::options::Floor;

/// Bytes of the file, which is written through once before: an append then changes no metadata.
const FILE_BYTES: usize = 32 << 20;
/// Place, length and memory of direct writes are multiples of it.
const BLOCK: usize = 4 << 10;

/// Measures both, one after the other. Fails with `Io`.
pub fn run(options: &Floor) -> Result<(), Failure> {
    disk::warn_of_memory(&options.dir);
    let time = Duration::from_secs(options.seconds);
    let sync = syncs(&options.dir, options.bytes, time, options.direct)?;
    let trip = round_trips(options.bytes, time)?;
    tell("fdatasync", options, &sync);
    tell("round-trip", options, &trip);
    Ok(())
}

/// The task `syncs`: syncs a file, and tells the latency as an answer. Fails with `Io`.
pub fn run_syncs(options: &Floor) -> Result<(), Failure> {
    let latency = syncs(&options.dir, options.bytes, Duration::from_secs(options.seconds), options.direct)?;
    println!("{}", Answer::line(&Ok(latency.tell(Answer::default()))));
    Ok(())
}

/// An fdatasync after each write of `bytes` bytes into a file in `dir`, for `time`; `direct` writes go past the page cache, in whole
/// blocks. Fails with `Io`, also where the file system refuses those.
pub fn syncs(dir: &Path, bytes: usize, time: Duration, direct: bool) -> Result<Latency, Failure> {
    sync_file(dir, bytes, time, direct).map_err(|error| Failure::io("Syncing a file", &error))?
}

/// Whether files in `dir` can be written past the page cache. Fails with `Io` when there can be none.
pub fn takes_direct(dir: &Path) -> Result<bool, Failure> {
    let file = tempfile::NamedTempFile::new_in(dir).map_err(|error| Failure::io("Making a file", &error))?;
    Ok(OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(file.path()).is_ok())
}

/// Round trips of `bytes` bytes between two threads over TCP on loopback, for `time`. Fails with `Io`.
pub fn round_trips(bytes: usize, time: Duration) -> Result<Latency, Failure> {
    trips(bytes, time).map_err(|error| Failure::io("A round trip over loopback", &error))?
}

/// Copies a block of `bytes` bytes again and again for `time`; gives bytes a second.
pub fn copies(bytes: usize, time: Duration) -> f64 {
    let (from, mut to) = (vec![1_u8; bytes], vec![0_u8; bytes]);
    let (started, mut copied) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        black_box(&mut to).copy_from_slice(black_box(&from));
        copied += bytes as u64;
    }
    copied as f64 / started.elapsed().as_secs_f64()
}

fn tell(what: &str, options: &Floor, latency: &Latency) {
    let json = Json::default().text("bench", what).raw("bytes", options.bytes);
    println!("{}", json.text("file_system", &disk::file_system(&options.dir)).latency(latency).end());
    eprintln!("{what} of {} bytes: {latency}", options.bytes);
}

/// Calls `once` again and again for `time`.
fn measure(time: Duration, mut once: impl FnMut() -> std::io::Result<()>) -> std::io::Result<Result<Latency, Failure>> {
    let mut histogram = match histogram() {
        Ok(histogram) => histogram,
        Err(failure) => return Ok(Err(failure)),
    };
    let end = Instant::now() + time;
    while Instant::now() < end {
        let started = Instant::now();
        once()?;
        histogram.saturating_record(started.elapsed().as_nanos() as u64);
    }
    Ok(Ok(Latency::of(&histogram)))
}

fn sync_file(dir: &Path, bytes: usize, time: Duration, direct: bool) -> std::io::Result<Result<Latency, Failure>> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&vec![0; FILE_BYTES.max(bytes)])?;
    file.as_file().sync_all()?;
    let block = if direct { BLOCK } else { 1 };
    let flags = if direct { OFlags::DIRECT.bits() as i32 } else { 0 };
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(file.path())?;
    // Room for a block more than the bytes fill, which may begin within one, and for beginning at a multiple of it.
    let memory = vec![1; bytes.next_multiple_of(block) + 2 * block];
    let begin = memory.as_ptr().align_offset(block).min(block);
    let mut at = 0;
    measure(time, || {
        if at + bytes + block > FILE_BYTES {
            at = 0;
        }
        let (from, end) = (at / block * block, (at + bytes).next_multiple_of(block));
        at += bytes;
        opened.write_all_at(&memory[begin..begin + end - from], from as u64)?;
        opened.sync_data()
    })
}

fn trips(bytes: usize, time: Duration) -> std::io::Result<Result<Latency, Failure>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
    }
    let echo = std::thread::Builder::new().name("echo".into()).spawn(move || echo(far, bytes))?;
    let mut body = vec![1; bytes];
    let measured = measure(time, || {
        near.write_all(&body)?;
        near.read_exact(&mut body)
    });
    drop(near);
    // The echo ends with an error when its peer is gone, as it is now.
    drop(echo.join());
    measured
}

fn echo(mut stream: TcpStream, bytes: usize) -> std::io::Result<()> {
    let mut body = vec![0; bytes];
    loop {
        stream.read_exact(&mut body)?;
        stream.write_all(&body)?;
    }
}
