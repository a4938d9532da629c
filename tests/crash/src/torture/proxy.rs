//! The network between the nodes: every connection goes through here, and every direction between two nodes can be shut.
//!
//! A node is told the addresses of these listeners, not the others' own. Who connects is read from the operating system's
//! tables (the process that has the socket), so that nothing depends on what the nodes say to each other. What is sent
//! in a shut direction waits, as in a network that loses packets for a while; a reset closes every connection.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use quorate_engine::Failure;

/// How often a connection looks whether its direction is shut.
const LOOK: Duration = Duration::from_millis(2);
/// How long one read waits for bytes.
const READ: Duration = Duration::from_millis(20);
/// How long a node that listens may take to be reached.
const CONNECT: Duration = Duration::from_millis(500);

/// The links of a cluster.
pub struct Network {
    count: usize,
    /// Direction from `a` to `b` at `a * count + b`: true when shut.
    shut: Vec<AtomicBool>,
    /// Process numbers of the nodes, 0 for none.
    pids: Vec<AtomicU32>,
    /// Grows with every reset.
    epoch: AtomicU64,
    closed: AtomicBool,
    /// Connections that were carried.
    carried: AtomicU64,
}

impl Network {
    /// A network of `targets.len()` nodes that listen on `targets`; gives it with the addresses that stand for them. Fails
    /// with `Io`.
    pub fn start(targets: &[String]) -> Result<(Arc<Network>, Vec<String>), Failure> {
        let count = targets.len();
        let network = Arc::new(Network {
            count,
            shut: (0..count * count).map(|_| AtomicBool::new(false)).collect(),
            pids: (0..count).map(|_| AtomicU32::new(0)).collect(),
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            carried: AtomicU64::new(0),
        });
        let failed = |error: std::io::Error| Failure::io("Starting the network", &error);
        let mut addresses = Vec::new();
        for (to, target) in targets.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?.to_string());
            let (network, target) = (network.clone(), target.clone());
            spawn(&format!("to-{to}"), move || network.listen(&listener, to, &target))?;
        }
        Ok((network, addresses))
    }

    /// The node at `at` is now the process `pid`.
    pub fn runs_as(&self, at: usize, pid: u32) {
        self.pids[at].store(pid, Ordering::Release);
    }

    /// Shuts the direction from `from` to `to`, or opens it.
    pub fn set(&self, from: usize, to: usize, shut: bool) {
        self.shut[from * self.count + to].store(shut, Ordering::Release);
    }

    /// Opens every direction.
    pub fn heal(&self) {
        self.shut.iter().for_each(|link| link.store(false, Ordering::Release));
    }

    /// Closes every connection.
    pub fn reset(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Connections carried so far.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Ends everything.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reset();
    }

    fn is_shut(&self, from: usize, to: usize) -> bool {
        self.shut[from * self.count + to].load(Ordering::Acquire)
    }

    fn is_over(&self, epoch: u64) -> bool {
        self.closed.load(Ordering::Acquire) || self.epoch.load(Ordering::Acquire) != epoch
    }

    fn listen(self: &Arc<Network>, listener: &TcpListener, to: usize, target: &str) {
        if let Err(error) = listener.set_nonblocking(true) {
            eprintln!("A link cannot be watched: {error}");
            return;
        }
        while !self.closed.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let (network, target) = (self.clone(), target.to_string());
                    let carried = spawn("link", move || network.carry(stream, peer, to, &target));
                    carried.unwrap_or_else(|failure| eprintln!("{failure}"));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Carries one connection until either side or the network ends it.
    fn carry(self: &Arc<Network>, inward: TcpStream, peer: SocketAddr, to: usize, target: &str) {
        let epoch = self.epoch.load(Ordering::Acquire);
        // The socket is listed from before the connection is accepted; who is gone already needs no answer.
        let Some(from) = self.owner(peer) else { return };
        while self.is_shut(from, to) {
            if self.is_over(epoch) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let Ok(address) = target.parse() else { return };
        let Ok(outward) = TcpStream::connect_timeout(&address, CONNECT) else { return };
        self.carried.fetch_add(1, Ordering::Relaxed);
        let (Ok(back_in), Ok(back_out)) = (inward.try_clone(), outward.try_clone()) else { return };
        let network = self.clone();
        let started = spawn("link-back", move || network.pump(&back_out, &back_in, (to, from), epoch));
        if started.is_ok() {
            self.pump(&inward, &outward, (from, to), epoch);
        }
    }

    fn pump(&self, mut source: &TcpStream, mut sink: &TcpStream, (from, to): (usize, usize), epoch: u64) {
        let mut buffer = vec![0; 64 << 10];
        let ready = source
            .set_nonblocking(false)
            .and_then(|()| source.set_read_timeout(Some(READ)))
            .and_then(|()| sink.set_nodelay(true));
        while ready.is_ok() && !self.is_over(epoch) {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            while self.is_shut(from, to) && !self.is_over(epoch) {
                std::thread::sleep(LOOK);
            }
            if self.is_over(epoch) || sink.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Either may be closed already.
        drop(source.shutdown(Shutdown::Both));
        drop(sink.shutdown(Shutdown::Both));
    }

    /// The node whose process has the socket bound to `peer`.
    fn owner(&self, peer: SocketAddr) -> Option<usize> {
        let inode = inode(peer)?;
        let link = format!("socket:[{inode}]");
        (0..self.count).find(|at| {
            let pid = self.pids[*at].load(Ordering::Acquire);
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            links.any(|found| found.as_os_str() == link.as_str())
        })
    }
}

/// The number of the socket whose own address is `address`, from the kernel's table.
fn inode(address: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(address) = address else { return None };
    let own = format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&own))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(body);
    thread.map(drop).map_err(|error| Failure::io("Starting a thread", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shut_direction_holds_bytes_back_and_the_other_goes_on() {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let (network, addresses) =
            Network::start(&[node.local_addr().unwrap().to_string(), "127.0.0.1:1".into()]).unwrap();
        network.runs_as(1, std::process::id());
        let mut caller = TcpStream::connect(&addresses[0]).unwrap();
        caller.write_all(b"1").unwrap();
        let (mut called, _) = node.accept().unwrap();
        let mut byte = [0];
        called.read_exact(&mut byte).unwrap();
        network.set(1, 0, true);
        caller.write_all(b"2").unwrap();
        called.write_all(b"3").unwrap();
        caller.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"3", "the way back is open");
        called.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(called.read_exact(&mut byte).is_err(), "the way there is shut");
        network.heal();
        called.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        called.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"2", "and nothing was lost");
        network.close();
        assert_eq!(caller.read(&mut byte).unwrap_or(0), 0, "closed");
    }
}
