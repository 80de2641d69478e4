//! Who a connection of a proxy ends at on this host: the other end's socket, the listener that it was meant for, and
//! the processes that own them.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::*;

use crate::kernel::{self, Sock};
use crate::maps::{LISTENERS, LISTENERS_MISSING, ListenKey, PROCS, UNIX_PEERS, UnixPeer};
use crate::{emit, flow};

/// The other end of the connection, where it lives on this host.
#[inline(always)]
pub fn other_end(record: &mut ConnRecord) {
    if let Some(peer) = flow::peer_of(&record.conn) {
        as_it_is(record, peer);
    }
}

/// What is known of the other end, and what its socket says of itself where it still lives.
#[inline(always)]
pub fn as_it_is(record: &mut ConnRecord, peer: &Peer) {
    kernel::copy((&raw mut record.peer).cast(), (&raw const *peer).cast(), size_of::<Peer>());
    if peer.sk == 0 || kernel::cookie_at(peer.sk) != peer.cookie {
        return;
    }
    record.peer.flags |= PEER_LIVE;
    record.peer.state = kernel::state_at(peer.sk);
    if kernel::accepted_at(peer.sk) {
        record.peer.flags |= PEER_ACCEPTED;
    }
    if record.peer.flags & PEER_CLOSED_FIRST == 0 {
        record.peer.unread = kernel::unread(peer.sk as *const u8);
    }
}

/// The listener that a connection was meant for, in the same network namespace.
#[inline(always)]
pub fn find_listener(tuple: &Tuple, to: &mut Listener) {
    let mut key = ListenKey { addr: tuple.remote, netns: tuple.netns, port: tuple.remote_port, _pad: 0 };
    let v4 = kernel::is_mapped(&tuple.remote);
    // The exact address, then the wildcard of its family, then that of IPv6, which takes IPv4 too unless told otherwise.
    let mut found = LISTENERS.get_ptr(&key);
    if found.is_none() && v4 {
        key.addr = kernel::mapped(0);
        found = LISTENERS.get_ptr(&key);
    }
    if found.is_none() {
        key.addr = kernel::any();
        // SAFETY: a value of the map.
        found = LISTENERS.get_ptr(&key).filter(|state| !v4 || unsafe { (**state).only_v6 } == 0);
    }
    // SAFETY: four fields. Volatile, or the stores become a loop over bytes in a function of its own.
    unsafe {
        core::ptr::write_volatile(&raw mut to.cookie, 0);
        core::ptr::write_volatile(&raw mut to.tgid, 0);
        core::ptr::write_volatile(&raw mut to.queue, 0);
        core::ptr::write_volatile(&raw mut to.limit, 0);
    }
    let Some(state) = found else {
        to.seen = if all_known() { LISTENER_ABSENT } else { LISTENER_UNKNOWN };
        return;
    };
    // SAFETY: a value of the map.
    let state = unsafe { &*state };
    to.seen = match state.count.get() {
        1 => LISTENER_PRESENT,
        // The kernel chooses one of them by the connection, and does not tell which: user space asks all of them.
        2..MANY => LISTENER_SHARED,
        // One is being added, or taken away.
        _ => LISTENER_UNKNOWN,
    };
    // The cookie last, which is added to first: where it is one socket's, so is the rest.
    let tgid = state.tgid.get();
    let sk = state.sk.get();
    let cookie = state.cookie.get();
    if to.seen == LISTENER_PRESENT && kernel::cookie_at(sk) == cookie {
        to.cookie = cookie;
        to.tgid = tgid as u32;
        (to.queue, to.limit) = kernel::accept_queue(sk);
    }
}

/// More sockets do not share an address.
const MANY: u64 = 1 << 32;

/// Whether everybody is known who listens. Where the table had no room for somebody, or a port is not known yet, that one
/// may be who is looked for.
#[inline(always)]
fn all_known() -> bool {
    // SAFETY: a number.
    let none = |place| LISTENERS_MISSING.get_ptr(place).is_some_and(|missing| unsafe { *missing } == 0);
    none(0) && none(1)
}

/// Path and other end of a unix connection.
#[inline(always)]
pub fn unix(sk: u64, record: &mut ConnRecord) {
    kernel::clear(&mut record.tuple);
    kernel::clear(&mut record.tcp);
    record.tcp.error = kernel::error_at(sk);
    let peer = kernel::unix_peer(sk);
    let named = if peer == 0 { sk } else { peer };
    record.path_len = kernel::unix_path(named, &mut record.path);
    if peer == 0 {
        return;
    }
    let tgid = unix_reader(peer, record.conn.cookie);
    record.peer = Peer {
        sk: peer,
        // Unix sockets seldom have a cookie: what it points back at identifies it.
        cookie: sk,
        closed: 0,
        tgid,
        closed_tgid: 0,
        unread: kernel::receive_queue(peer),
        reset_reason: 0,
        netns: 0,
        seen: PEER_SEEN,
        state: kernel::state_at(peer),
        flags: if kernel::unix_peer(peer) == sk { PEER_LIVE } else { 0 },
        _pad: 0,
    };
    if tgid != 0 || kernel::accepted_at(peer) {
        record.peer.flags |= PEER_ACCEPTED;
    }
}

/// A proxy sends the first bytes to the other end of a unix connection.
#[inline(always)]
pub fn unix_dialled(sk: Sock, peer: u64, cookie: u64) {
    let dialled = UnixPeer { owner: sk.0 as u64, cookie, tgid: 0, _pad: 0 };
    let _ = UNIX_PEERS.insert(&peer, &dialled, BPF_ANY.into());
}

/// A process reads from a unix socket: if that is the other end of a proxy's connection, its process matters.
#[inline(always)]
pub fn unix_read_by(sk: Sock, tgid: u32) {
    let at = sk.0 as u64;
    let Some(peer) = UNIX_PEERS.get_ptr_mut(&at) else { return };
    // SAFETY: a value of the map.
    let peer = unsafe { &mut *peer };
    if peer.tgid == tgid || kernel::unix_peer(at) != peer.owner {
        return;
    }
    peer.tgid = tgid;
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    if class & PROC_OWNER == 0 {
        owner(tgid, class);
    }
}

/// It listens, or reads for a proxy: from now on its process matters.
#[inline(always)]
pub fn owner(tgid: u32, class: u32) {
    if PROCS.insert(&tgid, &(class | PROC_OWNER), BPF_ANY.into()).is_err() {
        emit::full(Table::Processes);
    }
}

/// Who read last from the other end of a unix connection with this cookie.
#[inline(always)]
pub fn unix_reader(peer: u64, cookie: u64) -> u32 {
    let Some(known) = UNIX_PEERS.get_ptr(&peer) else { return 0 };
    // SAFETY: plain numbers of a value of the map, each read once.
    let (tgid, of) = unsafe { (core::ptr::read_volatile(&raw const (*known).tgid), (*known).cookie) };
    // The place may have been given to another peer meanwhile.
    if of == cookie && UNIX_PEERS.get_ptr(&peer).is_some_and(|now| core::ptr::eq(now, known)) { tgid } else { 0 }
}

pub const NO_LISTENER: Listener =
    Listener { cookie: 0, tgid: 0, queue: 0, limit: 0, seen: LISTENER_UNKNOWN, _pad: [0; 3] };
