//! Why an exchange failed, in words for whoever typed the URL.

use std::fmt;

use rustls::{CertificateError, Error as TlsError};

use crate::wire::http::body::BadFraming;
use crate::wire::http::head::HeadError;

/// Why an exchange failed. It is over, and its connection is to be closed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The server's certificate is signed by nobody whom this machine trusts.
    UnknownIssuer,
    /// The server's certificate is for other names.
    WrongName,
    /// The server's certificate is not valid at this time: its, or this machine's, clock.
    Expired,
    /// The server's certificate cannot be used for another reason.
    Certificate(CertificateError),
    /// Both sides could not agree on a TLS connection, or it broke. Boxed: it is large and rare.
    Tls(Box<TlsError>),
    /// The answer is no HTTP/1.
    Head(HeadError),
    /// Nobody can say where the answer ends.
    Framing(BadFraming),
    /// The chunked coding is broken.
    Chunked,
    /// The connection ended before the answer began.
    NoAnswer,
    /// The connection ended before the answer did.
    Truncated,
    /// The answer is larger than what is taken.
    TooLarge,
    /// The answer did not begin in time.
    SlowAnswer,
    /// The answer stopped coming.
    Stalled,
    /// The answer did not end in time.
    TooLong,
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        match error {
            TlsError::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer => Failure::UnknownIssuer,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Failure::WrongName,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Failure::Expired,
                other => Failure::Certificate(other),
            },
            other => Failure::Tls(Box::new(other)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::UnknownIssuer => f.write_str(
                "the server's certificate is signed by nobody whom this machine trusts \
                 (SSL_CERT_FILE can name a file of further roots)",
            ),
            Failure::WrongName => f.write_str("the server's certificate is for another name"),
            Failure::Expired => f.write_str(
                "the server's certificate has expired or is not valid yet; is this machine's \
                 clock right?",
            ),
            Failure::Certificate(error) => write!(f, "the server's certificate: {error}"),
            Failure::Tls(error) => write!(f, "TLS: {error}"),
            Failure::Head(HeadError::Version) => f.write_str("the server speaks another HTTP"),
            Failure::Head(HeadError::TooLarge | HeadError::TooManyLines) => {
                f.write_str("the head of the answer is too large")
            }
            Failure::Head(_) => f.write_str("the answer is no HTTP"),
            Failure::Framing(_) => f.write_str("the answer does not say clearly where it ends"),
            Failure::Chunked => f.write_str("the chunks of the answer are broken"),
            Failure::NoAnswer => f.write_str("the server closed without an answer"),
            Failure::Truncated => f.write_str("the connection ended in the middle of the answer"),
            Failure::TooLarge => f.write_str("the answer is too large"),
            Failure::SlowAnswer => f.write_str("no answer in time"),
            Failure::Stalled => f.write_str("the answer stopped coming"),
            Failure::TooLong => f.write_str("the answer did not end in time"),
        }
    }
}

impl std::error::Error for Failure {}
