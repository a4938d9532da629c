//! The engine's side of the network: [`Wire`] with listeners and streams.

use std::collections::btree_map::Entry;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorate_engine::transport::wire::{Duplex, Listener, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::Item;
use super::state::{Backlog, Ends, PipeId};
use super::{Network, with_wakers};
use crate::disk::Power;

/// The network as one life of one node sees it.
#[derive(Clone)]
pub struct SimWire {
    /// The network.
    pub network: Network,
    /// Which node.
    pub node: usize,
    /// Without it nothing leaves the node.
    pub power: Arc<Power>,
}

impl SimWire {
    fn duplex(&self, ends: Ends) -> Duplex {
        let reader = Reader { network: self.network.clone(), pipe: ends.reads };
        let writer = Writer { wire: self.clone(), pipe: ends.writes, ended: false };
        Duplex { reader: Box::new(reader), writer: Box::new(writer), remote: format!("node {}", ends.remote) }
    }
}

impl Wire for SimWire {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let answer = self.network.lock().connect(self.node, address);
        let wire = self.clone();
        Box::pin(async move {
            let ends = answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(wire.duplex(ends))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let mut state = self.network.lock();
        let outcome = match state.listening.entry(self.node) {
            Entry::Occupied(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            Entry::Vacant(vacant) => {
                vacant.insert(Backlog::default());
                Ok(Box::new(SimListener { wire: self.clone(), address: address.to_string() }) as Box<dyn Listener>)
            }
        };
        Box::pin(async move { outcome })
    }
}

struct SimListener {
    wire: SimWire,
    address: String,
}

impl Listener for SimListener {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.wire.network.lock();
            let Some(backlog) = state.listening.get_mut(&self.wire.node) else { return Poll::Pending };
            match backlog.waiting.pop_front() {
                Some(ends) => Poll::Ready(Ok(self.wire.duplex(ends))),
                None => {
                    backlog.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let closed = self.wire.network.lock().listening.remove(&self.wire.node);
        // Those who were not taken yet.
        for ends in closed.into_iter().flat_map(|backlog| backlog.waiting) {
            drop(self.wire.duplex(ends));
        }
    }
}

struct Reader {
    network: Network,
    pipe: PipeId,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pipe = self.pipe;
        with_wakers(&self.network, |state, wake| match state.pipes.get_mut(&pipe) {
            Some(open) => open.read(into, context.waker(), wake).map_or(Poll::Pending, Poll::Ready),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        with_wakers(&self.network, |state, wake| state.reader_gone(self.pipe, wake));
    }
}

struct Writer {
    wire: SimWire,
    pipe: PipeId,
    ended: bool,
}

impl Writer {
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && self.wire.power.is_on() {
            self.wire.network.lock().send(self.pipe, Item::End);
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.wire.power.is_on() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let mut state = self.wire.network.lock();
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match pipe.room(context.waker()) {
            None => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(room)) => {
                let taken = bytes.len().min(room);
                state.send(self.pipe, Item::Bytes(Bytes::copy_from_slice(&bytes[..taken])));
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}
