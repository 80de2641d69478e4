//! Programs that are handed a socket which listens already, as a service manager starts them at the first connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trace502::kernel::Options;
use trace502::model::*;
use trace502::watch::FOUND;
use trace502_ebpf::PROC_PROXY;

use crate::rig::*;

/// Under this name the test program is a proxy.
const NAME: &str = "t502-activated";
/// Where the child reads which descriptor it was handed: a number that is its own here, so that nothing lies in its way.
const HANDED: &str = "T502_HANDED";
/// Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Not a test: answers the first request of each client on the socket that it was handed with what became of its own connect.
#[test]
#[ignore = "run by other tests as their child"]
fn child_serves() {
    let Ok(to) = std::env::var("T502_DIALS") else { return };
    let to: SocketAddr = to.parse().unwrap();
    let handed = std::env::var(HANDED).unwrap().parse().unwrap();
    // SAFETY: a file that nobody else in this process has.
    let listener = unsafe { TcpListener::from_raw_fd(handed) };
    for client in listener.incoming() {
        let mut client = client.unwrap();
        read_some(&mut client);
        assert!(TcpStream::connect(to).is_err());
        client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    fn new(listener: &TcpListener, dials: SocketAddr) -> Server {
        let dir = std::env::temp_dir().join(format!("t502-activated-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join(NAME);
        let _ = std::fs::remove_file(&program);
        symlink(std::env::current_exe().unwrap(), &program).unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "activated::child_serves", "--ignored"]).env("T502_DIALS", dials.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let file = listener.as_raw_fd();
        command.env(HANDED, file.to_string());
        // SAFETY: between fork and exec this only lets a descriptor stay open, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || match libc::fcntl(file, libc::F_SETFD, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        Server { child: command.spawn().unwrap(), dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn is_answered(client: &mut TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(client.read(&mut [0; 256]).unwrap() > 0);
}

#[test]
fn a_proxy_serves_a_port_that_listened_before_it_was_there() {
    let _rig = rig();
    let mut other = Rig::of_nobody(&Options::default());
    other.kernel.set_names(&[(NAME, PROC_PROXY)]).unwrap();
    let (listener, at) = listen();
    // It is for this one that the proxy is started.
    let mut first = ask(at);
    let server = Server::new(&listener, free_port());
    is_answered(&mut first);
    let mut second = ask(at);
    is_answered(&mut second);
    for client in [first, second].map(|client| client.local_addr().unwrap()) {
        let error = other.wait("error of each client", |seen| match &seen.fact {
            Fact::Client(error) if error.conn.flow.is_some_and(|flow| flow.remote == client) => Some(error.clone()),
            _ => None,
        });
        assert_eq!((error.outcome, error.conn.owner.pid), (ClientOutcome::Status(502), server.child.id()));
        assert_eq!(error.conn.request_head, REQUEST);
    }
}

#[test]
fn who_dials_and_was_handed_what_listens_is_found() {
    let _rig = rig();
    let mut finding = Rig::of_nobody(&Options { found: FOUND, ..Options::default() });
    let (listener, at) = listen();
    let mut client = ask(at);
    let server = Server::new(&listener, free_port());
    is_answered(&mut client);
    finding.wait("process that became a proxy", |seen| match &seen.fact {
        Fact::Became(proc) => (proc.pid == server.child.id() && proc.is_proxy).then_some(()),
        _ => None,
    });
}
