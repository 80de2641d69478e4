//! Frames, followed from one piece of a call to the next, and from one call to the next, by how many bytes are left
//! of them.

use trace502_ebpf::UNCOUNTED;

use crate::kernel::{self, Payload};
use crate::maps::{Direction, Frame};

const FRAME_HEAD: u32 = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const PUSH_PROMISE: u8 = 5;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

pub enum Next {
    /// A frame begins: its head is in `frame`.
    Frame,
    /// Bytes of a header block are next.
    Block,
    /// Something passed that says nothing.
    Passed,
    End,
}

/// Pieces of one call that are looked at: as many as the kernel takes.
const PIECES: u64 = 1024;

impl Direction {
    /// A call carries `n` bytes. Returns whether they can be followed.
    #[inline(always)]
    pub fn aim(&mut self, payload: Payload, n: u64) -> bool {
        match payload {
            Payload::Buffer(at) => (self.at, self.left) = (at, n),
            Payload::Vectors(vectors, count) => {
                (self.vectors, self.piece, self.pieces) = (vectors, 0, count.min(PIECES) as u32);
                (self.left, self.rest) = (0, n);
            }
            // A file's bytes are the content of a frame whose head was seen.
            Payload::Blind if self.block == 0 && n <= self.skip.into() => self.skip -= n as u32,
            Payload::Blind => return false,
        }
        true
    }

    /// The call's bytes were walked over. Returns whether all of them were.
    #[inline(always)]
    pub fn done(&mut self) -> bool {
        let (left, rest) = (core::mem::take(&mut self.left), core::mem::take(&mut self.rest));
        left == 0 && rest == 0
    }
}

#[inline(always)]
pub fn next(direction: &mut Direction) -> Next {
    if direction.left == 0 {
        return piece(direction);
    }
    if direction.block > 0 {
        return Next::Block;
    }
    if direction.skip > 0 {
        let step = direction.left.min(direction.skip.into());
        direction.at += step;
        direction.left -= step;
        direction.skip -= step as u32;
        return Next::Passed;
    }
    let have = core::hint::black_box(direction.have) & 15;
    let take = FRAME_HEAD.wrapping_sub(have).min(direction.left.min(FRAME_HEAD.into()) as u32);
    let take = core::hint::black_box(take) & 15;
    if take > 0 {
        // SAFETY: have and take are below 16 each and stay within the 32 bytes.
        let to = unsafe { direction.head.as_mut_ptr().add(have as usize) };
        if kernel::copy_user(to, take, direction.at) != 0 {
            return Next::End;
        }
    }
    direction.at += u64::from(take);
    direction.left -= u64::from(take);
    direction.have = have + take;
    if direction.have < FRAME_HEAD {
        return Next::Passed;
    }
    direction.have = 0;
    if begin(direction) { Next::Frame } else { Next::Passed }
}

/// Goes on with the next piece of the call's bytes.
#[inline(always)]
fn piece(direction: &mut Direction) -> Next {
    if direction.rest == 0 || direction.piece >= direction.pieces {
        return Next::End;
    }
    let Some((at, len)) = kernel::vector(direction.vectors, direction.piece.into()) else { return Next::End };
    direction.piece += 1;
    direction.at = at;
    direction.left = len.min(direction.rest);
    direction.rest -= direction.left;
    Next::Passed
}

/// The head of a frame is whole. Returns whether it is one of its own, and not what a header block goes on with.
#[inline(always)]
fn begin(direction: &mut Direction) -> bool {
    let head = &direction.head;
    let (kind, flags) = (head[3], head[4]);
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    direction.skip = len;
    if kind == CONTINUATION {
        direction.frame.flags |= flags & END_HEADERS;
        direction.block = len;
        return false;
    }
    direction.frame = Frame { stream, kind, flags, _pad: 0 };
    if matches!(kind, HEADERS | PUSH_PROMISE) && len > 0 {
        let padded = (flags & PADDED != 0) as u32;
        direction.ahead = match kind {
            PUSH_PROMISE => padded + 4,
            _ if flags & PRIORITY != 0 => padded + 5,
            _ => padded,
        };
        direction.block = len.saturating_sub(direction.ahead);
        direction.first_len = 0;
        if direction.open != 0 {
            // One that did not come to its end may have added anything.
            direction.inserted = UNCOUNTED;
        }
        direction.open = 1;
        kernel::clear(&mut direction.parts);
    }
    true
}

/// Where the next bytes of the header block lie that are at hand, and how many; none while something else is before
/// them.
#[inline(always)]
pub fn portion(direction: &mut Direction) -> Option<(u64, u32)> {
    if direction.ahead == 0 {
        return Some((direction.at, direction.left.min(direction.block.into()) as u32));
    }
    if direction.frame.flags & PADDED != 0 {
        direction.frame.flags &= !PADDED;
        let padding: u8 = kernel::read_user(direction.at).unwrap_or(0);
        direction.block = direction.block.saturating_sub(padding.into());
    }
    let step = direction.left.min(direction.ahead.into()) as u32;
    advance(direction, step);
    direction.ahead -= step;
    None
}

/// These bytes of the block were looked at. Returns whether it came to its end with them.
#[inline(always)]
pub fn passed(direction: &mut Direction, n: u32) -> bool {
    advance(direction, n);
    direction.block = direction.block.saturating_sub(n);
    direction.block == 0 && direction.open != 0 && direction.frame.flags & END_HEADERS != 0
}

#[inline(always)]
fn advance(direction: &mut Direction, n: u32) {
    direction.at += u64::from(n);
    direction.left = direction.left.saturating_sub(n.into());
    direction.skip = direction.skip.saturating_sub(n);
}
