//! Which client request a thread serves: the birth of an attempt is bound here.
//!
//! nginx, Apache and Envoy serve the request they read last, HAProxy the oldest that is not served yet
//! (`PROC_OLDEST`). Both need only what this very thread did before. A retry reads nothing new: it is bound to the
//! request whose attempt failed last on the thread.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::{CONN_CHOICE, CONN_RETRY, Conn, PROC_LOOSE, PROC_OLDEST, Thread, WAITING, Waiting};

use crate::maps::{SCRATCH_THREAD, THREADS};

const MASK: u32 = WAITING as u32 - 1;
pub const NOBODY: Waiting = Waiting { client: 0, request: 0, _pad: 0 };

/// State of a thread, made when it is first seen.
#[inline(always)]
pub fn of(tid: u32) -> Option<&'static mut Thread> {
    if let Some(thread) = THREADS.get_ptr_mut(tid) {
        // SAFETY: a map value; only this thread changes it, but for `answered`.
        return Some(unsafe { &mut *thread });
    }
    // SAFETY: an all-zero template that nobody writes.
    let empty = unsafe { &*SCRATCH_THREAD.get_ptr(0)? };
    let _ = THREADS.insert(tid, empty, BPF_ANY.into());
    // SAFETY: as above.
    THREADS.get_ptr_mut(tid).map(|thread| unsafe { &mut *thread })
}

/// The thread read the first bytes of a new client request.
#[inline(always)]
pub fn asked(thread: &mut Thread, conn: &mut Conn) {
    let slot = thread.tail & MASK;
    let waiting = Waiting { client: conn.cookie, request: conn.request, _pad: 0 };
    if thread.open & 1 << slot == 0 {
        thread.open |= 1 << slot;
        thread.live += 1;
    }
    thread.waiting[slot as usize] = waiting;
    conn.slot = slot;
    thread.tail = thread.tail.wrapping_add(1);
    thread.last = waiting;
    thread.retry = NOBODY;
    thread.requests += 1;
}

/// The thread read more of a request it knows.
#[inline(always)]
pub fn continued(thread: &mut Thread, conn: &Conn) {
    thread.last = Waiting { client: conn.cookie, request: conn.request, _pad: 0 };
    thread.retry = NOBODY;
}

/// The answer of a request began: nobody will serve it any more.
#[inline(always)]
pub fn answered(thread: &mut Thread, conn: &Conn) {
    thread.answers += 1;
    forget(thread, conn.slot, conn.cookie);
    if thread.last.client == conn.cookie {
        thread.last = NOBODY;
    }
    if thread.retry.client == conn.cookie {
        thread.retry = NOBODY;
    }
}

#[inline(always)]
fn forget(thread: &mut Thread, slot: u32, client: u64) {
    if thread.waiting[(slot & MASK) as usize].client == client {
        take(thread, slot);
    }
}

/// Binds the request that an upstream connection begins to serve.
#[inline(always)]
pub fn bind(thread: &mut Thread, class: u32, conn: &mut Conn) {
    let bound = choose(thread, class);
    conn.flags &= !(CONN_CHOICE | CONN_RETRY);
    conn.flags |= bound.flags;
    conn.bound = bound.to.client;
    conn.bound_request = bound.to.request;
    conn.choices = bound.choices;
}

/// A request that was chosen, and how sure that is.
#[derive(Clone, Copy)]
pub struct Choice {
    pub to: Waiting,
    pub choices: u8,
    pub flags: u16,
}

/// Chooses the request that the thread serves with what it starts now.
#[inline(always)]
pub fn choose(thread: &mut Thread, class: u32) -> Choice {
    // Where the rule is exact there is no choice, however many requests are in flight.
    let choices = if class & PROC_LOOSE != 0 { thread.live.min(255) as u8 } else { 1 };
    let mut flags = 0;
    let to = if thread.retry.client != 0 {
        flags |= CONN_RETRY;
        core::mem::replace(&mut thread.retry, NOBODY)
    } else if class & PROC_OLDEST != 0 {
        oldest(thread)
    } else {
        thread.last
    };
    if choices > 1 {
        flags |= CONN_CHOICE;
    }
    thread.bound = to;
    Choice { to, choices, flags }
}

/// Takes the oldest request that is neither answered nor served.
///
/// By bits, not by a loop: its 32 rounds were a quarter of what the verifier had to walk through.
#[inline(always)]
fn oldest(thread: &mut Thread) -> Waiting {
    if thread.open == 0 {
        return NOBODY;
    }
    // The slot to be written next holds the oldest.
    let turned = thread.open.rotate_right(thread.tail & MASK);
    let slot = thread.tail.wrapping_add(lowest(turned));
    take(thread, slot)
}

/// Empties a slot.
#[inline(always)]
fn take(thread: &mut Thread, slot: u32) -> Waiting {
    let slot = slot & MASK;
    if thread.open & 1 << slot != 0 {
        thread.open &= !(1 << slot);
        thread.live = thread.live.saturating_sub(1);
    }
    core::mem::replace(&mut thread.waiting[slot as usize], NOBODY)
}

/// Number of the lowest bit that is set: there is no instruction for it, and a table would be a map.
#[inline(always)]
fn lowest(bits: u32) -> u32 {
    let below = core::hint::black_box((bits & bits.wrapping_neg()).wrapping_sub(1));
    below.count_ones()
}

/// An attempt of this thread failed: what it starts next without reading anything is a retry.
#[inline(always)]
pub fn failed(thread: &mut Thread, of: Waiting) {
    if of.client != 0 {
        thread.retry = of;
    }
}
