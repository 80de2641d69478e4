//! Sockets that are connected more than once, and connects that carry the request (TCP Fast Open).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use trace502::model::*;

use crate::namespace;
use crate::rig::*;

fn socket() -> TcpStream {
    // SAFETY: no pointers; the descriptor is ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)) };
    assert!(socket.as_raw_fd() >= 0);
    socket.into()
}

fn address(to: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(to) = to else { panic!("{to} is no IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    }
}

const ADDRESS: u32 = size_of::<libc::sockaddr_in>() as u32;

fn connect(socket: &TcpStream, to: SocketAddr) -> i32 {
    let to = address(to);
    // SAFETY: an address with its size.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), ADDRESS) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap(),
    }
}

/// Takes the socket off its connection, with an address of no family.
fn disconnect(socket: &TcpStream) {
    let mut nowhere = address(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into());
    nowhere.sin_family = libc::AF_UNSPEC as u16;
    // SAFETY: an address with its size.
    assert_eq!(unsafe { libc::connect(socket.as_raw_fd(), (&raw const nowhere).cast(), ADDRESS) }, 0);
}

#[test]
fn a_socket_that_is_refused_and_connected_elsewhere_is_two_attempts() {
    let mut rig = rig();
    let nobody = free_port();
    let (listener, at) = listen();
    let mut proxy = socket();
    assert_eq!(connect(&proxy, nobody), libc::ECONNREFUSED);
    assert_eq!(connect(&proxy, at), 0);
    // Told before the second one has come to anything.
    let first = rig.attempt(nobody);
    assert_eq!((first.conn.phase, first.conn.errno), (Phase::Connecting, Some(libc::ECONNREFUSED)));
    assert!(first.conn.reset.is_some());
    assert_eq!(first.listener, ListenerSeen::Absent);
    proxy.write_all(REQUEST).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    drop(upstream);
    assert_eq!(proxy.read(&mut [0; 16]).unwrap(), 0);
    drop(proxy);
    let second = rig.attempt(at);
    let conn = &second.conn;
    assert_eq!((conn.phase, conn.request, conn.reused), (Phase::Asked, 1, false));
    assert_eq!((conn.errno, conn.reset), (None, None), "what the first came to is not the second's");
    assert!(conn.fin_early && conn.opened.unwrap() > first.conn.opened.unwrap());
    assert!(second.peer.is_some_and(|peer| peer.closed_first));
    rig.told();
    assert_eq!((rig.count_attempts(nobody), rig.count_attempts(at)), (1, 1));
}

#[test]
fn a_socket_that_is_taken_off_its_connection_begins_anew() {
    let mut rig = rig();
    let (first, silent) = listen();
    let nobody = free_port();
    let mut proxy = socket();
    assert_eq!(connect(&proxy, silent), 0);
    proxy.write_all(REQUEST).unwrap();
    disconnect(&proxy);
    assert_eq!(connect(&proxy, nobody), libc::ECONNREFUSED);
    drop((proxy, first));
    let attempt = rig.attempt(silent);
    assert_eq!((attempt.conn.phase, attempt.conn.closed_first), (Phase::Asked, true));
    let attempt = rig.attempt(nobody);
    assert_eq!((attempt.conn.phase, attempt.conn.errno), (Phase::Connecting, Some(libc::ECONNREFUSED)));
    assert_eq!((attempt.conn.request_bytes, attempt.conn.established), (0, None));
    rig.told();
    assert_eq!((rig.count_attempts(silent), rig.count_attempts(nobody)), (1, 1));
}

/// Sends the request with the connection's first packet, as far as the other side allows it.
fn send_fast(socket: &TcpStream, to: SocketAddr) -> Result<usize, i32> {
    let to = address(to);
    // SAFETY: bytes, and an address with its size.
    let sent = unsafe {
        let (bytes, flags) = (REQUEST.as_ptr().cast(), libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL);
        libc::sendto(socket.as_raw_fd(), bytes, REQUEST.len(), flags, (&raw const to).cast(), ADDRESS)
    };
    usize::try_from(sent).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

#[test]
fn a_request_that_is_sent_with_the_first_packet_belongs_to_its_connection() {
    let mut rig = rig();
    let at = namespace::with_loopback(|| {
        // Cookies, and both sides of it.
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap();
        let (listener, at) = listen();
        let room: i32 = 5;
        // SAFETY: a valid descriptor, and an integer with its size.
        let set = unsafe {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_FASTOPEN);
            libc::setsockopt(listener.as_raw_fd(), level, name, (&raw const room).cast(), size_of::<i32>() as u32)
        };
        assert_eq!(set, 0);
        // The first connection has no cookie yet, the second sends its request with it.
        for _ in 0..2 {
            let mut proxy = socket();
            assert_eq!(send_fast(&proxy, at), Ok(REQUEST.len()));
            let (mut upstream, _) = listener.accept().unwrap();
            assert_eq!(read_some(&mut upstream), REQUEST.len());
            drop(upstream);
            assert_eq!(read_some(&mut proxy), 0);
        }
        drop(listener);
        // Nobody is there any more; the cookie is still known.
        let late = socket();
        assert_eq!(send_fast(&late, at), Err(libc::ECONNREFUSED));
        at
    });
    let mut attempts = Vec::new();
    for seen in rig.told() {
        if let Fact::Attempt(attempt) = &seen.fact
            && attempt.endpoint == Endpoint::Tcp(at)
        {
            attempts.push(attempt.clone());
        }
    }
    assert_eq!(attempts.len(), 3, "{attempts:#?}");
    for answered in &attempts[..2] {
        let conn = &answered.conn;
        assert_eq!((conn.phase, conn.request, conn.errno), (Phase::Asked, 1, None), "{conn:?}");
        assert_eq!((conn.request_head.as_slice(), conn.fin_early), (REQUEST, true));
        assert!(answered.peer.as_ref().is_some_and(|peer| peer.closed_first));
    }
    let refused = &attempts[2].conn;
    assert_eq!((refused.phase, refused.errno), (Phase::Connecting, Some(libc::ECONNREFUSED)));
}
