//! Reserve, fill, submit; and count what did not fit.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
};
use trace502_ebpf::{ABI, COMM, Header, Kind, Table};

use crate::maps::{EVENTS, LOST};

const _: () = assert!(ABI == 1, "a change of layout is a change of ABI");

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Process and thread that the hook runs in.
#[inline(always)]
pub fn current() -> (u32, u32) {
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    ((both >> 32) as u32, both as u32)
}

#[inline(always)]
pub fn comm(to: &mut [u8; COMM]) {
    // SAFETY: `to` has COMM bytes.
    unsafe { bpf_get_current_comm(to.as_mut_ptr().cast(), COMM as u32) };
}

#[inline(always)]
pub fn cgroup() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

#[inline(always)]
pub fn header(kind: u16, why: u16, len: usize) -> Header {
    let (tgid, tid) = current();
    Header { kind, why, len: len as u32, at: now(), tgid, tid }
}

/// Counts what could not be told. Slot 0 is for payload that could not be read.
#[inline(always)]
pub fn lost(slot: u32) {
    if let Some(count) = LOST.get_ptr_mut(slot) {
        // SAFETY: a per-CPU slot: nobody else writes it.
        unsafe { *count += 1 };
    }
}

/// Counts what a table had no room for.
#[inline(always)]
pub fn full(table: Table) {
    lost(table.slot() as u32);
}

/// Puts a record together in place and hands it over.
///
/// `fill` must write every byte that user space will read: reserved memory is not zeroed.
#[inline(always)]
pub fn record<T>(kind: Kind, fill: impl FnOnce(*mut T)) {
    record_as(kind as u32, fill);
}

/// The same for a kind that is a number.
#[inline(always)]
pub fn record_as<T>(kind: u32, fill: impl FnOnce(*mut T)) {
    match EVENTS.reserve_bytes(size_of::<T>(), 0) {
        Some(mut room) => {
            fill(room.as_mut_ptr().cast());
            room.submit(0);
        }
        None => lost(kind),
    }
}

/// The same where `fill` may find that what it reads has meanwhile become somebody else's: then it is lost.
#[inline(always)]
pub fn record_if<T>(kind: Kind, fill: impl FnOnce(*mut T) -> bool) {
    match EVENTS.reserve_bytes(size_of::<T>(), 0) {
        Some(mut room) => {
            if fill(room.as_mut_ptr().cast()) {
                room.submit(0);
            } else {
                room.discard(0);
                lost(kind as u32);
            }
        }
        None => lost(kind as u32),
    }
}
