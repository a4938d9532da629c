//! The side of the transport that others connect to.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, sleep};

use crate::error::{Code, Failure};
use crate::limits::{CONNECTIONS_MAX, HANDSHAKE_FRAME_BYTES_MAX};

use super::frame::FrameSink;
use super::handshake::{Purpose, receive, refuse};
use super::serve::{Context, serve_append, serve_calls, serve_snapshot};
use super::service::Service;
use super::warnings::Warnings;
use super::wire::{Duplex, Listener, Tcp, Wire};

/// How long a new connection may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Pause after the operating system could not hand out a connection (no file handles, for instance).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a [`Transport`]; the defaults are right outside of tests.
#[derive(Clone, Copy, Debug)]
pub struct TransportOptions {
    /// Connections at a time; further ones are refused.
    pub connections_max: usize,
    /// How long a new connection may take for its handshake.
    pub handshake: Duration,
}

impl Default for TransportOptions {
    fn default() -> TransportOptions {
        TransportOptions { connections_max: CONNECTIONS_MAX, handshake: HANDSHAKE }
    }
}

/// A listening transport. Dropping it closes it without waiting.
pub struct Transport {
    address: String,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Transport {
    /// Listens on `address` (`host:port`, port 0 for any) over TCP and serves `service`. Fails with `AddressInUse` when
    /// somebody already listens there, with `Io` when the address cannot be bound for another reason.
    pub async fn listen(address: &str, service: Arc<dyn Service>) -> Result<Transport, Failure> {
        Transport::listen_on(&Tcp, address, service, TransportOptions::default()).await
    }

    /// [`Transport::listen`] over any `wire`, with `options`.
    pub async fn listen_on(
        wire: &dyn Wire,
        address: &str,
        service: Arc<dyn Service>,
        options: TransportOptions,
    ) -> Result<Transport, Failure> {
        let listener = wire.listen(address).await.map_err(|error| cannot_listen(address, &error))?;
        let address = listener.address();
        let context = Arc::new(Context { service, warnings: Warnings::new() });
        let accepting = tokio::spawn(accept(listener, context, options));
        Ok(Transport { address, accepting: Mutex::new(Some(accepting)) })
    }

    /// Where it listens, with the port that was chosen.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops accepting and ends every connection. On return the address is free again. May be called more than once.
    pub async fn close(&self) {
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // The only outcome is "cancelled", which is what was asked for.
            let _ = accepting.await;
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().take() {
            accepting.abort();
        }
    }
}

fn cannot_listen(address: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AddrInUse {
        let message = format!(
            "The address {address} is already in use: stop the process that listens there, or give this node another \
             address."
        );
        return Failure::new(Code::AddressInUse, message);
    }
    Failure::io(format!("Cannot listen on {address}"), error)
}

/// Aborting this task drops the set, and with it every connection.
async fn accept(mut listener: Box<dyn Listener>, context: Arc<Context>, options: TransportOptions) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // As many as were accepted can end, so this holds up nobody for long.
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!("The task of a connection failed: {error}.");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok(connection) if connections.len() < options.connections_max => {
                    connections.spawn(serve(connection, context.clone(), options.handshake));
                }
                Ok(connection) => turn_away(connection, &context, options.connections_max),
                Err(error) => {
                    context.warnings.warn(format_args!("No connection could be accepted: {error}."));
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Refuses without a task: what does not fit into the socket's empty buffer at once is not worth waiting for.
fn turn_away(connection: Duplex, context: &Context, limit: usize) {
    let message = format!("The limit of {limit} connections is reached.");
    context.warnings.warn(format_args!("{} was refused. {message}", connection.remote));
    let group = context.service.identity().group;
    let mut sink = FrameSink::new(connection.writer, group, HANDSHAKE_FRAME_BYTES_MAX, connection.remote);
    if refuse(&mut sink, &Failure::new(Code::Overloaded, message)).is_ok() {
        let _ = sink.flush().now_or_never();
    }
}

async fn serve(connection: Duplex, context: Arc<Context>, handshake: Duration) {
    let remote = connection.remote.clone();
    let me = context.service.identity();
    let (reader, sink, peer, purpose) = match receive(connection, &me, handshake).await {
        Ok(received) => received,
        Err(failure) => {
            return context.warnings.warn(format_args!("Connection from {remote} closed. {failure}"));
        }
    };
    let name = peer.name.clone();
    let served = match purpose {
        Purpose::Calls => serve_calls(&context, me, peer, reader, sink).await,
        Purpose::Append => serve_append(&context, peer, reader, sink).await,
        Purpose::Snapshot => serve_snapshot(&context, peer, reader, sink).await,
    };
    match served {
        Ok(()) => {}
        // Peers come and go; that is no reason to warn.
        Err(failure) if failure.code == Code::Unavailable => {
            tracing::debug!("Node \"{name}\": {failure}")
        }
        Err(failure) => context.warnings.warn(format_args!("Connection of node \"{name}\" closed. {failure}")),
    }
}
