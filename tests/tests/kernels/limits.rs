//! One past what a table holds: counted, and nothing wrong is said for it.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use trace502::kernel::{Kernel, Options, Ring};
use trace502::model::*;
use trace502_ebpf::{PROC_PROXY, Table};

use crate::namespace;
use crate::rig::*;

const ROOM: u32 = 8;

struct Small {
    kernel: Kernel,
    ring: Ring,
}

/// A second kernel side, with little room.
fn small() -> Small {
    with(&Options { room: Some(ROOM), ..Options::default() })
}

fn with(options: &Options) -> Small {
    let mut kernel = Kernel::load(options).unwrap();
    kernel.track(std::process::id(), PROC_PROXY).unwrap();
    let ring = Ring::new(kernel.take_ring().unwrap());
    Small { kernel, ring }
}

impl Small {
    fn lost(&self, table: Table) -> u64 {
        self.kernel.lost()[table.slot()]
    }

    fn attempts(&mut self, to: std::net::SocketAddr) -> Vec<Attempt> {
        let mut found = Vec::new();
        let (ring, names) = (&mut self.ring, &self.kernel.names);
        ring.drain(usize::MAX, |record| {
            if let Fact::Attempt(attempt) = trace502::decode::decode(record, names).unwrap().fact
                && attempt.endpoint == Endpoint::Tcp(to)
            {
                found.push(*attempt);
            }
        });
        found
    }
}

#[test]
fn where_not_all_listeners_are_known_nobody_is_said_to_be_absent() {
    let nobody = free_port();
    // Other tests have sockets listen whose ports are not known at first: then another one begins anew.
    let all_known = (0..10).find_map(|_| {
        let mut small = small();
        assert!(TcpStream::connect(nobody).is_err());
        (small.attempts(nobody)[0].listener == ListenerSeen::Absent).then_some(small)
    });
    let mut small = all_known.expect("nobody listens there");
    let listeners: Vec<TcpListener> = (0..=ROOM).map(|_| listen().0).collect();
    assert!(small.lost(Table::Listeners) >= 1);
    let last = listeners.last().unwrap();
    // SAFETY: shrinks the backlog of a listening socket, so that one can be made to overflow.
    assert_eq!(unsafe { libc::listen(last.as_raw_fd(), 1) }, 0);
    assert!(TcpStream::connect(nobody).is_err());
    assert_eq!(small.attempts(nobody)[0].listener, ListenerSeen::Unknown);
}

#[test]
fn a_connection_past_the_room_is_counted_and_its_failure_told_without_its_other_end() {
    let mut small = small();
    let (listener, at) = listen();
    // Where in the table a connection may stand follows from its addresses: some room may be left for others.
    let mut pairs = Vec::new();
    let told = (0..4 * ROOM).any(|_| {
        let before = small.lost(Table::Flows);
        let mut proxy = ask(at);
        let (upstream, _) = listener.accept().unwrap();
        if small.lost(Table::Flows) == before {
            pairs.push((proxy, upstream));
            return false;
        }
        drop(upstream);
        read_to_end(&mut proxy);
        drop(proxy);
        // It was another test's connection that found no room, where this one's other end is known.
        small.attempts(at).iter().any(|attempt| attempt.conn.reset.is_some() && attempt.peer.is_none())
    });
    assert!(told, "no end of room, or nothing told");
    drop(pairs);
}

#[test]
fn connections_past_the_places_are_counted_and_those_that_end_make_room() {
    let mut small = with(&Options { places: Some(4), ..Options::default() });
    let (listener, _) = listen();
    let pairs: Vec<_> = (0..ROOM).map(|_| client_of(&listener)).collect();
    assert!(small.lost(Table::Connections) >= u64::from(2 * ROOM) - 4);
    drop(pairs);
    // Other tests take places as well, and give them back.
    let nobody = free_port();
    let told = (0..10_000).any(|_| {
        assert!(TcpStream::connect(nobody).is_err());
        !small.attempts(nobody).is_empty()
    });
    assert!(told);
}

#[test]
fn a_thread_past_the_room_is_counted_and_its_attempts_are_bound_to_nobody() {
    let mut small = small();
    let nobody = free_port();
    for _ in 0..=ROOM {
        std::thread::spawn(move || assert!(TcpStream::connect(nobody).is_err())).join().unwrap();
    }
    // Those that ended made room again: all of them must be there at once.
    assert_eq!(small.lost(Table::Threads), 0);
    let all = std::sync::Barrier::new(ROOM as usize + 1);
    std::thread::scope(|scope| {
        for _ in 0..=ROOM {
            scope.spawn(|| {
                assert!(TcpStream::connect(nobody).is_err());
                all.wait();
            });
        }
    });
    assert!(small.lost(Table::Threads) >= 1);
    assert_eq!(small.attempts(nobody).len(), 2 * (ROOM as usize + 1));
}

/// Ports are each namespace's own: who is accepted on one is no client of the proxy that has it elsewhere.
#[test]
fn the_port_of_a_proxy_takes_no_places_in_other_namespaces() {
    let _rig = rig();
    // Other tests have this process listen and dial while it is a proxy: then another one begins anew.
    let taken = (0..10).map(|_| taken_elsewhere()).find(|taken| taken.0 == 0);
    let (none, own) = taken.expect("one without a place taken");
    assert_eq!(none, 0);
    assert!(own >= u64::from(2 * ROOM) - 4, "those of a proxy that has it there, too, are taken: {own}");
}

/// Connections for which there was no place on the port of a proxy in another namespace: of somebody else, then of a proxy.
fn taken_elsewhere() -> (u64, u64) {
    let mut small = with(&Options { places: Some(4), ..Options::default() });
    let (_here, at) = listen();
    let elsewhere = move || {
        let listener = TcpListener::bind(at).unwrap();
        (0..ROOM).map(|_| client_of(&listener)).collect::<Vec<_>>()
    };
    let mut lost_as = |class| {
        small.kernel.track(std::process::id(), class).unwrap();
        let before = small.lost(Table::Connections);
        let _others = namespace::with_loopback(elsewhere);
        small.lost(Table::Connections) - before
    };
    (lost_as(0), lost_as(PROC_PROXY))
}

/// What a thread does after it read from a client that there was no room for is not told of the one it read before.
#[test]
fn what_is_begun_for_a_client_past_the_places_is_bound_to_nobody_else() {
    let mut small = with(&Options { places: Some(16), ..Options::default() });
    let (front, _) = listen();
    let (mut client, mut served) = client_of(&front);
    let nobody = free_port();
    let dialled = |small: &mut Small| {
        assert!(TcpStream::connect(nobody).is_err());
        small.attempts(nobody).pop().map(|attempt| attempt.bound.map(|bound| bound.client))
    };
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    let first = dialled(&mut small).expect("room for an attempt").expect("a client that is known");
    // Others take the rest, but for what is let go again at once.
    let mut others: Vec<_> = (0..32).map(|_| client_of(&front)).collect();
    for (client, served) in &mut others {
        client.write_all(REQUEST).unwrap();
        read_some(served);
    }
    assert!(small.lost(Table::Connections) > 0);
    let (mut last, mut of_last) = others.pop().unwrap();
    drop(others.drain(..8));
    for (client, served) in [(&mut client, &mut served), (&mut last, &mut of_last)] {
        client.write_all(REQUEST).unwrap();
        read_some(served);
    }
    let bound = (0..1_000).find_map(|_| dialled(&mut small)).expect("room again");
    assert_ne!(bound, Some(first));
}

/// Until it ends, in order or by a reset.
fn read_to_end(stream: &mut TcpStream) {
    use std::io::Read as _;
    while matches!(stream.read(&mut [0; 256]), Ok(1..)) {}
}
