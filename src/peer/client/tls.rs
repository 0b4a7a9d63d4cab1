//! TLS as a layer between the bytes of a connection and the bytes of HTTP, without I/O.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::base::time::{Now, Utc};
use crate::peer::client::failure::Failure;
use crate::peer::client::url::{Host, Url};

/// Bytes of plaintext read at once: the largest TLS record.
const RECORD: usize = 16 * 1024;

/// None of the root certificates could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoots;

/// What all TLS connections of a process share: whom to trust, and sessions to resume.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    clock: Arc<Clock>,
}

/// The time at which certificates are judged: the `now` of the last call. TLS must not read a
/// clock of its own.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, utc: Utc) {
        // Nothing else is ordered by it.
        self.0.store(utc.as_unix_millis(), Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = Duration::from_millis(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(millis))
    }
}

impl Tls {
    /// Trusts `roots`. Those that are no valid certificates are left out: a machine's store
    /// often has some.
    ///
    /// # Errors
    /// [`NoRoots`] if none is left.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Tls, NoRoots> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        if store.is_empty() {
            return Err(NoRoots);
        }
        let clock = Arc::new(Clock::default());
        // Never `ClientConfig::builder()`: that takes whatever provider the process has set.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, clock.clone());
        // It fails only for a provider without a suite for these versions.
        let builder = builder.with_safe_default_protocol_versions().map_err(|_| NoRoots)?;
        let mut config = builder.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), clock })
    }

    /// Begins a connection to the server of `url`.
    pub(super) fn connect(&self, url: &Url) -> Result<Session, Failure> {
        let name = match url.host() {
            Host::Ip(ip) => ServerName::from(*ip),
            // A name with a final dot is the same name, but never in a certificate.
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_owned();
                ServerName::try_from(name).map_err(|_| Failure::WrongName)?
            }
        };
        let mut connection = ClientConnection::new(self.config.clone(), name)?;
        // What is written is one request; it must not be cut where rustls would stop.
        connection.set_buffer_limit(None);
        Ok(Session { connection, clock: self.clock.clone() })
    }
}

/// One TLS connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: ClientConnection,
    clock: Arc<Clock>,
}

/// What came out of the layer.
pub(super) enum Clear<'a> {
    /// Bytes of HTTP.
    Bytes(&'a [u8]),
    /// The server said that nothing more will come.
    End,
}

impl Session {
    /// Takes bytes of HTTP to send. They leave once the server has proven who it is.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        use std::io::Write;
        // Without a limit the buffer takes everything.
        let _ = self.connection.writer().write_all(bytes);
    }

    /// Moves what is to be sent over the connection to `out`.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        while self.connection.wants_write() && self.connection.write_tls(out).is_ok() {}
    }

    /// Takes bytes of the connection and hands over what they say.
    ///
    /// # Errors
    /// [`Failure`]; what came before has been handed over, and an alert is to be sent.
    pub(super) fn read(
        &mut self,
        now: Now,
        mut data: &[u8],
        sink: &mut dyn FnMut(Clear<'_>) -> bool,
    ) -> Result<(), Failure> {
        self.clock.set(now.utc);
        let mut room = [0; RECORD];
        while !data.is_empty() {
            // It takes a part only, if its buffers are full; the loop below empties them.
            if self.connection.read_tls(&mut data).is_err() {
                return Err(Failure::Truncated);
            }
            let state = self.connection.process_new_packets();
            while let Ok(n @ 1..) = self.connection.reader().read(&mut room) {
                if !sink(Clear::Bytes(&room[..n])) {
                    return Ok(());
                }
            }
            if state?.peer_has_closed() {
                sink(Clear::End);
                return Ok(());
            }
        }
        Ok(())
    }
}
