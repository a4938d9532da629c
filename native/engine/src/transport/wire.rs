//! The seam under the transport: how byte streams come about. Plain TCP is here, TLS in [`super::tls`], datagrams that a host carries
//! in [`super::carried`]; a simulated network is another.

use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::config::plain_text_refused;
use crate::error::Code;

/// The reading half of a connection.
pub type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The writing half of a connection.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Connections that the operating system has accepted and the transport has not yet taken.
const BACKLOG: u32 = 1_024;

/// A connection, ready for use in both directions.
pub struct Duplex {
    /// What the other side sends.
    pub reader: ReadHalf,
    /// What goes to the other side; dropping it ends the connection in this direction.
    pub writer: WriteHalf,
    /// The other side's address, for log lines.
    pub remote: String,
}

/// Something that hands out connections made from elsewhere.
pub trait Listener: Send {
    /// The address that was really bound (port 0 is replaced by the chosen one).
    fn address(&self) -> String;

    /// The next connection. Dropping the future loses none. Errors concern one connection or a passing lack of
    /// resources; the listener stays usable.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>>;
}

/// A way to connect and to listen.
pub trait Wire: Send + Sync + 'static {
    /// Connects to `address`, `host:port`. Fails with the operating system's error.
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>>;

    /// Listens on `address`, `host:port`. Fails with the operating system's error, `AddrInUse` when somebody already
    /// listens there.
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// Plain TCP, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Wire for Tcp {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(duplex(connect_tcp(&address).await?, address)) })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(Box::new(listen_tcp(&address).await?) as Box<dyn Listener>) })
    }
}

/// Plain TCP that does not leave this machine: no connection beyond loopback is made or taken. Whatever address comes up, from the
/// configuration or from another node, nothing is sent in plain text to it unless the user said that this is right.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackTcp;

impl Wire for LoopbackTcp {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let address = address.to_owned();
        Box::pin(async move {
            let near = loopback_of(&address).await?;
            Ok(duplex(configured(TcpStream::connect(&near[..]).await?)?, address))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(Box::new(bind_first(loopback_of(&address).await?)?) as Box<dyn Listener>) })
    }
}

/// The addresses on loopback that `address` stands for. Fails with a [`crate::Failure`] of `Refused` when there is none.
async fn loopback_of(address: &str) -> io::Result<Vec<SocketAddr>> {
    let near: Vec<SocketAddr> = lookup_host(address).await?.filter(|resolved| resolved.ip().is_loopback()).collect();
    if near.is_empty() {
        return Err(plain_text_refused(Code::Refused, address).into());
    }
    Ok(near)
}

/// Connects by TCP, without Nagle's delay.
pub(super) async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    configured(TcpStream::connect(address).await?)
}

/// Listens on the first of the addresses that `address` stands for on which this is possible.
pub(super) async fn listen_tcp(address: &str) -> io::Result<TcpListener> {
    bind_first(lookup_host(address).await?)
}

/// The next connection, without Nagle's delay, and where it comes from.
pub(super) async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, String)> {
    let (stream, remote) = listener.accept().await?;
    Ok((configured(stream)?, remote.to_string()))
}

fn bind_first(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpListener> {
    let mut reason = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

/// Binds with SO_REUSEADDR, so that a restart need not wait for old connections to leave TIME_WAIT (two live listeners
/// still exclude each other), and with keep-alive, which accepted sockets inherit: a peer that vanished without a word
/// does not hold its connection for ever.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener for TcpListener {
    fn address(&self) -> String {
        self.local_addr().map_or_else(|_| String::from("(unknown)"), |address| address.to_string())
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>> {
        Box::pin(async move {
            let (stream, remote) = accept_tcp(self).await?;
            Ok(duplex(stream, remote))
        })
    }
}

fn configured(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn duplex(stream: TcpStream, remote: String) -> Duplex {
    let (reader, writer) = stream.into_split();
    Duplex { reader: Box::new(reader), writer: Box::new(writer), remote }
}
