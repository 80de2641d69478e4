//! FastCGI of upstreams: the status of an answer whose application wrote to its error stream first.
//!
//! What it wrote there may be longer than the head that is kept, and the status comes behind it.

use trace502_ebpf::*;

use crate::kernel::{self, Way};
use crate::{conn, head, places};

const VERSION: u8 = 1;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const RECORD_HEAD: u64 = 8;
/// "Status: 502"
const STATUS: usize = 11;
/// Records that are passed over in one call.
const RECORDS: u32 = 8;

/// Whether the answer's first record is of the error stream.
#[inline(always)]
pub fn begins_with_errors(conn: &Conn) -> bool {
    conn.reply_len >= RECORD_HEAD as u16 && conn.reply_head[0] == VERSION && conn.reply_head[1] == STDERR
}

/// Whether these may be the first bytes of such an answer: too few to tell.
#[inline(always)]
pub fn may_become(conn: &Conn) -> bool {
    let short = conn.reply_len < RECORD_HEAD as u16 + STATUS as u16 + 1;
    short && conn.reply_head[0] == VERSION && !conn::is_http1(conn)
}

/// Where the next record begins is not known: one's head came in two pieces, or in one that could not be read.
const LOST: u32 = u32::MAX;

/// The status behind records of the error stream, as soon as it was received; 0 as long as it is not known. `slot` of the
/// connection says how far into the answer the next record begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn status_behind_errors(conn: *mut Conn, n: u64) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_mut() }) else { return 0 };
    let cookie = conn.cookie;
    if conn.slot == 0 {
        let head = &conn.reply_head;
        conn.slot = whole(&[head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]]);
    }
    let start = conn.reply_bytes.wrapping_sub(n);
    let Some((at, len)) = head::buffer(Way::In, n, || places::owner(cookie)) else { return lost(conn) };
    let end = start + len.min(n);
    for _ in 0..RECORDS {
        let next = u64::from(conn.slot);
        if conn.slot == LOST || next >= start + n {
            return 0;
        }
        if next < start || next + RECORD_HEAD > end {
            return lost(conn);
        }
        let at = at + (next - start);
        let Some(record) = kernel::read_user::<[u8; RECORD_HEAD as usize]>(at) else { return lost(conn) };
        match (record[0], record[1]) {
            (VERSION, STDERR) => conn.slot += whole(&record),
            (VERSION, STDOUT) if next + RECORD_HEAD + STATUS as u64 > end => return lost(conn),
            (VERSION, STDOUT) => {
                return match kernel::read_user::<[u8; STATUS]>(at + RECORD_HEAD) {
                    Some(line) if line[0] == b'S' && line[6] == b':' => conn::digits(line[8], line[9], line[10]).into(),
                    _ => conn::NO_HTTP.into(),
                };
            }
            _ => return conn::NO_HTTP.into(),
        }
    }
    0
}

/// Bytes of a record with this head.
#[inline(always)]
fn whole(head: &[u8; RECORD_HEAD as usize]) -> u32 {
    RECORD_HEAD as u32 + u32::from(u16::from_be_bytes([head[4], head[5]])) + u32::from(head[6])
}

#[inline(always)]
fn lost(conn: &mut Conn) -> i32 {
    conn.slot = LOST;
    0
}
