//! Several listeners on one address (SO_REUSEPORT): who was meant, and who is left when one of them closes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use trace502::model::*;

use crate::rig::*;

/// One more listener on this port, or the first on one that is free.
fn listen_on(port: u16, backlog: i32) -> (TcpListener, SocketAddr) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the descriptor is ours alone; an option and an address with their sizes.
    let listener: TcpListener = unsafe {
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let (fd, one, level) = (socket.as_raw_fd(), 1_i32, libc::SOL_SOCKET);
        assert_eq!(libc::setsockopt(fd, level, libc::SO_REUSEPORT, (&raw const one).cast(), 4), 0);
        assert_eq!(libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_in>() as u32), 0);
        assert_eq!(libc::listen(fd, backlog), 0);
        socket.into()
    };
    let at = listener.local_addr().unwrap();
    (listener, at)
}

#[test]
fn of_several_none_is_said_to_be_the_one_that_was_meant() {
    let mut rig = rig();
    let (one, at) = listen_on(0, 1);
    let (other, _) = listen_on(at.port(), 4096);
    drop(ask(at));
    assert_eq!(rig.attempt(at).listener, ListenerSeen::Shared);
    drop((one, other));
}

#[test]
fn when_one_of_several_closes_the_others_still_listen() {
    let mut rig = rig();
    let (first, at) = listen_on(0, 8);
    let (second, _) = listen_on(at.port(), 8);
    let (third, _) = listen_on(at.port(), 1);
    // In the order in which they began, the last of them first, and one from the middle.
    drop(third);
    drop(first);
    drop(ask(at));
    let told = rig.attempt(at).listener;
    let ListenerSeen::Present { queue, limit, pid, .. } = told else { panic!("{told:?}") };
    assert_eq!((queue, limit, pid), (1, 8, std::process::id()));
    drop(second);
    let before = rig.count_attempts(at);
    assert!(TcpStream::connect(at).is_err());
    let absent = |seen: &Observation| match &seen.fact {
        Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(at) => {
            (attempt.listener == ListenerSeen::Absent).then_some(())
        }
        _ => None,
    };
    rig.wait("attempt where nobody is left", absent);
    assert_eq!(rig.count_attempts(at), before + 1);
}

#[test]
fn of_more_than_are_known_each_the_last_is_still_somebody() {
    let mut rig = rig();
    let (first, at) = listen_on(0, 8);
    let mut all: Vec<_> = (0..20).map(|_| listen_on(at.port(), 8).0).collect();
    let last = all.pop();
    drop((first, all));
    drop(ask(at));
    let told = rig.attempt(at).listener;
    assert!(matches!(told, ListenerSeen::Present { .. }), "{told:?}");
    drop(last);
    assert!(TcpStream::connect(at).is_err());
    let absent = |seen: &Observation| match &seen.fact {
        Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(at) => {
            (attempt.listener == ListenerSeen::Absent).then_some(())
        }
        _ => None,
    };
    rig.wait("attempt where nobody is left", absent);
}

#[test]
fn listeners_that_come_and_go_at_the_same_time_are_counted_right() {
    let mut rig = rig();
    let (stays, at) = listen_on(0, 8);
    let storm = || {
        for _ in 0..500 {
            drop(listen_on(at.port(), 8));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(storm);
        }
    });
    drop(ask(at));
    let told = rig.attempt(at).listener;
    let ListenerSeen::Present { limit, pid, .. } = told else { panic!("{told:?}") };
    assert_eq!((limit, pid), (8, std::process::id()));
    drop(stays);
}

#[test]
fn a_listener_that_was_never_bound_is_known_by_its_port_once_it_is_looked_for() {
    let mut rig = rig();
    // SAFETY: a new descriptor that is ours alone.
    let listener: TcpListener = unsafe {
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        assert_eq!(libc::listen(socket.as_raw_fd(), 8), 0);
        socket.into()
    };
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    rig.wait("listener without a name", |seen| match &seen.fact {
        Fact::Listening(listening) if listening.unnamed() && listening.pid == std::process::id() => Some(()),
        _ => None,
    });
    // As long as its port is not known, it may be whoever is looked for.
    let nobody = free_port();
    assert!(TcpStream::connect(nobody).is_err());
    assert_eq!(rig.attempt(nobody).listener, ListenerSeen::Unknown);
    rig.kernel.find_listeners();
    drop(ask(at));
    let told = rig.attempt(at).listener;
    let ListenerSeen::Present { limit, pid, .. } = told else { panic!("{told:?}") };
    assert_eq!((limit, pid), (8, std::process::id()));
    let nobody = free_port();
    assert!(TcpStream::connect(nobody).is_err());
    assert_eq!(rig.attempt(nobody).listener, ListenerSeen::Absent);
}
