//! A connection whose handshake may be still to come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::super::wire::Duplex;
use super::sentence;

type Handshake = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send + Sync>>;

enum State {
    Shaking(Handshake),
    Open(Box<TlsStream<TcpStream>>),
    Broken,
}

struct Secured {
    state: State,
    dialled: bool,
    heard: bool,
}

/// The two halves of a connection. `dialled`: made by this side.
pub(super) fn duplex(handshake: Handshake, remote: String, dialled: bool) -> Duplex {
    let (reader, writer) = split(Secured { state: State::Shaking(handshake), dialled, heard: false });
    Duplex { reader: Box::new(reader), writer: Box::new(Writer(writer)), remote }
}

impl Secured {
    /// The open connection. Nothing of the protocol passes before the handshake is done.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let State::Shaking(handshake) = &mut self.state {
            self.state = match ready!(handshake.as_mut().poll(context)) {
                Ok(stream) => State::Open(Box::new(stream)),
                Err(error) => {
                    self.state = State::Broken;
                    return Poll::Ready(Err(error));
                }
            };
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            _ => Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "the TLS handshake failed"))),
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = ready!(ready!(self.poll_open(context))?.poll_read(context, out));
        let unheard = self.dialled && !self.heard;
        self.heard |= out.filled().len() > before;
        Poll::Ready(match read {
            Ok(()) if unheard && !self.heard && out.remaining() > 0 => Err(sentence::unanswered()),
            Ok(()) => Ok(()),
            Err(error) => Err(sentence::of_open(error, unheard)),
        })
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?.poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Ends its direction when it is dropped, as a half of a TCP connection does.
struct Writer(tokio::io::WriteHalf<Secured>);

impl Drop for Writer {
    fn drop(&mut self) {
        // What does not fit into the socket now is not waited for; the connection ends with its other half at the latest.
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
