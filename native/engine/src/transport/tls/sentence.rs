//! What rustls says, as a sentence for a person.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::error::{Code, Failure};

/// A handshake with the server at `address` failed.
pub(super) fn of_dialled(address: &str, error: &io::Error) -> io::Error {
    let why = match rustls_error(error) {
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it ended the connection during the TLS handshake; perhaps it does not speak TLS".into()
        }
        None => return io::Error::new(error.kind(), format!("the TLS handshake broke: {error}")),
        Some(error) => why(error),
    };
    Failure::new(Code::Refused, format!("The server at {address} is not trusted: {why}.")).into()
}

/// A handshake that somebody else began failed.
pub(super) fn of_accepted(error: &io::Error) -> io::Error {
    match rustls_error(error) {
        None => io::Error::new(error.kind(), format!("the TLS handshake broke: {error}")),
        Some(error) => Failure::new(Code::Refused, format!("It got nothing, for {}.", why(error))).into(),
    }
}

/// An open connection broke. `unheard`: we dialled, and not a byte came since the handshake. That is how a refusal of our own
/// certificate looks, since TLS 1.3 lets the client finish first.
pub(super) fn of_open(error: io::Error, unheard: bool) -> io::Error {
    match rustls_error(&error) {
        Some(reason) => Failure::new(Code::Refused, format!("TLS: {}", why(reason))).into(),
        None if unheard => unanswered(),
        None => error,
    }
}

/// See [`of_open`].
pub(super) fn unanswered() -> io::Error {
    let message = "it ended the connection right after the TLS handshake; perhaps it did not accept this node's \
                   certificate, which its log would tell";
    Failure::new(Code::Refused, message).into()
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn why(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it showed no certificate".into(),
        Error::InvalidCertificate(reason) => format!("its certificate {}", of_certificate(reason)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS".into(),
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion) => {
            "it knows no TLS that both could speak".into()
        }
        Error::AlertReceived(alert) => format!("it did not accept this node's certificate (alert {alert:?})"),
        Error::PeerIncompatible(reason) => format!("it knows no TLS that both could speak ({reason:?})"),
        other => other.to_string(),
    }
}

fn of_certificate(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "is not signed by the CA of :tls".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host than the one that was dialled".into()
        }
        other => format!("cannot be accepted: {other}"),
    }
}
