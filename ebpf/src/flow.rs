//! Upstream connections by their addresses, so that their other end on this host is recognised.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use trace502_ebpf::*;

use crate::emit;
use crate::kernel::{self, Sock, TCP_CLOSE};
use crate::maps::{CROWDED, FLOWS, FlowState, NAMESAKES, PORTS};

const NO_PEER: Peer = Peer {
    sk: 0,
    cookie: 0,
    closed: 0,
    tgid: 0,
    closed_tgid: 0,
    unread: 0,
    reset_reason: 0,
    netns: 0,
    seen: PEER_NONE,
    state: 0,
    flags: 0,
    _pad: 0,
};

/// Makes a connection known by its addresses.
#[inline(never)]
pub fn remember(sk: Sock, conn: &mut Conn) -> i32 {
    sk.tuple(&mut conn.tuple);
    if let Some(used) = PORTS.get_ptr_mut(conn.tuple.remote_port.into()) {
        // SAFETY: a number that only ever becomes 1.
        unsafe { (*used).dialled = 1 };
    }
    let mut key = conn.tuple;
    let numbered = kernel::flow_key(&mut key);
    let state = FlowState { sk: sk.0 as u64, cookie: conn.cookie, peer: NO_PEER };
    if FLOWS.insert(&key, &state, BPF_NOEXIST.into()).is_ok() {
        return 0;
    }
    for _ in 0..NAMESAKES {
        // What a connection left behind gives way to the next one with its addresses.
        let taken = numbered && FLOWS.get_ptr(&key).is_some_and(|other| is_namesake(other, conn.tuple.netns));
        if !taken {
            if FLOWS.insert(&key, &state, BPF_ANY.into()).is_err() {
                emit::full(Table::Flows);
            }
            return 0;
        }
        if let Some(crowded) = CROWDED.get_ptr_mut(0) {
            // SAFETY: a number that only ever becomes 1.
            unsafe { *crowded = 1 };
        }
        key.netns += 1;
    }
    emit::full(Table::Flows);
    0
}

/// Whether this is a connection that lives, in another namespace than ours.
#[inline(always)]
fn is_namesake(other: *const FlowState, netns: u32) -> bool {
    // SAFETY: a value of the map.
    let other = unsafe { &*other };
    kernel::cookie_at(other.sk) == other.cookie
        && kernel::state_at(other.sk) != TCP_CLOSE
        && kernel::netns(other.sk as kernel::Ptr) != netns
}

/// The flow at these addresses that `pick` takes; they become its key, in place: there is little room on the stack.
#[inline(always)]
fn find(key: &mut Tuple, pick: impl Fn(&FlowState) -> bool) -> Option<&'static mut FlowState> {
    let numbered = kernel::flow_key(key);
    // SAFETY: a value of the map.
    let first = FLOWS.get_ptr_mut(&*key).map(|flow| unsafe { &mut *flow });
    if let Some(flow) = first
        && pick(flow)
    {
        return Some(flow);
    }
    // SAFETY: a number.
    let crowded = CROWDED.get_ptr(0).is_some_and(|crowded| unsafe { *crowded } != 0);
    if !numbered || !crowded {
        return None;
    }
    for _ in 1..NAMESAKES {
        key.netns += 1;
        // SAFETY: as above.
        let next = FLOWS.get_ptr_mut(&*key).map(|flow| unsafe { &mut *flow });
        if let Some(flow) = next
            && pick(flow)
        {
            return Some(flow);
        }
    }
    None
}

/// The flow of the connection with this cookie, by its own addresses.
#[inline(always)]
pub fn of(addresses: &mut Tuple, cookie: u64) -> Option<&'static mut FlowState> {
    find(addresses, |flow| flow.cookie == cookie)
}

/// The connection is not looked for by its addresses any more. They may be those of a newer one already.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn forget_flow(conn: *const Conn) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    let mut key = conn.tuple;
    if of(&mut key, conn.cookie).is_some() {
        let _ = FLOWS.remove(&key);
    }
    0
}

/// The flow whose other end this socket is: addresses mirrored, in the same namespace or another one.
#[inline(always)]
pub fn mirrored(sk: Sock) -> Option<&'static mut FlowState> {
    // SAFETY: a number.
    let dialled = PORTS.get_ptr(sk.port().into()).is_some_and(|used| unsafe { (*used).dialled } != 0);
    if dialled { mirror_of(sk) } else { None }
}

#[inline(never)]
fn mirror_of(sk: Sock) -> Option<&'static mut FlowState> {
    let mut tuple = kernel::mirror(&kernel::addresses_of(sk));
    find(&mut tuple, |flow| kernel::cookie_at(flow.sk) == flow.cookie && kernel::receives_from(sk, flow.sk))
}

/// The flow whose other end this socket was found to be.
#[inline(never)]
pub fn linked(sk: Sock, bound: u64) -> Option<&'static mut FlowState> {
    let mut tuple = kernel::mirror(&kernel::addresses_of(sk));
    of(&mut tuple, bound)
}

/// Notes in the flow that its other end's stack sent a reset, and why.
#[inline(always)]
pub fn reset(sent: &Tuple, reason: u32) {
    let netns = sent.netns;
    let mut key = kernel::mirror(sent);
    let by_its_end = |flow: &FlowState| flow.peer.seen == PEER_NONE || netns == 0 || flow.peer.netns == netns;
    if let Some(flow) = find(&mut key, by_its_end) {
        flow.peer.flags |= PEER_SENT_RESET;
        flow.peer.reset_reason = reason;
    }
}
