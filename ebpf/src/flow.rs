//! Upstream connections by their addresses, so that their other end on this host is recognised.
//!
//! What is found is the place that the connection has (`places`): an entry is a number of that and some bits of what its
//! addresses come to, so that hardly another connection is looked at. Each has two groups of entries, as places have.
//! A table of the kernel's own would cost memory to be had and given back for each connection.

use trace502_ebpf::*;

use crate::kernel::{self, Sock};
use crate::maps::{ENDS, PLACES, PORTS, Place, WAYS, constant};
use crate::places::{self, NOWHERE};
use crate::{emit, h2};

/// Where a connection with these addresses may stand, and the upper half of its entry.
struct Entry {
    groups: [u32; 2],
    mark: u64,
}

/// Four bytes each.
const WORDS: usize = size_of::<Tuple>() / 4;

#[inline(always)]
fn word(tuple: &Tuple, index: usize) -> u32 {
    // SAFETY: within it, and aligned as it is.
    unsafe { (&raw const *tuple).cast::<u32>().add(index).read() }
}

impl Entry {
    #[inline(always)]
    fn of(key: &Tuple) -> Entry {
        let mut sum: u64 = 0;
        for index in 0..WORDS {
            sum = (sum ^ u64::from(word(key, index))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum ^= sum >> 29;
        }
        let mask = constant!(SETTINGS.flows) / WAYS as u32 - 1;
        Entry { groups: [sum as u32 & mask, (sum >> 17) as u32 & mask], mark: sum & !u64::from(u32::MAX) }
    }

    /// Where this connection has its place. Never 0, which is nobody.
    #[inline(always)]
    fn at(&self, place: u32) -> u64 {
        self.mark | u64::from(place.wrapping_add(1))
    }
}

/// The addresses by which a connection is found.
#[inline(always)]
fn key_of(conn: &Conn) -> Tuple {
    let mut key = conn.tuple;
    kernel::flow_key(&mut key);
    key
}

/// Makes a connection known by its addresses.
#[inline(never)]
pub fn remember(sk: Sock, conn: &mut Conn) -> i32 {
    sk.tuple(&mut conn.tuple);
    let number = places::find(conn.cookie);
    let Some(place) = PLACES.get_ptr_mut(number) else { return 0 };
    // SAFETY: a value of the map; its other end is not known yet.
    nobody(unsafe { &mut (*place).peer });
    let key = key_of(conn);
    enter(&raw const key, number)
}

/// Global to the verifier: see `story::told`.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn enter(key: *const Tuple, place: u32) -> i32 {
    // SAFETY: the verifier knows that there are addresses, where there is anything.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let entry = Entry::of(key);
    for group in entry.groups {
        let Some(ends) = ENDS.get_ptr_mut(group) else { return 0 };
        // SAFETY: a value of the map.
        for end in unsafe { &mut *ends } {
            if *end == 0 && places::exchanged(end, 0, entry.at(place)) {
                return 1;
            }
        }
    }
    emit::full(Table::Flows);
    0
}

/// Nothing is known of another end.
#[inline(always)]
fn nobody(peer: &mut Peer) {
    const { assert!(size_of::<Peer>().is_multiple_of(8) && PEER_NONE == 0) };
    for index in 0..size_of::<Peer>() / 8 {
        // SAFETY: within it. Volatile, or the stores become a loop over bytes in a function of its own.
        unsafe { core::ptr::write_volatile((&raw mut *peer).cast::<u64>().add(index), 0) };
    }
}

/// The place of the upstream connection with these addresses whose other end is the socket at `other`; where that is 0,
/// of the one whose other end may be in this namespace.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn upstream_at(key: *const Tuple, other: u64, netns: u32) -> u32 {
    // SAFETY: as in `enter`.
    let Some(key) = (unsafe { key.as_ref() }) else { return NOWHERE };
    let entry = Entry::of(key);
    for group in entry.groups {
        let Some(ends) = ENDS.get_ptr(group) else { return NOWHERE };
        // SAFETY: a value of the map; numbers that are written as a whole.
        for end in unsafe { &*ends } {
            let place = (*end as u32).wrapping_sub(1);
            if *end != 0 && *end ^ entry.mark <= u32::MAX.into() && leads(place, key, other, netns) {
                return place;
            }
        }
    }
    NOWHERE
}

#[inline(always)]
fn leads(place: u32, key: &Tuple, other: u64, netns: u32) -> bool {
    let Some(place) = PLACES.get_ptr(place) else { return false };
    // SAFETY: a value of the map.
    let place = unsafe { &*place };
    // The last word is the namespace, which counts only where the addresses are that namespace's own.
    let mut differ = 0;
    for index in 0..WORDS - 1 {
        differ |= word(&place.conn.tuple, index) ^ word(key, index);
    }
    if differ != 0 || place.conn.role != ROLE_UPSTREAM || key.netns != 0 && key.netns != place.conn.tuple.netns {
        return false;
    }
    if other != 0 {
        return kernel::cookie_at(place.sk) == place.conn.cookie && kernel::receives_from(other, place.sk);
    }
    place.peer.seen == PEER_NONE || netns == 0 || place.peer.netns == netns
}

/// The connection is not looked for by its addresses any more, nor are its frames followed: it is at its end, or serves
/// something else.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn forget_flow(conn: *const Conn) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    if conn.class & CLASS_FRAMES != 0 {
        h2::asked::forget(conn.cookie);
    }
    if !is_remembered(conn) {
        return 0;
    }
    let entry = Entry::of(&key_of(conn));
    let own = entry.at(places::find(conn.cookie));
    for group in entry.groups {
        let Some(ends) = ENDS.get_ptr_mut(group) else { return 0 };
        // SAFETY: a value of the map.
        for end in unsafe { &mut *ends } {
            if *end == own {
                places::exchanged(end, own, 0);
            }
        }
    }
    0
}

/// Whether a connection came as far as to be known by its addresses.
#[inline(always)]
fn is_remembered(conn: &Conn) -> bool {
    conn.established != 0 || conn.flags & CONN_OLD != 0
}

/// What is known of the other end of an upstream connection on this host.
#[inline(always)]
pub fn peer_of(conn: &Conn) -> Option<&'static Peer> {
    if !is_remembered(conn) {
        return None;
    }
    // SAFETY: a value of the map.
    let place = PLACES.get_ptr(places::find(conn.cookie)).map(|place| unsafe { &*place })?;
    (place.conn.cookie == conn.cookie).then_some(&place.peer)
}

/// A proxy dials this port.
#[inline(always)]
pub fn dials(port: u16) {
    if let Some(used) = PORTS.get_ptr_mut(port.into()) {
        // SAFETY: a number that only ever becomes 1.
        unsafe { (*used).dialled = 1 };
    }
}

/// Whether a proxy has dialled this port, wherever. Asked first, since most are nobody's.
#[inline(always)]
pub fn is_dialled(port: u16) -> bool {
    // SAFETY: a number.
    PORTS.get_ptr(port.into()).is_some_and(|used| unsafe { (*used).dialled } != 0)
}

/// The connection whose other end this socket is: addresses mirrored, in the same namespace or another one.
#[inline(always)]
pub fn mirrored(sk: Sock) -> Option<&'static mut Place> {
    if is_dialled(sk.port()) { place(mirror_of(sk)) } else { None }
}

#[inline(never)]
fn mirror_of(sk: Sock) -> u32 {
    let mut key = kernel::mirror(&kernel::addresses_of(sk));
    kernel::flow_key(&mut key);
    upstream_at(&raw const key, sk.address(), 0)
}

#[inline(always)]
fn place(number: u32) -> Option<&'static mut Place> {
    // SAFETY: a value of the map.
    PLACES.get_ptr_mut(number).map(|place| unsafe { &mut *place })
}

/// The connection whose other end a socket was found to be, as long as it is watched.
#[inline(always)]
pub fn linked(bound: u64) -> Option<&'static mut Place> {
    place(places::find(bound)).filter(|place| place.conn.cookie == bound && place.conn.role == ROLE_UPSTREAM)
}

/// Notes of the connection that its other end's stack sent a reset, and why.
#[inline(always)]
pub fn reset(sent: &Tuple, reason: u32) {
    let mut key = kernel::mirror(sent);
    kernel::flow_key(&mut key);
    if let Some(place) = place(upstream_at(&raw const key, 0, sent.netns)) {
        place.peer.flags |= PEER_SENT_RESET;
        place.peer.reset_reason = reason;
    }
}
