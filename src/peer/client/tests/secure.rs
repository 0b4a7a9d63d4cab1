//! TLS: who is believed, who is not, and what a cut connection is taken for.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ServerConfig, ServerConnection};

use super::*;
use crate::peer::client::tls::NoRoots;

/// Somebody who signs certificates.
struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority { root, issuer: Issuer::new(params, key) }
    }

    /// A server with a certificate for `names` that is valid in the years given.
    fn server(&self, names: &[&str], years: (i32, i32)) -> ServerConfig {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
    }

    fn tls(&self) -> Tls {
        Tls::new([self.root.clone()]).unwrap()
    }
}

const YEARS: (i32, i32) = (2020, 2030);

/// An exchange with a server in memory, driven until nothing moves. Each way, bytes travel in
/// pieces of `piece`.
struct Pair {
    client: Exchange,
    server: ServerConnection,
    heard: Heard,
    request: Vec<u8>,
    piece: usize,
}

impl Pair {
    fn new(config: ServerConfig, tls: &Tls, asked: &str, piece: usize) -> Pair {
        let client = Exchange::get(now(0), &url(asked), &[], Some(tls), LIMITS).unwrap();
        let server = ServerConnection::new(Arc::new(config)).unwrap();
        Pair { client, server, heard: Heard::default(), request: Vec::new(), piece }
    }

    fn run(&mut self) {
        loop {
            let mut moved = false;
            for bytes in self.client.take_output().chunks(self.piece) {
                moved = true;
                let mut bytes = bytes;
                while !bytes.is_empty() && self.server.read_tls(&mut bytes).is_ok() {
                    // A server told that it is not believed has nothing to add.
                    let _ = self.server.process_new_packets();
                    let _ = self.server.reader().read_to_end(&mut self.request);
                }
            }
            let mut out = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut out).unwrap();
            }
            for bytes in out.chunks(self.piece) {
                moved = true;
                self.client.handle_received(now(1), bytes, &mut |event| self.heard.take(event));
            }
            if !moved {
                return;
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.run();
    }

    fn close(&mut self) {
        self.client.handle_closed(true, &mut |event| {
            if self.heard.end.is_none() {
                self.heard.take(event);
            }
        });
    }
}

/// How an attempt to reach `asked` ends.
fn attempt(config: ServerConfig, tls: &Tls, asked: &str) -> Option<Result<(), Failure>> {
    let mut pair = Pair::new(config, tls, asked, usize::MAX);
    pair.run();
    if pair.heard.end.is_none() {
        pair.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    } else {
        assert_eq!(pair.request, b"", "nothing is told to a server that is not believed");
        assert_eq!(pair.heard.status, None);
    }
    pair.heard.end
}

#[test]
fn a_server_that_proves_its_name_is_believed() {
    let authority = Authority::new("A");
    let names = ["relay.example", "127.0.0.1", "::1"];
    for asked in [
        "https://relay.example/x",
        "https://Relay.example.:8443/x",
        "https://127.0.0.1/x",
        "https://[::1]:8443/x",
    ] {
        for piece in [1, 333, usize::MAX] {
            let server = authority.server(&names, YEARS);
            let mut pair = Pair::new(server, &authority.tls(), asked, piece);
            pair.run();
            assert!(pair.request.starts_with(b"GET /x HTTP/1.1\r\nHost: "));
            assert_eq!(pair.server.alpn_protocol(), None, "this server knows none");
            pair.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
            assert_eq!((pair.heard.status, &pair.heard.body[..]), (Some(200), &b"he"[..]));
            pair.answer(b"llo");
            assert_eq!((&pair.heard.body[..], pair.heard.end), (&b"hello"[..], Some(Ok(()))));
        }
    }
}

#[test]
fn everybody_else_is_not() {
    let authority = Authority::new("A");
    let tls = authority.tls();
    let good = "https://relay.example/";
    let server = |years| authority.server(&["relay.example"], years);
    assert_eq!(attempt(server(YEARS), &tls, good), Some(Ok(())));
    let (other, namesake) = (Authority::new("B"), Authority::new("A"));
    let forged = CertificateError::BadSignature;
    for (config, asked, failure) in [
        (server(YEARS), "https://other.example/", Failure::WrongName),
        (server(YEARS), "https://127.0.0.1/", Failure::WrongName),
        (server((2020, 2025)), good, Failure::Expired),
        (server((2027, 2030)), good, Failure::Expired),
        (other.server(&["relay.example"], YEARS), good, Failure::UnknownIssuer),
        (namesake.server(&["relay.example"], YEARS), good, Failure::Certificate(forged)),
    ] {
        assert_eq!(attempt(config, &tls, asked), Some(Err(failure)), "{asked}");
    }
}

#[test]
fn a_self_signed_certificate_is_no_root() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let end = attempt(config, &Authority::new("A").tls(), "https://relay.example/");
    assert_eq!(end, Some(Err(Failure::UnknownIssuer)));
}

#[test]
fn other_protocols_are_refused() {
    let authority = Authority::new("A");
    let mut config = authority.server(&["relay.example"], YEARS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let end = attempt(config, &authority.tls(), "https://relay.example/");
    assert!(matches!(end, Some(Err(Failure::Tls(_)))), "{end:?}");
    let mut config = authority.server(&["relay.example"], YEARS);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    assert_eq!(attempt(config, &authority.tls(), "https://relay.example/"), Some(Ok(())));
    // A server that speaks plain HTTP at the port of TLS.
    let asked = url("https://relay.example/");
    let mut client = Exchange::get(now(0), &asked, &[], Some(&authority.tls()), LIMITS).unwrap();
    let mut heard = Heard::default();
    let plain = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    client.handle_received(now(1), plain, &mut |event| heard.take(event));
    assert!(matches!(heard.end, Some(Err(Failure::Tls(_)))), "{:?}", heard.end);
}

#[test]
fn only_the_server_can_end_an_answer_without_length() {
    let authority = Authority::new("A");
    for (polite, end) in [(true, Ok(())), (false, Err(Failure::Truncated))] {
        let config = authority.server(&["relay.example"], YEARS);
        let mut pair = Pair::new(config, &authority.tls(), "https://relay.example/", 100);
        pair.run();
        pair.answer(b"HTTP/1.1 200 OK\r\n\r\nstream");
        assert_eq!((&pair.heard.body[..], &pair.heard.end), (&b"stream"[..], &None));
        if polite {
            pair.server.send_close_notify();
            pair.run();
        }
        pair.close();
        assert_eq!(pair.heard.end, Some(end));
    }
    // In the middle of the handshake.
    let config = authority.server(&["relay.example"], YEARS);
    let mut pair = Pair::new(config, &authority.tls(), "https://relay.example/", 100);
    pair.close();
    assert_eq!(pair.heard.end, Some(Err(Failure::NoAnswer)));
}

#[test]
fn large_answers_pass_whole() {
    let authority = Authority::new("A");
    let config = authority.server(&["relay.example"], YEARS);
    let mut pair = Pair::new(config, &authority.tls(), "https://relay.example/", usize::MAX);
    pair.client.limits.body = 1 << 20;
    pair.client.reader.room = 1 << 20;
    pair.server.set_buffer_limit(None);
    pair.run();
    let body: Vec<u8> = (0..1 << 20).map(|n| (n / 251) as u8).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    pair.answer(&[head.as_bytes(), &body].concat());
    assert_eq!(pair.heard.end, Some(Ok(())));
    assert!(pair.heard.body == body);
}

#[test]
fn https_needs_somebody_to_trust() {
    let asked = url("https://relay.example/");
    assert!(Exchange::get(now(0), &asked, &[], None, LIMITS).is_err());
    assert_eq!(Tls::new([]).unwrap_err(), NoRoots);
    let junk = CertificateDer::from(vec![1, 2, 3]);
    assert_eq!(Tls::new([junk.clone()]).unwrap_err(), NoRoots);
    assert!(Tls::new([junk, Authority::new("A").root]).is_ok(), "what cannot be read is left out");
    // Every failure has words of its own.
    let other = Failure::from(rustls::Error::InvalidCertificate(CertificateError::Revoked));
    assert_eq!(other, Failure::Certificate(CertificateError::Revoked));
    assert!(other.to_string().contains("Revoked"), "{other}");
}
