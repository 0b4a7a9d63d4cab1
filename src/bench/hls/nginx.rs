//! nginx as it is installed, with a configuration made here: one process that serves a folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Outcome;
use crate::bench::child::{Child, foreign};
use crate::bench::machine;
use crate::bench::shelf::Shelf;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// A port that was free may be taken by somebody else before nginx has it.
const TRIES: usize = 3;

/// Where distributions put it, if PATH does not say.
const PLACES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Its program.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    folders.map(|folder| folder.join("nginx")).find(|program| program.is_file())
}

/// A running nginx. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Starts `program` on `cores`, for `clients`, with its files and what it serves on `shelf`.
    ///
    /// # Errors
    /// If it does not start: what it said.
    pub fn start(program: &Path, shelf: &Shelf, clients: usize, cores: &[usize]) -> Outcome<Nginx> {
        let mut said = String::new();
        for _ in 0..TRIES {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            match Nginx::on(free, program, shelf, clients, cores)? {
                Ok(nginx) => return Ok(nginx),
                Err(why) => said = why,
            }
        }
        Err(format!("{} did not start; it said:\n{said}", program.display()).into())
    }

    fn on(
        address: SocketAddr,
        program: &Path,
        shelf: &Shelf,
        clients: usize,
        cores: &[usize],
    ) -> Outcome<Result<Nginx, String>> {
        let (file, log) = (shelf.path().join("nginx.conf"), shelf.path().join("log"));
        fs::write(&file, configuration(address, shelf.path(), clients))?;
        let text = |path: &Path| path.display().to_string();
        let arguments =
            ["-e".to_owned(), text(&log), "-c".to_owned(), text(&file), "-p".to_owned()];
        let arguments = [&arguments[..], &[text(shelf.path())]].concat();
        let mut command = foreign(cores, program, &arguments)?;
        let output = fs::File::create(shelf.path().join("said"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = Child::start("nginx", &mut command)?;
        let start = Instant::now();
        loop {
            let ended = child.has_ended()?.is_some();
            if !ended && TcpStream::connect(address).is_ok() {
                return Ok(Ok(Nginx { child, address }));
            }
            if ended || start.elapsed() > PATIENCE {
                let said = ["log", "said"].map(|name| fs::read_to_string(shelf.path().join(name)));
                return Ok(Err(said.map(Result::unwrap_or_default).concat()));
            }
            thread::sleep(LOOK);
        }
    }

    /// Where players go.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.address
    }

    /// Its processor time.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu(&self) -> Outcome<Duration> {
        machine::process_cpu(self.child.pid())
    }

    /// Its write calls, and what they wrote.
    ///
    /// # Errors
    /// If it has ended.
    pub fn writes(&self) -> Outcome<[u64; 2]> {
        machine::writes(self.child.pid())
    }
}

/// What an operator who wants speed would write. `master_process off` makes the one process the
/// worker: nothing is left when it is killed.
fn configuration(address: SocketAddr, folder: &Path, clients: usize) -> String {
    let (folder, connections) = (folder.display(), clients + 512);
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    let lines = [
        "daemon off;".to_owned(),
        "master_process off;".to_owned(),
        "worker_processes 1;".to_owned(),
        format!("pid {folder}/pid;"),
        format!("error_log {folder}/log warn;"),
        "events {".to_owned(),
        "    use epoll;".to_owned(),
        "    multi_accept on;".to_owned(),
        format!("    worker_connections {connections};"),
        "}".to_owned(),
        "http {".to_owned(),
        paths.trim_end().to_owned(),
        "    access_log off;".to_owned(),
        "    sendfile on;".to_owned(),
        "    tcp_nopush on;".to_owned(),
        "    tcp_nodelay on;".to_owned(),
        "    keepalive_timeout 120s;".to_owned(),
        "    keepalive_requests 1000000;".to_owned(),
        "    types {".to_owned(),
        "        application/vnd.apple.mpegurl m3u8;".to_owned(),
        "        video/mp2t ts;".to_owned(),
        "    }".to_owned(),
        "    server {".to_owned(),
        format!("        listen {address} backlog=4096;"),
        format!("        root {folder}/www;"),
        "    }".to_owned(),
        "}\n".to_owned(),
    ];
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_whole() {
        let text = configuration("127.0.0.1:99".parse().unwrap(), Path::new("/x"), 100);
        let count = |c: char| text.chars().filter(|found| *found == c).count();
        assert_eq!(count('{'), count('}'));
        for word in ["listen 127.0.0.1:99 ", "root /x/www;", "worker_connections 612;"] {
            assert!(text.contains(word), "{word} is not in:\n{text}");
        }
        // Each directive ends, each block opens or closes.
        assert!(text.lines().all(|line| line.ends_with([';', '{', '}'])), "{text}");
    }
}
