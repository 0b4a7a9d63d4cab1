//! Whether io_uring can serve here: by doing everything once that the driver does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::{ConnId, ListenerId, ShardId, SocketId};
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::io::clock::Clock;
use crate::io::driver::Setup;
use crate::io::machine::{Input, Machine, Outbox, Output};
use crate::io::mailbox::Post;
use crate::io::{socket, udp, uring};
use crate::metrics::cells::Cells;

/// How long any step of the probe may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the real driver with a machine that answers one request over loopback: the ring with
/// its flags, the buffer rings, multishot accept and receive, of datagrams as well, both kinds of
/// send, the bell.
/// Takes about a millisecond, at worst a few seconds.
///
/// # Errors
/// One line for a human, with the likely cause.
pub fn uring() -> Result<(), String> {
    attempt().map_err(|error| explain(&error))
}

/// Whether io_uring can hold connections for which the process has no descriptor.
///
/// # Errors
/// One line for a human.
pub fn uring_table() -> Result<(), String> {
    uring::probe_table().map_err(|error| {
        format!("this kernel cannot hold sockets in a ring: Linux 6.7 is needed ({error})")
    })
}

/// Why it does not work, as far as the error tells.
fn explain(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "forbidden by the io_uring_disabled sysctl or by seccomp (Docker's default profile)"
        }
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp profile hides it",
        Some(libc::ENOMEM) => "no memory: raise the memlock limit (ulimit -l)",
        Some(libc::EINVAL | libc::EOPNOTSUPP) => "this kernel is too old: Linux 6.0 is needed",
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor left: raise the nofile limit",
        _ => "a trial run failed",
    };
    format!("io_uring is unavailable: {cause} ({error})")
}

/// Says "pong" in two parts to the first bytes, "bye" in one to the next mail.
#[derive(Default)]
struct Echo {
    conn: Option<ConnId>,
    answer: Option<[Payload; 2]>,
}

impl Machine for Echo {
    type Mail = ();

    fn handle(&mut self, _: Now, input: Input<'_, ()>) {
        let text = |text: &'static str| Payload::from(Bytes::from_static(text.as_bytes()));
        match input {
            Input::Received { conn, .. } => {
                self.conn = Some(conn);
                self.answer = Some([text("po"), text("ng")]);
            }
            Input::Datagrams { .. } => self.answer = Some([text("data"), Payload::Empty]),
            Input::Mail(()) => self.answer = Some([text("bye"), Payload::Empty]),
            _ => {}
        }
    }

    fn poll(&mut self, _: Now, out: &mut Outbox<()>) {
        if let (Some(conn), Some(parts)) = (self.conn, self.answer.take()) {
            out.push(Output::Send { conn, parts });
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        None
    }
}

fn attempt() -> io::Result<()> {
    let shard = ShardId(0);
    let post = Post::new(1, 1, 1)?;
    let listener = socket::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1)?.remove(0);
    let addr = listener.local_addr()?;
    let (udp, _) = udp::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Ipv4Addr::LOCALHOST, 0)?;
    let datagrams = udp.local_addr()?;
    let (ready, started) = channel();
    let setup = Setup {
        shard,
        listeners: vec![(ListenerId(0), listener)],
        sockets: vec![(SocketId(0), udp)],
        post: post.clone(),
        clock: Clock::start(),
        cells: Arc::new(Cells::default()),
        max_connections: 1,
        descriptors: 1,
        on_ready: Box::new(move || {
            let _ = ready.send(());
        }),
    };
    let driver = std::thread::Builder::new()
        .name("uring-probe".into())
        .spawn(move || uring::run(setup, &mut Echo::default()))?;
    // An error here means that the driver ended; its own error says why.
    let talked = match started.recv_timeout(PATIENCE) {
        Ok(()) => talk(addr, datagrams, &post, shard),
        Err(error) => Err(io::Error::other(error)),
    };
    post.halt();
    driver.join().map_err(|_| io::Error::other("the trial run panicked"))??;
    talked
}

/// The other end of the trial.
fn talk(
    addr: SocketAddr,
    datagrams: SocketAddr,
    post: &Post<()>,
    shard: ShardId,
) -> io::Result<()> {
    let mut client = TcpStream::connect_timeout(&addr, PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"ping")?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer)?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"datagram", datagrams)?;
    let mut echo = [0; 4];
    client.read_exact(&mut echo)?;
    // The driver sleeps now, or is about to: only the bell brings it back in time.
    let _ = post.send(shard, ());
    let mut farewell = [0; 3];
    client.read_exact(&mut farewell)?;
    if answer == *b"pong" && echo == *b"data" && farewell == *b"bye" {
        return Ok(());
    }
    Err(io::Error::other("the bytes that came back are not those that were sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_likely_cause() {
        let line = |code| explain(&io::Error::from_raw_os_error(code));
        assert!(line(libc::EPERM).contains("seccomp") && line(libc::EPERM).contains("sysctl"));
        assert!(line(libc::ENOSYS).contains("no io_uring"));
        assert!(line(libc::ENOMEM).contains("memlock"));
        assert!(!line(libc::EINVAL).contains('\n'));
    }

    #[test]
    fn the_probe_agrees_with_the_kernel() {
        match (uring(), io_uring::IoUring::new(8)) {
            (Ok(()), Ok(_)) => {}
            (Err(why), Err(_)) => println!("SKIPPED: {why}"),
            (Err(why), Ok(_)) => println!("a ring exists, but the driver cannot use it: {why}"),
            (Ok(()), Err(error)) => panic!("the probe found a ring where there is none: {error}"),
        }
    }

    #[test]
    fn a_seccomp_profile_is_recognised() {
        use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
        // Holds for this thread and those that it starts, and goes with it.
        let refused = std::thread::spawn(|| {
            let rules = [(libc::SYS_io_uring_setup, vec![])].into();
            let deny = SeccompAction::Errno(libc::EPERM.cast_unsigned());
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            uring()
        });
        let why = refused.join().unwrap().unwrap_err();
        assert!(why.contains("seccomp (Docker's default profile)"), "{why}");
    }
}
