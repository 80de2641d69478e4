//! Connects: refused, ignored, impossible; over TCP, IPv6 and unix sockets.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use trace502::model::*;

use crate::namespace;
use crate::rig::*;

#[test]
fn a_refused_connect_tells_who_asked_and_that_nobody_listens() {
    let mut rig = rig();
    let nobody = free_port();
    assert_eq!(TcpStream::connect(nobody).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let attempt = rig.attempt(nobody);
    assert_eq!(attempt.handover, Handover::Failed);
    assert_eq!(attempt.conn.phase, Phase::Connecting);
    assert_eq!(attempt.conn.errno, Some(libc::ECONNREFUSED));
    // SAFETY: no arguments.
    let tid = unsafe { libc::gettid() } as u32;
    assert_eq!(attempt.conn.owner, Task { pid: std::process::id(), tid });
    assert_eq!(attempt.conn.comm, std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim_end());
    assert_ne!((attempt.conn.cgroup, attempt.conn.flow.unwrap().netns), (0, 0));
    assert!(attempt.conn.reset.unwrap() >= attempt.conn.opened.unwrap());
    assert_eq!(attempt.listener, ListenerSeen::Absent);
    let local = attempt.conn.flow.unwrap().local;
    // Before 6.10 a reset without a socket passes no hook.
    if !rig.names_resets() {
        return;
    }
    let reset = rig.wait("reset sent by our stack", |seen| match &seen.fact {
        Fact::ResetSent(packet) if packet.flow.local == nobody => Some(packet.clone()),
        _ => None,
    });
    assert_eq!(reset.flow.remote, local, "the reset pairs with the attempt by its addresses");
    assert!(!reset.has_socket);
    assert_eq!(reset.reason.as_deref(), Some("NO_SOCKET"));
}

#[test]
fn ipv6_and_mapped_addresses_are_told_as_what_they_are() {
    let mut rig = rig();
    if let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        assert!(TcpStream::connect(nobody).is_err());
        assert_eq!(rig.attempt(nobody).conn.flow.unwrap().remote, nobody);
    }
    let nobody = free_port();
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), nobody.port());
    assert!(TcpStream::connect(mapped).is_err());
    assert_eq!(rig.attempt(nobody).endpoint, Endpoint::Tcp(nobody));
}

#[test]
fn a_full_accept_queue_is_read_when_the_proxy_gives_up() {
    let mut rig = rig();
    let (listener, at) = listen();
    // SAFETY: shrinks the backlog of a listening socket.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let waiting: Vec<_> = (0..2).map(|_| TcpStream::connect(at).unwrap()).collect();
    let error = TcpStream::connect_timeout(&at, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let attempt = rig.attempt(at);
    assert_eq!(attempt.conn.phase, Phase::Connecting);
    assert!(attempt.conn.closed_first, "the proxy gave up, not the kernel");
    let ListenerSeen::Present { pid, queue, limit, .. } = attempt.listener else { panic!("{attempt:?}") };
    assert_eq!((pid, queue, limit), (std::process::id(), 2, 1));
    drop(waiting);
}

#[test]
fn a_connect_without_a_route_fails_in_the_call() {
    let mut rig = rig();
    let target: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let error = namespace::empty(move || TcpStream::connect(target).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    let failed = connect_failed(&mut rig, Endpoint::Tcp(target));
    assert_eq!(failed.errno, libc::ENETUNREACH);
    assert_ne!(failed.netns, 0);
}

#[test]
fn a_connect_that_a_route_forbids_fails_in_the_call() {
    let mut rig = rig();
    let target: SocketAddr = "192.0.2.2:9".parse().unwrap();
    let error = namespace::with_loopback(move || {
        let route = ["route", "add", "prohibit", "192.0.2.0/24"];
        assert!(Command::new("ip").args(route).status().unwrap().success());
        TcpStream::connect(target).unwrap_err()
    });
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert_eq!(connect_failed(&mut rig, Endpoint::Tcp(target)).errno, libc::EACCES);
}

#[test]
fn a_connect_that_succeeds_is_counted_and_tells_how_long_it_took() {
    let mut rig = rig();
    let (_listener, at) = listen();
    let before = connects(&mut rig, at);
    drop(ask(at));
    assert_eq!(connects(&mut rig, at), before + 1);
    let conn = rig.attempt(at).conn;
    assert!(conn.established.unwrap() > conn.opened.unwrap() && conn.asked.unwrap() >= conn.established.unwrap());
}

/// Connects to this address so far, of any duration.
fn connects(rig: &mut Rig, to: SocketAddr) -> u64 {
    let traffic = rig.kernel.traffic();
    traffic.connections.get(&to).copied().unwrap_or_default()
}

fn connect_failed(rig: &mut Rig, to: Endpoint) -> ConnectFailed {
    rig.wait(&format!("failed connect to {to}"), |seen| match &seen.fact {
        Fact::ConnectFailed(failed) if failed.endpoint == to => Some(failed.clone()),
        _ => None,
    })
}

fn socket_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("t502-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_missing_socket_file_is_told_with_its_path() {
    let mut rig = rig();
    let path = socket_path("missing");
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let failed = connect_failed(&mut rig, Endpoint::Unix(path.display().to_string()));
    assert_eq!(failed.errno, libc::ENOENT);
}

#[test]
fn a_socket_file_without_a_listener_refuses() {
    let mut rig = rig();
    let path = socket_path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let failed = connect_failed(&mut rig, Endpoint::Unix(path.display().to_string()));
    assert_eq!(failed.errno, libc::ECONNREFUSED);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_full_unix_backlog_turns_a_proxy_away() {
    let mut rig = rig();
    let path = socket_path("full");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: shrinks the backlog of a listening socket.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let _waiting = UnixStream::connect(&path).unwrap();
    // SAFETY: a new socket of our own.
    let socket =
        unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)) };
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(path.to_str().unwrap().bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: a valid address of that size.
    let done = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_un>() as u32)
    };
    assert_eq!((done, std::io::Error::last_os_error().kind()), (-1, ErrorKind::WouldBlock));
    let failed = connect_failed(&mut rig, Endpoint::Unix(path.display().to_string()));
    assert_eq!(failed.errno, libc::EAGAIN);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn no_free_port_is_told() {
    let mut rig = rig();
    let error = namespace::with_loopback(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap();
        let there = TcpListener::bind("127.0.0.1:1234").unwrap();
        let to = there.local_addr().unwrap();
        let mut kept = Vec::new();
        loop {
            match TcpStream::connect(to) {
                Ok(stream) => kept.push(stream),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let failed = connect_failed(&mut rig, Endpoint::Tcp("127.0.0.1:1234".parse().unwrap()));
    assert_eq!(failed.errno, libc::EADDRNOTAVAIL);
}
