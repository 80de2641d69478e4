//! Packets that never arrive, and those that a packet filter answers: what is dropped, by whom, and who gave up.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use trace502::kernel::symbols::Symbols;
use trace502::model::*;
use trace502_tests::guard::until;

use crate::namespace::{filter_input, filter_output, with_loopback};
use crate::rig::*;

const SYN: u8 = 2;
/// Ports that no other test uses: one namespace's addresses look like another's.
const DROPPED: u16 = 4101;
const ELSEWHERE: u16 = 4102;
const REJECTED: u16 = 4103;
const FORBIDDEN: u16 = 4104;
const GIVEN_UP: u16 = 4105;
const HALFWAY: u16 = 4106;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn dropped(rig: &mut Rig, to: SocketAddr) -> Packet {
    rig.wait(&format!("dropped packet to {to}"), |seen| match &seen.fact {
        Fact::Dropped(packet) if packet.flow.remote == to => Some(packet.clone()),
        _ => None,
    })
}

#[test]
fn a_dropped_syn_is_told_with_its_reason_and_the_function() {
    let mut rig = rig();
    let error = with_loopback(|| {
        let _listener = TcpListener::bind(at(DROPPED)).unwrap();
        filter_input(&format!("tcp dport {DROPPED} drop"));
        TcpStream::connect_timeout(&at(DROPPED), Duration::from_millis(1500)).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let packet = dropped(&mut rig, at(DROPPED));
    assert_eq!((packet.reason.as_deref(), packet.tcp_flags), (Some("NETFILTER_DROP"), SYN));
    assert_ne!(packet.flow.netns, 0);
    let mut symbols = Symbols::new(Path::new("/"));
    // The first question has them read, aside.
    let name = until(Duration::from_secs(20), || symbols.name(packet.location.unwrap()).map(str::to_owned));
    let place = name.expect("the kernel's symbols are readable");
    assert!(place.starts_with("nf_") || place.starts_with("nft_"), "{place}");
    // The first try, and the one that the kernel made a second later.
    let attempt = rig.attempt(at(DROPPED));
    assert_eq!(attempt.conn.phase, Phase::Connecting);
    assert_eq!(attempt.conn.flow.unwrap().local, packet.flow.local, "the packet pairs with the attempt");
    assert!(attempt.tcp.unwrap().retransmits >= 1, "{attempt:?}");
    assert!(attempt.conn.closed_first, "the process gave up");
    assert!(matches!(attempt.listener, ListenerSeen::Present { .. }));
}

#[test]
fn what_is_dropped_of_other_flows_is_not_told() {
    let mut rig = rig();
    rig.plays_no_proxy(|| {
        with_loopback(|| {
            filter_input(&format!("tcp dport {ELSEWHERE} drop"));
            TcpStream::connect_timeout(&at(ELSEWHERE), Duration::from_millis(200)).unwrap_err()
        });
    });
    let about = |seen: &&Observation| match &seen.fact {
        Fact::Dropped(packet) => packet.flow.remote == at(ELSEWHERE),
        Fact::Attempt(attempt) => attempt.endpoint == Endpoint::Tcp(at(ELSEWHERE)),
        _ => false,
    };
    let told: Vec<_> = rig.told().iter().filter(about).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn a_drop_in_the_middle_of_a_connection_is_told() {
    let mut rig = rig();
    with_loopback(|| {
        use std::io::Write as _;
        let listener = TcpListener::bind(at(HALFWAY)).unwrap();
        let mut proxy = TcpStream::connect(at(HALFWAY)).unwrap();
        let _upstream = listener.accept().unwrap();
        filter_input(&format!("tcp dport {HALFWAY} drop"));
        proxy.write_all(REQUEST).unwrap();
    });
    let packet = dropped(&mut rig, at(HALFWAY));
    assert_eq!(packet.reason.as_deref(), Some("NETFILTER_DROP"));
    assert_eq!(packet.tcp_flags & SYN, 0);
    let attempt = rig.attempt(at(HALFWAY));
    assert_eq!(attempt.conn.phase, Phase::Asked);
    let tcp = attempt.tcp.unwrap();
    assert_eq!(tcp.unacked as usize, REQUEST.len(), "{tcp:?}");
}

#[test]
fn a_reset_of_a_packet_filter_is_none_of_the_stack() {
    let mut rig = rig();
    let error = with_loopback(|| {
        let _listener = TcpListener::bind(at(REJECTED)).unwrap();
        filter_input(&format!("tcp dport {REJECTED} reject with tcp reset"));
        TcpStream::connect(at(REJECTED)).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let attempt = rig.attempt(at(REJECTED));
    assert_eq!(attempt.conn.errno, Some(libc::ECONNREFUSED));
    assert!(attempt.conn.reset.is_some());
    assert!(matches!(attempt.listener, ListenerSeen::Present { .. }), "{:?}", attempt.listener);
    let sent = |seen: &&Observation| matches!(&seen.fact, Fact::ResetSent(sent) if sent.flow.local == at(REJECTED));
    assert_eq!(rig.told().iter().filter(sent).count(), 0, "the filter makes its resets by itself");
}

#[test]
fn an_icmp_reject_is_told_with_its_errno() {
    let mut rig = rig();
    let error = with_loopback(|| {
        let _listener = TcpListener::bind(at(FORBIDDEN)).unwrap();
        filter_output(&format!("tcp dport {FORBIDDEN} reject with icmpx admin-prohibited"));
        TcpStream::connect_timeout(&at(FORBIDDEN), Duration::from_secs(3)).unwrap_err()
    });
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    let attempt = rig.attempt(at(FORBIDDEN));
    assert_eq!((attempt.conn.phase, attempt.conn.errno), (Phase::Connecting, Some(libc::EHOSTUNREACH)));
    assert!(attempt.conn.reset.is_none());
}

#[test]
fn a_connect_that_the_kernel_gives_up_is_told_from_one_that_the_process_did() {
    let mut rig = rig();
    let errno = with_loopback(|| {
        filter_input(&format!("tcp dport {GIVEN_UP} drop"));
        connect_trying_once_more(at(GIVEN_UP))
    });
    assert_eq!(errno, libc::ETIMEDOUT);
    let attempt = rig.attempt(at(GIVEN_UP));
    let conn = &attempt.conn;
    assert_eq!((conn.phase, conn.errno), (Phase::Connecting, Some(libc::ETIMEDOUT)));
    assert!(!conn.closed_first, "the kernel gave up");
    // One SYN more, a second after the first; the kernel waits for its answer, too.
    assert!(attempt.tcp.unwrap().retransmits >= 1, "{attempt:?}");
    assert_eq!(attempt.listener, ListenerSeen::Absent);
}

/// Blocking connect() of a socket that retransmits its SYN once; the error.
fn connect_trying_once_more(to: SocketAddr) -> i32 {
    // SAFETY: a new socket of our own.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)) };
    let once = 1;
    // SAFETY: a valid descriptor and an int.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_SYNCNT, (&raw const once).cast(), 4)
    };
    assert_eq!(set, 0);
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    // SAFETY: a valid address of that size.
    let done = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_in>() as u32)
    };
    assert_eq!(done, -1);
    std::io::Error::last_os_error().raw_os_error().unwrap()
}
