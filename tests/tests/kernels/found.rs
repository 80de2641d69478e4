//! Proxies that are found by what they do: they listen, and they dial.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use trace502::kernel::Options;
use trace502::model::*;
use trace502::watch::FOUND;

use crate::rig::*;

/// Not a test: answers each request with what became of its own connect to where it is told. Then one at a word.
#[test]
#[ignore = "run by other tests as their child"]
fn child_serves() {
    let Ok(to) = std::env::var("T502_DIALS") else { return };
    let to: SocketAddr = to.parse().unwrap();
    let listens = std::env::var_os("T502_LISTENS").is_some();
    let listener = listens.then(listen);
    let at = listener.as_ref().map_or(to, |(_, at)| *at);
    // The test's own output surrounds it.
    println!("\nat {at}");
    let mut held = Vec::new();
    for word in std::io::stdin().lines() {
        match word.unwrap().as_str() {
            "dial" => held.push(TcpStream::connect(to).ok()),
            _ => serve(&listener.as_ref().unwrap().0, to),
        }
        println!("\ndone");
    }
}

fn serve(listener: &TcpListener, to: SocketAddr) {
    let (mut client, _) = listener.accept().unwrap();
    while read_some(&mut client) > 0 {
        assert!(TcpStream::connect(to).is_err());
        client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

/// A process that dials, and may listen.
struct Server {
    child: Child,
    says: BufReader<ChildStdout>,
    at: SocketAddr,
}

impl Server {
    fn new(dials: SocketAddr, listens: bool) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "found::child_serves", "--ignored", "--nocapture"]);
        command.env("T502_DIALS", dials.to_string());
        if listens {
            command.env("T502_LISTENS", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let at = said(&mut says, "at ").parse().unwrap();
        Server { child, says, at }
    }

    fn begin(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn dial(&mut self) {
        self.begin("dial");
        said(&mut self.says, "done");
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(says: &mut BufReader<ChildStdout>, first: &str) -> String {
    says.lines().find_map(|line| line.unwrap().strip_prefix(first).map(str::to_owned)).expect("the child answers")
}

fn became(rig: &mut Rig, pid: u32) -> Proc {
    rig.wait("process that became a proxy", |seen| match &seen.fact {
        Fact::Became(proc) if proc.pid == pid => Some(proc.clone()),
        _ => None,
    })
}

fn finds() -> Rig {
    Rig::with(&Options { found: FOUND, ..Options::default() })
}

fn request(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    let mut answer = [0; 256];
    assert!(stream.read(&mut answer).unwrap() > 0);
}

#[test]
fn who_listens_and_dials_is_a_proxy_from_then_on() {
    let _rig = rig();
    let nobody = free_port();
    let mut finding = finds();
    let mut server = Server::new(nobody, true);
    server.begin("serve");
    let mut client = TcpStream::connect(server.at).unwrap();
    request(&mut client);
    assert!(became(&mut finding, server.pid()).is_proxy);
    // The request that it was found by is not seen; its connection is.
    finding.kernel.find_more();
    request(&mut client);
    let error = finding.client_error(server.at);
    assert!(error.conn.found && error.conn.owner.pid == server.pid());
    assert_eq!(error.outcome, ClientOutcome::Status(502));
    let bound = finding.wait("attempt for that request", |seen| match &seen.fact {
        Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(nobody) => {
            attempt.bound.filter(|bound| bound.client == error.conn.cookie).map(|_| attempt.conn.found)
        }
        _ => None,
    });
    assert!(bound);
}

#[test]
fn who_does_one_of_both_is_none_and_nobody_is_where_it_is_not_asked_for() {
    let mut shared = rig();
    let nobody = free_port();
    // Who runs under the same name as somebody who listens is watched, and is no proxy for it.
    let (_listens, _) = listen();
    let mut finding = finds();
    let (mut dials, mut both) = (Server::new(nobody, false), Server::new(nobody, true));
    dials.dial();
    both.dial();
    became(&mut finding, both.pid());
    let of = |rig: &mut Rig, pid: u32| {
        rig.told().iter().any(|seen| matches!(&seen.fact, Fact::Became(proc) if proc.pid == pid))
    };
    assert!(of(&mut finding, both.pid()) && !of(&mut finding, dials.pid()));
    assert!(!of(&mut shared, both.pid()));
}

#[test]
fn who_has_done_both_before_is_found_at_the_start() {
    let _rig = rig();
    let (listener, upstream) = listen();
    let mut server = Server::new(upstream, true);
    server.dial();
    let _held = listener.accept().unwrap();
    let mut finding = finds();
    assert!(became(&mut finding, server.pid()).is_proxy);
}
