//! The transport over real loopback sockets.

mod calls;
mod fuzz;
mod handshake;
mod hostile;
mod streams;
pub(super) mod tls;
mod tls_reload;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, sleep, timeout};

use super::*;
use crate::error::{Code, Failure};

const SOON: Duration = Duration::from_secs(20);
const HERE: &str = "127.0.0.1:0";

/// Call kinds of the test service.
const ECHO: u8 = 1;
const SLEEP: u8 = 2;
const FAIL: u8 = 3;
const PANIC: u8 = 4;
const MEMBERS_ECHO: u8 = 16;

fn identity(node: u64, cluster: Option<u8>) -> Identity {
    Identity {
        cluster: cluster.map(|byte| [byte; 16]),
        group: 0,
        node,
        name: format!("server{node}"),
        address: String::new(),
    }
}

/// Echoes calls and append frames, swallows snapshots.
struct Echo {
    identity: Mutex<Identity>,
    running: AtomicUsize,
    most: AtomicUsize,
    snapshot: Mutex<Option<Result<usize, Failure>>>,
    /// When false, append frames are read and never answered.
    answers: bool,
    /// When true, snapshots are refused at once.
    disk_full: bool,
}

impl Echo {
    fn new(identity: Identity) -> Echo {
        Echo {
            identity: Mutex::new(identity),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            snapshot: Mutex::new(None),
            answers: true,
            disk_full: false,
        }
    }
}

struct EchoService(Arc<Echo>);

impl Service for EchoService {
    fn identity(&self) -> Identity {
        self.0.identity.lock().clone()
    }

    fn call(&self, _: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let echo = self.0.clone();
        Box::pin(async move {
            let running = echo.running.fetch_add(1, Ordering::SeqCst) + 1;
            echo.most.fetch_max(running, Ordering::SeqCst);
            let answer = match kind {
                ECHO | MEMBERS_ECHO => Ok(body),
                SLEEP => {
                    sleep(Duration::from_millis(u64::from(body[0]) * 10)).await;
                    Ok(body)
                }
                FAIL => Err(Failure::new(Code::Compacted, "gone for good")),
                PANIC => panic!("this panic is part of the test"),
                _ => Err(Failure::invalid("unknown")),
            };
            echo.running.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    }

    fn append_stream(&self, _: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        let answers = self.0.answers;
        input.filter(move |_| std::future::ready(answers)).boxed()
    }

    fn snapshot(
        &self,
        _: Peer,
        head: Bytes,
        mut chunks: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let echo = self.0.clone();
        Box::pin(async move {
            if echo.disk_full {
                return Err(Failure::new(Code::Io, "no space left"));
            }
            let mut hash = crc32fast::Hasher::new();
            let mut len = 0;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.inspect_err(|failure| *echo.snapshot.lock() = Some(Err(failure.clone())))?;
                len += chunk.len();
                hash.update(&chunk);
            }
            *echo.snapshot.lock() = Some(Ok(len));
            Ok(Bytes::from([&head[..], &hash.finalize().to_le_bytes()].concat()))
        })
    }
}

async fn serve(echo: Arc<Echo>) -> Transport {
    Transport::listen(HERE, Arc::new(EchoService(echo))).await.unwrap()
}

fn peers(identity: Identity) -> Peers {
    Peers::new(move || identity.clone())
}

/// A node 1 that welcomes whoever connects and then neither reads nor writes, as if its host had vanished. Ends when the
/// handle is aborted.
async fn welcomes_and_then_stops() -> (String, tokio::task::JoinHandle<()>) {
    let stuck = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let address = stuck.local_addr().unwrap().to_string();
    let hold = tokio::spawn(async move {
        let (mut stream, _) = stuck.accept().await.unwrap();
        let mut welcome = vec![2, 0, 0, 1, 0, 1];
        welcome.extend_from_slice(&[7; 16]);
        welcome.extend_from_slice(&1u64.to_le_bytes());
        welcome.extend_from_slice(b"\x07\0\0\0server1");
        stream.write_all(&(welcome.len() as u32).to_le_bytes()).await.unwrap();
        stream.write_all(&welcome).await.unwrap();
        std::future::pending::<()>().await;
    });
    (address, hold)
}

/// Polls `condition` until it holds; fails when it does not come about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Collects the warnings of this thread.
#[derive(Clone, Default)]
struct Warned(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warned {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?}");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

impl Warned {
    fn contains(&self, part: &str) -> bool {
        self.0.lock().iter().any(|line| line.contains(part))
    }
}
