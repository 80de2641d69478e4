//! The status of gRPC, which lies in the headers of an answer that has nothing else, or in its trailers. A proxy that
//! speaks for an upstream that failed answers 200 with UNAVAILABLE.

use super::blocks::{FIELD, INDEX, STATIC, STRING, remember, remembered};
use crate::kernel;
use crate::maps::H2;

pub const UNAVAILABLE: u16 = trace502_ebpf::GRPC_UNAVAILABLE;
/// Any other, of which the name is of use: a later field may refer to it.
const ELSE: u16 = 15;

/// "grpc-status" in the code of RFC 7541, and the beginning of it as it is.
const CODED: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];
const PLAIN: [u8; 8] = *b"grpc-sta";
const PLAIN_LEN: u32 = 11;

/// The walk over a header block came to a number that is whole.
#[inline(always)]
pub fn look(h2: &mut H2) {
    let parts = &h2.wrote.parts;
    let (number, added) = (parts.number, parts.inserted);
    match parts.tells {
        INDEX if number > STATIC && remembered(h2, number, added) == UNAVAILABLE => {
            h2.wrote.parts.grpc = UNAVAILABLE.into();
        }
        FIELD if number > STATIC => {
            let known = remembered(h2, number, added.wrapping_sub(parts.inserts));
            h2.wrote.parts.named = matches!(known, UNAVAILABLE | ELSE) as u32;
        }
        FIELD => h2.wrote.parts.named = 0,
        STRING if parts.strings == 1 => h2.wrote.parts.named = is_name(h2) as u32,
        STRING if parts.named != 0 => {
            let status = if is_unavailable(h2) { UNAVAILABLE } else { ELSE };
            h2.wrote.parts.named = 0;
            h2.wrote.parts.grpc = status.into();
            if h2.wrote.parts.inserts != 0 {
                remember(h2, added, status);
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn is_name(h2: &H2) -> bool {
    let parts = &h2.wrote.parts;
    // What is cut is another's name as far as can be told.
    let whole = parts.skip <= parts.left;
    match (parts.coded, parts.skip) {
        (0, PLAIN_LEN) => whole && kernel::read_user::<[u8; 8]>(parts.at) == Some(PLAIN),
        (0, _) => false,
        (_, 8) => whole && kernel::read_user::<[u8; 8]>(parts.at) == Some(CODED),
        _ => false,
    }
}

#[inline(always)]
fn is_unavailable(h2: &H2) -> bool {
    let parts = &h2.wrote.parts;
    let value = if parts.coded == 0 { *b"14" } else { [0x0b, 0x5f] };
    parts.skip == 2 && parts.left >= 2 && kernel::read_user::<[u8; 2]>(parts.at) == Some(value)
}
