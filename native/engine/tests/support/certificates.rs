//! A CA for tests, and the certificates that it signs.

use std::fs;
use std::path::Path;

use quorate_engine::config::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

/// A CA that exists for one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate, key and CA in `directory`, good for `hosts` (names or addresses).
    pub fn issue(&self, directory: &Path, hosts: &[&str]) -> TlsFiles {
        self.issue_until(directory, hosts, 4000)
    }

    /// As [`Authority::issue`], until the first day of `year`.
    pub fn issue_until(&self, directory: &Path, hosts: &[&str], year: i32) -> TlsFiles {
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let files = TlsFiles::in_directory(directory);
        fs::create_dir_all(directory).unwrap();
        fs::write(&files.cert, params.signed_by(&key, &self.0).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.ca, self.pem()).unwrap();
        files
    }

    /// The CA's own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }
}
