//! What looks like a failure and is none, or like another one: families of addresses, empty calls, clients that
//! vanish, signals that nobody gets, heads that are not kept.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use trace502::kernel::Options;
use trace502::model::*;
use trace502_ebpf::PROC_OWNER;

use crate::rig::*;

fn set(socket: &impl std::os::fd::AsRawFd, level: i32, option: i32, value: i32) {
    let (at, size) = ((&raw const value).cast(), size_of::<i32>() as u32);
    // SAFETY: a valid descriptor, and an integer with its size.
    assert_eq!(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, size) }, 0);
}

/// A wildcard listener of IPv6 that takes no IPv4.
fn listen_only_v6(port: u16) -> TcpListener {
    // SAFETY: no pointers; the descriptor is ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0)) };
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    // SAFETY: all zeroes is the wildcard address.
    let mut any: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    (any.sin6_family, any.sin6_port) = (libc::AF_INET6 as u16, port.to_be());
    // SAFETY: an address with its size, and a socket that is bound.
    let listens = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const any).cast(), size_of::<libc::sockaddr_in6>() as u32)
            | libc::listen(socket.as_raw_fd(), 8)
    };
    assert_eq!(listens, 0);
    socket.into()
}

#[test]
fn a_listener_of_another_family_is_not_the_one_that_was_meant() {
    let mut rig = rig();
    let four = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let dialled = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), four.local_addr().unwrap().port());
    assert!(TcpStream::connect(dialled).is_err());
    assert_eq!(rig.attempt(dialled).listener, ListenerSeen::Absent, "0.0.0.0 takes no IPv6");
    drop(four);

    let six = listen_only_v6(0);
    let dialled = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), six.local_addr().unwrap().port());
    assert!(TcpStream::connect(dialled).is_err());
    assert_eq!(rig.attempt(dialled).listener, ListenerSeen::Absent, "it takes IPv6 alone");

    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let dialled = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), both.local_addr().unwrap().port());
    drop(ask(dialled));
    assert!(matches!(rig.attempt(dialled).listener, ListenerSeen::Present { queue: 1, .. }), "it takes both");
}

#[test]
fn each_family_has_its_own_listener_on_a_port() {
    let mut rig = rig();
    let four = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = four.local_addr().unwrap().port();
    let _six = listen_only_v6(port);
    let dialled = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    drop(ask(dialled));
    assert!(matches!(rig.attempt(dialled).listener, ListenerSeen::Present { queue: 1, .. }), "that of IPv4");
}

#[test]
fn an_empty_call_is_not_the_end_of_a_connection() {
    let mut rig = rig();
    let (listener, at) = listen();
    let proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    // SAFETY: a valid descriptor, and no bytes.
    assert_eq!(unsafe { libc::send(proxy.as_raw_fd(), [0u8; 1].as_ptr().cast(), 0, 0) }, 0);
    drop(proxy);
    let conn = rig.attempt(at).conn;
    assert_eq!((conn.fin, conn.fin_early, conn.closed_first), (None, false, true));
}

#[test]
fn a_client_that_vanished_is_gone_not_turned_away() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let deaf = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    // SAFETY: a valid descriptor, and a filter of one instruction.
    let set_deaf = unsafe {
        let (at, size) = ((&raw const deaf).cast(), size_of::<libc::sock_fprog>() as u32);
        libc::setsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, size)
    };
    assert_eq!(set_deaf, 0);
    for (option, value) in [(libc::TCP_KEEPIDLE, 1), (libc::TCP_KEEPINTVL, 1), (libc::TCP_KEEPCNT, 1)] {
        set(&served, libc::IPPROTO_TCP, option, value);
    }
    set(&served, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    assert_eq!(served.peek(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    rig.wait("the client's leaving", |seen| matches!(seen.fact, Fact::ClientLeft { .. }).then_some(()));
    drop(served);
    let closed = |seen: &&Observation| match &seen.fact {
        Fact::Client(error) => error.conn.flow.is_some_and(|flow| flow.local == address),
        _ => false,
    };
    assert_eq!(rig.told().iter().filter(closed).count(), 0, "nobody closed it with its request unanswered");
}

#[test]
fn a_signal_that_is_ignored_kills_nobody() {
    let mut rig = rig();
    let mut deaf = Command::new("sh");
    let deaf = deaf.args(["-c", "trap '' TERM; echo; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut deaf = deaf.spawn().unwrap();
    let pid = deaf.id();
    BufReader::new(deaf.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    rig.kernel.track(pid, PROC_OWNER).unwrap();
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // SAFETY: no pointers; the process is a child that was not waited for.
        assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
    }
    deaf.wait().unwrap();
    let first = rig.wait("a signal", |seen| match &seen.fact {
        Fact::Signal { target, signal, .. } if target.pid == pid => Some(*signal),
        _ => None,
    });
    assert_eq!(first, libc::SIGKILL);
}

#[test]
fn a_status_is_seen_although_no_head_is_kept() {
    let _alone = rig();
    let mut rig = Rig::with(&Options { head: 0, tls: false, ..Options::default() });
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    served.write_all(b"HTTP/1.1 504 Gateway Time-out\r\nContent-Length: 0\r\n\r\n").unwrap();
    let error = rig.client_error(address);
    assert_eq!(error.outcome, ClientOutcome::Status(504));
    assert_eq!((error.conn.request_head, error.conn.reply_head), (Vec::new(), Vec::new()));
}
