//! Streams that are read together, and what their thread begins for them right behind that, in the same order.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::frames::*;
use crate::rig::*;

/// How often this thread went to sleep by itself.
fn sleeps() -> i64 {
    // SAFETY: a structure of the right kind to write to.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage.ru_nvcsw
    }
}

/// Where nobody listens, and nobody was dialled before.
fn nobody() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [a, b] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    (Ipv4Addr::new(127, 77, a, b), free_port().port()).into()
}

/// Begins to connect to this port of this host, without waiting for what comes of it.
fn dial(to: SocketAddr) -> OwnedFd {
    let SocketAddr::V4(v4) = to else { panic!("an address of IPv4") };
    // SAFETY: a new socket, and an address that outlives the call.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let mut name = std::mem::zeroed::<libc::sockaddr_in>();
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = v4.port().to_be();
        name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
        libc::connect(fd, (&raw const name).cast(), size_of::<libc::sockaddr_in>() as u32);
        OwnedFd::from_raw_fd(fd)
    }
}

struct Turn {
    address: SocketAddr,
    _client: TcpStream,
    served: TcpStream,
    dialled: Vec<SocketAddr>,
}

/// Streams that were read in one call, and as many connects right behind that. A thread that went to sleep meanwhile may
/// have done something else: that is tried again.
fn turn(requests: &[Vec<u8>], connects: usize) -> Turn {
    tried_again(requests, connects, 0)
}

/// The same, and as many more behind the end of those.
fn tried_again(requests: &[Vec<u8>], connects: usize, again: usize) -> Turn {
    let all = [&frame(4, 0, 0, &[])[..], &requests.concat()].concat();
    // Of a thread that never slept nothing tells where one turn ends.
    std::thread::sleep(std::time::Duration::from_millis(1));
    for _ in 0..1000 {
        let (front, address) = listen();
        let (mut client, mut served) = client_of(&front);
        client.write_all(PREFACE).unwrap();
        served.read_exact(&mut vec![0; PREFACE.len()]).unwrap();
        client.write_all(&all).unwrap();
        let dialled: Vec<SocketAddr> = (0..connects + again).map(|_| nobody()).collect();
        let mut room = vec![0; all.len()];
        let before = sleeps();
        let read = served.read(&mut room).unwrap();
        let mut held: Vec<OwnedFd> = dialled[..connects].iter().map(|to| dial(*to)).collect();
        if again > 0 {
            held.clear();
            held.extend(dialled[connects..].iter().map(|to| dial(*to)));
        }
        let slept = sleeps() != before;
        drop(held);
        if read == all.len() && !slept {
            return Turn { address, _client: client, served, dialled };
        }
    }
    panic!("the thread went to sleep each time");
}

fn bound(rig: &mut Rig, to: SocketAddr) -> (u32, u8, bool) {
    let attempt = rig.attempt(to);
    let bound = attempt.bound.unwrap();
    (bound.request, bound.choices, attempt.conn.in_turn)
}

fn begun_for(rig: &mut Rig, turn: &mut Turn, stream: u32) -> Option<u8> {
    turn.served.write_all(&frame(HEADERS, ALL, stream, b"\x08\x03503")).unwrap();
    stream_error(rig, turn.address, stream).conn.begun_for.map(Into::into)
}

#[test]
fn as_many_as_were_read_are_each_their_own() {
    rig().serves_in_turns(|rig| {
        let mut turn = turn(&[get(1, "/one"), get(3, "/three"), get(5, "/five")], 3);
        for (stream, to) in [1, 3, 5].into_iter().zip(turn.dialled.clone()) {
            assert_eq!(bound(rig, to), (stream, (7 - stream as u8) / 2, true));
        }
        for stream in [5, 1, 3] {
            assert_eq!(begun_for(rig, &mut turn, stream), Some(1), "no stream went without");
        }
    });
}

#[test]
fn fewer_than_were_read_may_be_anothers() {
    rig().serves_in_turns(|rig| {
        let mut turn = turn(&[get(1, "/one"), get(3, "/three"), get(5, "/five")], 2);
        for (stream, to) in [1, 3].into_iter().zip(turn.dialled.clone()) {
            assert_eq!(bound(rig, to), (stream, (7 - stream as u8) / 2, true));
        }
        assert_eq!(begun_for(rig, &mut turn, 1), Some(2), "one of three went without");
        // It wrote meanwhile: what it begins now is for whoever failed, or waited.
        let later = nobody();
        drop(dial(later));
        let (_, choices, in_turn) = bound(rig, later);
        assert!(!in_turn && choices > 1);
        assert_eq!(begun_for(rig, &mut turn, 5), Some(2));
    });
}

/// On loopback a refusal is there before the thread has anything to wait for: it needs no sleep to try again.
#[test]
fn what_is_begun_behind_a_failure_is_no_more_of_the_turn() {
    rig().serves_in_turns(|rig| {
        let mut turn = tried_again(&[get(1, "/one"), get(3, "/three")], 1, 1);
        let [first, again] = turn.dialled[..] else { panic!("two were dialled") };
        assert_eq!(bound(rig, first), (1, 2, true));
        assert!(!bound(rig, again).2, "a try of one that failed is none of the streams that were read");
        assert_eq!(begun_for(rig, &mut turn, 3), Some(2), "one of two went without");
    });
}

/// The numbers of turns of one stream are their own: what was begun for the last says nothing of those before.
#[test]
fn a_stream_that_was_read_alone_has_a_turn_of_its_own() {
    rig().serves_in_turns(|rig| {
        let mut none = turn(&[get(1, "/one")], 0);
        let one = turn(&[get(1, "/one")], 1);
        assert_eq!(bound(rig, one.dialled[0]), (1, 1, true));
        assert_eq!(begun_for(rig, &mut none, 1), Some(2), "it went without");
    });
}

#[test]
fn where_more_was_begun_than_read_or_a_stream_is_missing_nothing_follows() {
    rig().serves_in_turns(|rig| {
        let mut more = turn(&[get(1, "/one"), get(3, "/three")], 3);
        assert_eq!(begun_for(rig, &mut more, 3), None);
        let mut missing = turn(&[get(1, "/one"), get(5, "/five"), get(7, "/seven")], 2);
        for to in missing.dialled.clone() {
            assert!(!bound(rig, to).2, "there may have been a stream that was not seen");
        }
        assert_eq!(begun_for(rig, &mut missing, 7), None);
    });
}
