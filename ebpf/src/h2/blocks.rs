//! Header blocks (RFC 7541). Of one three things are read here: the status, which every server writes first, that of gRPC
//! (`grpc`), and how many entries the block adds to the table of headers, without which later blocks could not be read.
//! The rest is read by user space, for errors only.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use trace502_ebpf::UNCOUNTED;

use super::{grpc, of};
use crate::maps::{Direction, H2, KnownStatus, Parts, STATUSES};
use crate::{emit, kernel};

/// Representations and strings of a piece of a block, of which each takes a step or two.
const PARTS: u32 = 1024;

/// What is not a status: of no interest, or of a stream that the owner gave up.
pub const OTHER: u16 = 1;
pub const INTERIM: u16 = 2;
pub const ABANDONED: u16 = 3;

/// What a number tells: nothing of interest.
const NOTHING: u32 = 0;
/// The length of a string.
pub const STRING: u32 = 1;
/// The name of a field, by its place in the table; 0 where the name follows.
pub const FIELD: u32 = 2;
/// A field, by its place in the table.
pub const INDEX: u32 = 3;

/// Goes through the representations of the next piece of a header block.
#[inline(always)]
pub fn count(mut cookie: u64, parts: &mut Parts, at: u64, n: u32, step: *mut c_void) {
    (parts.at, parts.left) = (at, n);
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(PARTS, step, (&raw mut cookie).cast(), 0) };
}

/// The block came to its end.
#[inline(always)]
pub fn counted(direction: &mut Direction) {
    let parts = &direction.parts;
    let whole = parts.left == 0 && parts.skip == 0 && parts.strings == 0 && parts.shift == 0 && parts.broken == 0;
    let known = direction.inserted != UNCOUNTED && whole;
    direction.inserted = if known { direction.inserted + parts.inserted } else { UNCOUNTED };
    direction.open = 0;
}

pub extern "C" fn part_read(_: u32, cookie: *mut c_void) -> i64 {
    // SAFETY: the place that `count` gave.
    of(unsafe { *cookie.cast::<u64>() }).map_or(1, |h2| part(&mut h2.read.parts))
}

pub extern "C" fn part_wrote(_: u32, cookie: *mut c_void) -> i64 {
    // SAFETY: as above.
    let Some(h2) = of(unsafe { *cookie.cast::<u64>() }) else { return 1 };
    let end = part(&mut h2.wrote.parts);
    if h2.wrote.parts.told != 0 {
        grpc::look(h2);
    }
    end
}

pub extern "C" fn part_answered(_: u32, cookie: *mut c_void) -> i64 {
    // SAFETY: as above.
    of(unsafe { *cookie.cast::<u64>() }).map_or(1, |h2| part(&mut h2.wrote.parts))
}

/// A byte of a number, or the content of a string.
#[inline(always)]
fn part(parts: &mut Parts) -> i64 {
    parts.told = 0;
    if parts.left == 0 {
        return 1;
    }
    if parts.skip > 0 {
        let step = parts.skip.min(parts.left);
        parts.at += u64::from(step);
        parts.left -= step;
        parts.skip -= step;
        return 0;
    }
    let Some(byte) = kernel::read_user::<u8>(parts.at) else {
        parts.broken = 1;
        return 1;
    };
    parts.at += 1;
    parts.left -= 1;
    if parts.shift != 0 {
        // Of seven bits each, the lowest first.
        parts.number += u32::from(byte & 0x7f) << ((parts.shift - 1) & 31);
        parts.shift += 7;
        if byte & 0x80 == 0 {
            parts.shift = 0;
            number(parts);
        } else if parts.shift > 15 {
            parts.broken = 1;
            return 1;
        }
        return 0;
    }
    let mask = if parts.strings > 0 {
        parts.tells = STRING;
        parts.coded = (byte & 0x80) as u32;
        0x7f
    } else if byte & 0x80 != 0 {
        parts.tells = INDEX;
        0x7f
    } else if byte & 0xe0 == 0x20 {
        parts.tells = NOTHING;
        0x1f
    } else {
        parts.tells = FIELD;
        parts.inserts = (byte >> 6) as u32;
        parts.inserted += parts.inserts;
        if byte & 0x40 != 0 { 0x3f } else { 0x0f }
    };
    parts.number = (byte & mask).into();
    if byte & mask == mask {
        parts.shift = 1;
    } else {
        number(parts);
    }
    0
}

/// A number is whole.
#[inline(always)]
fn number(parts: &mut Parts) {
    parts.told = 1;
    match parts.tells {
        STRING => {
            parts.strings -= 1;
            parts.skip = parts.number;
        }
        FIELD => parts.strings = if parts.number == 0 { 2 } else { 1 },
        _ => {}
    }
}

/// Bytes at the beginning of a block that its status lies in: two changes of the table's size may come before it.
const FIRST: u32 = 15;

/// Keeps the first bytes of a block.
#[inline(always)]
pub fn open(direction: &mut Direction, at: u64, n: u32) {
    let have = core::hint::black_box(direction.first_len) & 15;
    let take = core::hint::black_box(FIRST.wrapping_sub(have).min(n)) & 15;
    if take == 0 {
        return;
    }
    // SAFETY: have and take are below 16 each and stay within the 32 bytes.
    let to = unsafe { direction.first.as_mut_ptr().add(have as usize) };
    if kernel::copy_user(to, take, at) == 0 {
        direction.first_len = have + take;
    }
}

/// Whether a block begins with an error that becomes an entry of the table, as far as its first bytes show.
#[inline(always)]
pub fn adds_error(direction: &Direction) -> bool {
    let mut at = 0;
    let mut bytes = first(direction, at);
    for _ in 0..2 {
        if bytes[0] & 0xe0 == 0x20 {
            at += size(bytes, 0x1f);
            bytes = first(direction, at);
        }
    }
    // An entry of the static table that is called ":status" gives the name.
    (0x48..=0x4e).contains(&bytes[0]) && matches!(literal(first(direction, at + 1)), 502..=504)
}

/// The status that a header block begins with.
#[inline(always)]
pub fn status(h2: &mut H2) -> u16 {
    let mut at = 0;
    let mut bytes = first(&h2.wrote, at);
    // The table's size may be set first, and once more.
    for _ in 0..2 {
        if bytes[0] & 0xe0 == 0x20 {
            at += size(bytes, 0x1f);
            bytes = first(&h2.wrote, at);
        }
    }
    if bytes[0] & 0x80 != 0 {
        let index = u32::from(bytes[0] & 0x7f);
        return match size(bytes, 0x7f) {
            1 => indexed(h2, index),
            2 => indexed(h2, index + u32::from(bytes[1])),
            3 => indexed(h2, index + u32::from(bytes[1] & 0x7f) + (u32::from(bytes[2]) << 7)),
            _ => OTHER,
        };
    }
    let inserts = bytes[0] & 0x40 != 0;
    let name = bytes[0] & if inserts { 0x3f } else { 0x0f };
    // The entries of the static table that are called ":status".
    if !(8..=14).contains(&name) {
        return OTHER;
    }
    let status = literal(first(&h2.wrote, at + 1));
    if inserts && matches!(status, 502..=504) {
        remember(h2, 1, status);
    }
    status
}

/// The block's `nth` new entry of the table is this status.
#[inline(always)]
pub fn remember(h2: &mut H2, nth: u32, status: u16) {
    if h2.wrote.inserted != UNCOUNTED {
        let place = (h2.next & (STATUSES as u32 - 1)) as usize;
        h2.statuses[place] = KnownStatus { entry: h2.wrote.inserted + nth, status: status.into() };
        h2.next = h2.next.wrapping_add(1);
    }
}

/// The status that is this entry of the table, 0 if it is none that is remembered. `added` is how many the block had
/// added before it referred to it.
#[inline(always)]
pub fn remembered(h2: &H2, index: u32, added: u32) -> u16 {
    if h2.wrote.inserted == UNCOUNTED {
        return 0;
    }
    // Entries are numbered from 1 in the order in which they were added.
    let entry = (h2.wrote.inserted + added).wrapping_sub(index.wrapping_sub(STATIC + 1));
    for known in &h2.statuses {
        if known.entry == entry && known.status != 0 {
            return known.status as u16;
        }
    }
    0
}

/// Four of the first bytes; zeros where there are no more.
#[inline(always)]
fn first(direction: &Direction, at: u32) -> [u8; 4] {
    [0, 1, 2, 3].map(|n| {
        let at = core::hint::black_box(at + n) & 31;
        if at < direction.first_len { direction.first[at as usize] } else { 0 }
    })
}

/// Bytes of a number with this many bits in its first one.
#[inline(always)]
fn size(bytes: [u8; 4], mask: u8) -> u32 {
    if bytes[0] & mask != mask {
        1
    } else if bytes[1] & 0x80 == 0 {
        2
    } else if bytes[2] & 0x80 == 0 {
        3
    } else {
        4
    }
}

/// Three digits, as they are or in the code of RFC 7541 where that is shorter.
#[inline(always)]
fn literal(bytes: [u8; 4]) -> u16 {
    match bytes {
        [0x03, b'5', b'0', last @ b'0'..=b'4'] => 500 + u16::from(last - b'0'),
        [0x03, b'1', _, _] => INTERIM,
        [0x82, 0x6c, 0x02, _] => 502,
        [0x83, 0x6c, 0x0c, 0xff] => 503,
        [0x83, 0x6c, 0x0d, 0x7f] => 504,
        // "100" and "103".
        [0x82, 0x08, _, _] => INTERIM,
        _ => OTHER,
    }
}

/// Entries of the static table; what follows counts from the newest.
pub const STATIC: u32 = 61;

#[inline(always)]
fn indexed(h2: &H2, index: u32) -> u16 {
    if index <= STATIC {
        return if index == 14 { 500 } else { OTHER };
    }
    if h2.wrote.inserted == UNCOUNTED {
        // It may be any.
        emit::lost(0);
        return OTHER;
    }
    match remembered(h2, index, 0) {
        0 => OTHER,
        status => status,
    }
}
