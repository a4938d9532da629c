//! TLS 1.3 over TCP, with a certificate on both sides.
//!
//! - Whoever connects checks that the other's certificate is signed by the CA of the configuration and names the host of the
//!   address that was dialled: its DNS name, or its IP address, among the certificate's subject alternative names, as in HTTPS.
//! - Whoever accepts checks that the other's certificate is signed by that CA. Which node it is, it says in the handshake of
//!   `transport::handshake`, and is believed: so the CA must sign for members of this cluster only.
//! - Before both checks are done, no byte of the protocol is read or written. Sessions are never resumed, so every connection is
//!   checked in full, with the certificates of that moment. A connection that is open stays so when certificates change.
//!
//! While somebody listens, the files are looked at every [`LOOK_EVERY`]; new ones hold for the connections made from then on. What
//! cannot be used changes nothing, and is reported when it is still so at the next look: files are replaced one by one.

mod material;
mod reload;
mod sentence;
mod stream;

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::TlsFiles;
use crate::error::{Code, Failure};

use self::material::Material;
use self::stream::duplex;
use super::wire::{Duplex, Listener, Wire, accept_tcp, connect_tcp, listen_tcp};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Told what is wrong with the files, and `None` when nothing is any more.
pub type Report = dyn Fn(Option<Failure>) + Send + Sync;

/// TCP with TLS. Clones share the certificates.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    current: RwLock<Arc<Material>>,
    report: Box<Report>,
    look_every: Duration,
}

impl Tls {
    /// Reads the certificates of `files`; `report` hears of later changes that cannot be used. Fails with `Invalid` and the name of
    /// the file that is missing or wrong.
    pub fn new(files: TlsFiles, report: Box<Report>) -> Result<Tls, Failure> {
        Tls::looking_every(LOOK_EVERY, files, report)
    }

    /// As [`Tls::new`], looking at the files so often.
    pub(super) fn looking_every(look_every: Duration, files: TlsFiles, report: Box<Report>) -> Result<Tls, Failure> {
        let current = RwLock::new(Arc::new(Material::read(&files)?));
        Ok(Tls(Arc::new(Shared { files, current, report, look_every })))
    }

    fn material(&self) -> Arc<Material> {
        self.0.current.read().clone()
    }
}

impl Wire for Tls {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let (material, address) = (self.material(), address.to_owned());
        Box::pin(async move {
            let host = host_of(&address)?;
            let stream = connect_tcp(&address).await?;
            let secured = TlsConnector::from(material.client.clone()).connect(host, stream).await;
            let secured = secured.map_err(|error| sentence::of_dialled(&address, &error))?;
            Ok(duplex(Box::pin(std::future::ready(Ok(secured.into()))), address, true))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (tls, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let tcp = listen_tcp(&address).await?;
            let looking = tokio::spawn(reload::keep_looking(tls.clone())).abort_handle();
            Ok(Box::new(TlsListener { tcp, tls, looking }) as Box<dyn Listener>)
        })
    }
}

/// The name that the certificate of the server at `address` must have.
fn host_of(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        let message = format!("{bare:?} is no name that a certificate can have.");
        Failure::new(Code::Refused, message).into()
    })
}

struct TlsListener {
    tcp: tokio::net::TcpListener,
    tls: Tls,
    looking: AbortHandle,
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Listener for TlsListener {
    fn address(&self) -> String {
        Listener::address(&self.tcp)
    }

    /// The handshake is done by whoever first reads or writes, so that a slow one holds up nobody else.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>> {
        Box::pin(async move {
            let (stream, remote) = accept_tcp(&self.tcp).await?;
            let handshake = receive(self.tls.material(), stream);
            Ok(duplex(Box::pin(handshake), remote, false))
        })
    }
}

async fn receive(material: Arc<Material>, stream: TcpStream) -> io::Result<tokio_rustls::TlsStream<TcpStream>> {
    let secured = TlsAcceptor::from(material.server.clone()).accept(stream).await;
    secured.map(Into::into).map_err(|error| sentence::of_accepted(&error))
}
