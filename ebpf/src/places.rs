//! Where what is known of connections is kept: a place each, found by the cookie of its socket.
//!
//! Each cookie has two groups of places and takes one in the emptier. So nearly all of them are taken before a
//! connection finds none, where with one group each a fourteenth would be turned away with half of them free.

use crate::kernel;
use crate::maps::{PLACES, TAGS, WAYS, constant};

/// No place: past the end of the map.
pub const NOWHERE: u32 = u32::MAX;
/// Tag of a place that is being prepared for its new owner.
const TAKEN: u64 = u64::MAX;

/// The two groups in which a cookie may stand.
#[inline(always)]
fn groups(cookie: u64) -> (u32, u32) {
    let mask = constant!(SETTINGS.places) / WAYS as u32 - 1;
    // Cookies are given out in a row: the first spreads by itself, the second must not follow it.
    (cookie as u32 & mask, (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 & mask)
}

/// All bits if they are not the same, else none. Written as a comparison it would be a jump, and what the verifier walks
/// through after it would be walked through once for each place.
#[inline(always)]
fn differ(a: u64, b: u64) -> u64 {
    let bits = a ^ b;
    let differ;
    // SAFETY: arithmetic.
    unsafe {
        core::arch::asm!(
            "{differ} = {bits}",
            "{differ} = -{differ}",
            "{differ} |= {bits}",
            "{differ} s>>= 63",
            bits = in(reg) bits,
            differ = out(reg) differ,
            options(pure, nomem, nostack),
        );
    }
    differ
}

/// The place that this cookie has; of several always the same.
#[inline(always)]
pub fn find(cookie: u64) -> u32 {
    let (near, far) = groups(cookie);
    let mut place = u64::from(NOWHERE);
    for group in [near, far] {
        let Some(tags) = TAGS.get_ptr(group) else { return NOWHERE };
        // SAFETY: a value of the map; numbers that are written as a whole.
        for (way, tag) in unsafe { &*tags }.iter().enumerate() {
            let other = differ(*tag, cookie);
            place = place & other | (u64::from(group) * WAYS as u64 + way as u64) & !other;
        }
    }
    place as u32
}

/// Kernel address of the socket with this cookie, 0 where it has no place.
#[inline(always)]
pub fn owner(cookie: u64) -> u64 {
    // SAFETY: a number in a value of the map.
    PLACES.get_ptr(find(cookie)).map_or(0, |place| unsafe { (*place).sk })
}

/// Takes a place for a socket, whose address is to be written there. It is nobody's until it is published.
///
/// Global to the verifier, which walks through it once for each program and not once for each way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn claim(cookie: u64) -> u32 {
    let (near, far) = groups(cookie);
    let (first, second) = if free(far) > free(near) { (far, near) } else { (near, far) };
    for group in [first, second] {
        let place = claim_free(group);
        if place != NOWHERE {
            return place;
        }
    }
    for group in [first, second] {
        let place = claim_left(group);
        if place != NOWHERE {
            return place;
        }
    }
    NOWHERE
}

#[inline(always)]
fn free(group: u32) -> u64 {
    let Some(tags) = TAGS.get_ptr(group) else { return 0 };
    // SAFETY: a value of the map.
    unsafe { &*tags }.iter().map(|tag| 1 + differ(*tag, 0)).sum()
}

#[inline(never)]
fn claim_free(group: u32) -> u32 {
    let Some(tags) = TAGS.get_ptr_mut(group) else { return NOWHERE };
    // SAFETY: a value of the map.
    for (way, tag) in unsafe { &mut *tags }.iter_mut().enumerate() {
        if *tag == 0 && exchanged(tag, 0, TAKEN) {
            return group * WAYS as u32 + way as u32;
        }
    }
    NOWHERE
}

/// Not every end is seen: sockets of other families have no hook there.
#[inline(never)]
fn claim_left(group: u32) -> u32 {
    let Some(tags) = TAGS.get_ptr_mut(group) else { return NOWHERE };
    // SAFETY: a value of the map.
    for (way, tag) in unsafe { &mut *tags }.iter_mut().enumerate() {
        let place = group * WAYS as u32 + way as u32;
        let owner = *tag;
        let Some(about) = PLACES.get_ptr_mut(place) else { return NOWHERE };
        // SAFETY: a value of the map.
        let gone = unsafe { kernel::cookie_at((*about).sk) } != owner;
        if owner != TAKEN && gone && exchanged(tag, owner, TAKEN) {
            return place;
        }
    }
    NOWHERE
}

/// From now on the place is found by this cookie.
#[inline(always)]
pub fn publish(place: u32, cookie: u64) {
    if let Some(tags) = TAGS.get_ptr_mut(place / WAYS as u32) {
        // SAFETY: a value of the map.
        exchanged(unsafe { &mut (*tags)[place as usize % WAYS] }, TAKEN, cookie);
    }
}

/// Writes `new` where `old` is, in one step and behind all that was written before; whether it was.
#[inline(always)]
pub fn exchanged(place: &mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    let found = {
        let mut found = old;
        // SAFETY: eight bytes of a map value, aligned; the instruction is of Linux 5.12.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({at} + 0, r0, {new})",
                at = in(reg) &raw mut *place,
                new = in(reg) new,
                inout("r0") found,
            );
        }
        found
    };
    // Where the probes are only looked at.
    #[cfg(not(target_arch = "bpf"))]
    let found = core::mem::replace(place, new);
    found == old
}

/// The socket of a connection is destroyed: its place is free.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn gone(cookie: u64) -> i32 {
    let (near, far) = groups(cookie);
    for group in [near, far] {
        let Some(tags) = TAGS.get_ptr_mut(group) else { return 0 };
        // SAFETY: a value of the map.
        for tag in unsafe { &mut *tags } {
            if *tag == cookie {
                exchanged(tag, cookie, 0);
            }
        }
    }
    0
}
