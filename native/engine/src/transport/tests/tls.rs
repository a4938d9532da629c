//! TLS: who gets in, and what those get who do not.

use std::io;
use std::path::Path;

use futures_util::FutureExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls::certificates::Authority;
use super::*;
use crate::config::TlsFiles;
use crate::transport::tls::Tls;
use crate::transport::wire::{LoopbackTcp, Tcp, Wire};

/// The integration tests' own.
#[path = "../../../tests/support/certificates.rs"]
pub mod certificates;

/// A CA, and the files of some who trust it.
pub struct World {
    pub directory: TempDir,
    pub authority: Authority,
}

impl World {
    pub fn new() -> World {
        World { directory: tempfile::tempdir().unwrap(), authority: Authority::new() }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Files for a member on this host.
    pub fn member(&self, name: &str) -> TlsFiles {
        self.authority.issue(&self.path(name), &["127.0.0.1"])
    }
}

pub(super) fn wire(files: TlsFiles) -> Tls {
    Tls::new(files, Box::new(|_| ())).unwrap()
}

pub(super) async fn serve_on(wire: &dyn Wire, echo: &Arc<Echo>) -> Transport {
    let options = TransportOptions { connections_max: 64, handshake: Duration::from_millis(1500) };
    Transport::listen_on(wire, HERE, Arc::new(EchoService(echo.clone())), options).await.unwrap()
}

pub(super) fn echo() -> Arc<Echo> {
    Arc::new(Echo::new(identity(1, Some(7))))
}

pub(super) fn peers_over(wire: impl Wire) -> Peers {
    Peers::over(Arc::new(wire), || identity(2, Some(7)))
}

pub(super) async fn call(peers: &Peers, address: &str) -> Result<Bytes, Failure> {
    peers.call(address, None, ECHO, Bytes::from_static(b"hi"), SOON).await
}

/// That `wire` gets no service at `transport`, and the sentence with which it is told.
async fn turned_away(wire: impl Wire, transport: &Transport, echo: &Echo) -> String {
    let failure = call(&peers_over(wire), transport.address()).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused, "{failure}");
    assert_eq!(echo.most.load(Ordering::SeqCst), 0, "a call was served");
    failure.message
}

#[tokio::test]
async fn calls_appends_and_snapshots_pass_between_members() {
    let world = World::new();
    let echo = echo();
    let transport = serve_on(&wire(world.member("a")), &echo).await;
    let peers = peers_over(wire(world.member("b")));
    assert_eq!(call(&peers, transport.address()).await.unwrap(), "hi");
    let large = Bytes::from((0..5_000_000u32).map(|at| at as u8).collect::<Vec<_>>());
    assert_eq!(peers.call(transport.address(), None, MEMBERS_ECHO, large.clone(), SOON).await.unwrap(), large);
    let (mut sender, mut receiver) = peers.open_append(transport.address(), 1, SOON).await.unwrap();
    for number in 0..100u8 {
        sender.push(&[Bytes::from(vec![number; 10_000])]).unwrap();
        sender.flush().await.unwrap();
        assert_eq!(receiver.next().await.unwrap().unwrap(), vec![number; 10_000]);
    }
    drop(sender);
    assert_eq!(timeout(SOON, receiver.next()).await.unwrap(), Ok(None), "dropping one half must tell the peer");
}

#[tokio::test]
async fn nothing_is_readable_on_the_network() {
    let world = World::new();
    let echo = echo();
    let transport = serve_on(&wire(world.member("a")), &echo).await;
    let tap = TcpListener::bind(HERE).await.unwrap();
    let (address, target) = (tap.local_addr().unwrap().to_string(), transport.address().to_owned());
    let seen = tokio::spawn(async move {
        let (near, _) = tap.accept().await.unwrap();
        let far = TcpStream::connect(target).await.unwrap();
        let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
        let mut seen = Vec::new();
        let back = tokio::spawn(async move { copy(&mut far_in, &mut near_out).await });
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = near_in.read(&mut piece).await {
            seen.extend_from_slice(&piece[..count]);
            if far_out.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
        back.abort();
        seen
    });
    let peers = peers_over(wire(world.member("b")));
    let secret = Bytes::from_static(b"the secret that nobody else may read");
    assert_eq!(peers.call(&address, None, ECHO, secret.clone(), SOON).await.unwrap(), secret);
    peers.close();
    let seen = timeout(SOON, seen).await.unwrap().unwrap();
    for plain in [&secret[..], b"QRTP", b"server2"] {
        assert!(!seen.is_empty() && !seen.windows(plain.len()).any(|window| window == plain), "{plain:?} is readable");
    }
}

/// A client of TLS without a certificate, or with the one in `files`, that trusts the CA in `ca`.
fn client(ca: &Path, files: Option<&TlsFiles>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match files {
        None => config.with_no_client_auth(),
        Some(files) => {
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
            config.with_client_auth_cert(vec![CertificateDer::from_pem_file(&files.cert).unwrap()], key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// What a client that speaks TLS gets out of the server when it sends a handshake of Quorate's at once.
async fn extracted(connector: TlsConnector, address: &str) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    let talk = async {
        let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await?;
        stream.write_all(&hostile::hello(1, 1, 1)).await?;
        stream.flush().await?;
        let mut got = [0; 64];
        let count = stream.read(&mut got).await?;
        Ok::<_, io::Error>(got[..count].to_vec())
    };
    timeout(SOON, talk).await.expect("the server must answer or hang up").unwrap_or_default()
}

#[tokio::test]
async fn who_has_no_certificate_of_the_ca_gets_not_one_byte_of_the_protocol() {
    let world = World::new();
    let warned = Warned::default();
    let _guard = tracing::subscriber::set_default(warned.clone());
    let echo = echo();
    let files = world.member("a");
    let transport = serve_on(&wire(files.clone()), &echo).await;
    let stranger = Authority::new().issue(&world.path("stranger"), &["127.0.0.1"]);
    let expired = world.authority.issue_until(&world.path("expired"), &["127.0.0.1"], 2001);
    for (files_of_client, reason) in [
        (None, "it showed no certificate"),
        (Some(&stranger), "its certificate is not signed by the CA"),
        (Some(&expired), "its certificate has expired"),
    ] {
        assert_eq!(extracted(client(&files.ca, files_of_client), transport.address()).await, b"", "{reason}");
        eventually(reason, || warned.contains(&format!("It got nothing, for {reason}"))).await;
    }
    assert_eq!(echo.most.load(Ordering::SeqCst), 0);
    // The same client with a member's certificate is welcome, so it is not something else that kept the others out.
    let welcome = extracted(client(&files.ca, Some(&world.member("b"))), transport.address()).await;
    assert_eq!(welcome.get(4), Some(&2), "{welcome:?} is no WELCOME");
    // Quorate's own client is told what happened.
    let mut trusting = stranger.clone();
    trusting.ca = files.ca.clone();
    let sentence = turned_away(wire(trusting), &transport, &echo).await;
    assert!(sentence.contains("not accept this node's certificate"), "{sentence}");
}

/// A server of TLS with the certificate in `files` that takes anybody; yields what it could read.
async fn rogue(files: &TlsFiles) -> (String, tokio::task::JoinHandle<usize>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind(HERE).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let read = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            Ok(mut stream) => copy(&mut stream, &mut sink()).await.unwrap_or(0) as usize,
            Err(_) => 0,
        }
    });
    (address, read)
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_right_hears_not_one_byte() {
    let world = World::new();
    let stranger = Authority::new().issue(&world.path("stranger"), &["127.0.0.1"]);
    let elsewhere = world.authority.issue(&world.path("elsewhere"), &["node9.example", "127.0.0.9"]);
    let expired = world.authority.issue_until(&world.path("expired"), &["127.0.0.1"], 2001);
    let member = wire(world.member("a"));
    for (files, reason) in [
        (stranger, "not signed by the CA of :tls"),
        (elsewhere, "for another host than the one that was dialled"),
        (expired, "has expired"),
    ] {
        let (address, read) = rogue(&files).await;
        let failure = call(&peers_over(member.clone()), &address).await.unwrap_err();
        assert_eq!(failure.code, Code::Refused, "{failure}");
        assert!(failure.message.contains(reason) && failure.message.contains(&address), "{failure}");
        assert_eq!(timeout(SOON, read).await.unwrap().unwrap(), 0, "{reason}: it heard something");
    }
}

#[tokio::test]
async fn plain_text_and_tls_do_not_mix_and_both_sides_say_so() {
    let world = World::new();
    let warned = Warned::default();
    let _guard = tracing::subscriber::set_default(warned.clone());
    let echo = echo();
    let secured = serve_on(&wire(world.member("a")), &echo).await;
    let sentence = turned_away(Tcp, &secured, &echo).await;
    assert!(sentence.contains("speaks TLS, and this node does not"), "{sentence}");
    eventually("a warning of the secured", || warned.contains("It got nothing, for it does not speak TLS")).await;
    let plain = serve_on(&Tcp, &echo).await;
    let sentence = turned_away(wire(world.member("b")), &plain, &echo).await;
    assert!(sentence.contains("perhaps it does not speak TLS"), "{sentence}");
    eventually("a warning of the plain", || warned.contains("speaks TLS, and this node does not")).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_holds_up_nobody_and_is_cut() {
    let world = World::new();
    let warned = Warned::default();
    let _guard = tracing::subscriber::set_default(warned.clone());
    let transport = serve_on(&wire(world.member("a")), &echo()).await;
    let mut slow = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(transport.address()).await.unwrap();
        stream.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
        slow.push(stream);
    }
    let peers = peers_over(wire(world.member("b")));
    assert_eq!(call(&peers, transport.address()).await.unwrap(), "hi");
    for mut stream in slow {
        // Closed, with or without a reason.
        drop(timeout(SOON, copy(&mut stream, &mut sink())).await.expect("a slow handshake must be cut"));
    }
    assert!(warned.contains("did not answer the handshake within 1500 ms"));
}

#[tokio::test]
async fn without_tls_or_a_word_of_trust_nothing_leaves_loopback() {
    // Documentation addresses (RFC 5737): were the wire to try, it would wait, not be refused at once.
    for far in ["192.0.2.1:7000", "0.0.0.0:0", "[2001:db8::1]:7000"] {
        let refused = LoopbackTcp.connect(far).now_or_never();
        let refused = match refused {
            Some(refused) => refused,
            None => timeout(SOON, LoopbackTcp.connect(far)).await.unwrap(),
        };
        let connected = refused.err().expect("refused").to_string();
        let listening = LoopbackTcp.listen(far).await.err().expect("refused").to_string();
        for sentence in [connected, listening] {
            assert!(sentence.contains("not on loopback") && sentence.contains(":insecure true"), "{sentence}");
        }
    }
    let echo = echo();
    let transport = serve_on(&LoopbackTcp, &echo).await;
    assert_eq!(call(&peers_over(LoopbackTcp), transport.address()).await.unwrap(), "hi");
}
