//! A connection as the transport sees it: a half to read and a half to write. Whatever is done to either, the hub sends what
//! follows of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::hub::Hub;

/// Gives an attempted connection up unless it came about.
struct Attempt {
    hub: Arc<Hub>,
    connection: Option<Arc<Connection>>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.hub.abort(&connection);
        }
    }
}

/// Waits until `connection`, just asked for, is open.
pub(super) async fn opened(hub: &Arc<Hub>, connection: Arc<Connection>) -> io::Result<(Reader, Writer)> {
    let mut attempt = Attempt { hub: hub.clone(), connection: Some(connection.clone()) };
    hub.step(&connection, |_, _| ());
    std::future::poll_fn(|context| connection.lock().poll_open(context)).await?;
    attempt.connection = None;
    Ok(halves(hub, connection))
}

/// The two halves of `connection`.
pub(super) fn halves(hub: &Arc<Hub>, connection: Arc<Connection>) -> (Reader, Writer) {
    (Reader { hub: hub.clone(), connection: connection.clone() }, Writer { hub: hub.clone(), connection })
}

/// What the peer sends.
pub(super) struct Reader {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
}

/// What goes to the peer; dropping it ends this direction after what was written.
pub(super) struct Writer {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.hub.step(&self.connection, |state, now| state.poll_read(context, out, now))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hub.step(&self.connection, |state, _| state.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hub.step(&self.connection, |state, _| {
            state.flush();
            Poll::Ready(state.check())
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hub.step(&self.connection, |state, _| state.finish());
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.step(&self.connection, |state, _| state.drop_reader());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hub.step(&self.connection, |state, _| state.drop_writer());
    }
}
