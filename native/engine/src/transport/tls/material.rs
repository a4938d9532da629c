//! Certificates, key and CA as they were read, and what TLS makes of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::TlsFiles;
use crate::error::Failure;
use crate::limits::TLS_FILE_BYTES_MAX;

/// The three files as they are on disk.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Texts {
    /// Reads the files; waits for the disk. Fails with `Invalid`.
    pub(super) fn read(files: &TlsFiles) -> Result<Texts, Failure> {
        Ok(Texts { cert: read(&files.cert)?, key: read(&files.key)?, ca: read(&files.ca)? })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let file = File::open(path).and_then(|file| file.take(TLS_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    file.map_err(|error| Failure::invalid(format!("The file {} of :tls cannot be read: {error}.", path.display())))?;
    if text.len() > TLS_FILE_BYTES_MAX {
        return Err(wrong(path, format!("has more than {TLS_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::invalid(format!("The file {} of :tls {why}.", path.display()))
}

/// What connections are made with.
pub(super) struct Material {
    /// What it was made of.
    pub texts: Texts,
    /// For connections to others.
    pub client: Arc<ClientConfig>,
    /// For connections from others.
    pub server: Arc<ServerConfig>,
}

impl Material {
    /// Reads and builds; waits for the disk. Fails with `Invalid`.
    pub(super) fn read(files: &TlsFiles) -> Result<Material, Failure> {
        Material::build(Texts::read(files)?, files)
    }

    /// Fails with `Invalid` and the file that is wrong.
    pub(super) fn build(texts: Texts, files: &TlsFiles) -> Result<Material, Failure> {
        let chain = certificates(&texts.cert, &files.cert)?;
        let roots = Arc::new(roots(&texts.ca, &files.ca)?);
        let provider = Arc::new(ring::default_provider());
        let client = client(&provider, roots.clone(), chain.clone(), key(&texts.key, &files.key)?);
        let client = client.map_err(|error| unusable(files, &error))?;
        let server = server(&provider, roots, chain, key(&texts.key, &files.key)?);
        let server = server.map_err(|error| unusable(files, &error))?;
        Ok(Material { texts, client: Arc::new(client), server: Arc::new(server) })
    }
}

fn unusable(files: &TlsFiles, error: &rustls::Error) -> Failure {
    let (cert, key) = (files.cert.display(), files.key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => {
            Failure::invalid(format!("The key {key} of :tls does not belong to the certificate {cert}."))
        }
        error => {
            Failure::invalid(format!("The certificate {cert} with the key {key} of :tls cannot be used: {error}."))
        }
    }
}

fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(path, format!("is no PEM file: {error}")))?;
    if found.is_empty() {
        return Err(wrong(path, "holds no certificate in PEM"));
    }
    Ok(found)
}

fn key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(text)
        .map_err(|error| wrong(path, format!("holds no private key in PEM without a password: {error}")))
}

fn roots(text: &[u8], path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path)? {
        roots.add(certificate).map_err(|error| wrong(path, format!("holds what is no CA's certificate: {error}")))?;
    }
    Ok(roots)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
