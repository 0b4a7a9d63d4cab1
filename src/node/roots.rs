//! The root certificates of this machine, for whoever fetches over https.

use rustls_native_certs::load_native_certs;

use crate::peer::client::Tls;

/// Whom this machine trusts: the files that OpenSSL would read, or those that `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` name. Reads files: not for a thread that must not wait.
///
/// # Errors
/// A sentence for the user, if there is nobody to trust.
pub fn system_tls() -> Result<Tls, String> {
    let found = load_native_certs();
    let problems = found.errors.len();
    for problem in &found.errors {
        tracing::debug!("root certificates: {problem}");
    }
    if problems > 0 && !found.certs.is_empty() {
        tracing::warn!("{problems} files of root certificates cannot be read; the rest is used");
    }
    Tls::new(found.certs).map_err(|_| match found.errors.first() {
        Some(problem) => format!("no root certificates for https: {problem}"),
        None => "no root certificates for https: install the package ca-certificates, or name a \
                 file of them in SSL_CERT_FILE"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Says what a process whose `SSL_CERT_FILE` is `file` finds.
    fn found(file: &std::path::Path) -> String {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "node::roots::tests::a_file_names_whom_to_trust", "--nocapture"]);
        child
            .env("SSL_CERT_FILE", file)
            .env("HEADWATER_ROOTS_TEST", "1")
            .env_remove("SSL_CERT_DIR");
        let out = child.output().unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    #[test]
    fn a_file_names_whom_to_trust() {
        if env::var_os("HEADWATER_ROOTS_TEST").is_some() {
            // The environment belongs to the whole process, so a process of its own looks.
            panic!("{}", system_tls().map_or_else(|why| why, |_| "trusts somebody".to_owned()));
        }
        let dir = tempfile::tempdir().unwrap();
        let (good, empty) = (dir.path().join("good.pem"), dir.path().join("empty.pem"));
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        fs::write(&good, root.pem()).unwrap();
        fs::write(&empty, "").unwrap();
        assert!(found(&good).contains("trusts somebody"), "{}", found(&good));
        for none in [empty, dir.path().join("missing.pem")] {
            assert!(found(&none).contains("no root certificates for https: "), "{none:?}");
        }
    }
}
