//! The seam under the transport: how byte streams come about. TCP is the implementation; a simulated network or TLS
//! would be others.

use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

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
        Box::pin(async move { duplex(TcpStream::connect(&address).await?, address) })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let mut reason = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
            for resolved in lookup_host(&address).await? {
                match bind(resolved) {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Listener>),
                    Err(error) => reason = error,
                }
            }
            Err(reason)
        })
    }
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
            let (stream, remote) = TcpListener::accept(self).await?;
            duplex(stream, remote.to_string())
        })
    }
}

fn duplex(stream: TcpStream, remote: String) -> io::Result<Duplex> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Duplex { reader: Box::new(reader), writer: Box::new(writer), remote })
}
