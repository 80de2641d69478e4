//! FastCGI of upstreams: the status of an answer whose application wrote to its error stream first.
//!
//! What it wrote there may be longer than the head that is kept, and the status comes behind it.

use trace502_ebpf::*;

use crate::conn;
use crate::head;
use crate::kernel::{self, Sock, Way};

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

/// The status behind records of the error stream in what was just received; 0 if there is nothing else yet.
#[inline(never)]
pub fn status_behind_errors(sk: Sock, n: u64) -> i32 {
    let Some((mut at, len)) = head::buffer(sk, Way::In, n) else { return conn::NO_HTTP.into() };
    let mut left = len.min(n);
    for _ in 0..RECORDS {
        if left < RECORD_HEAD {
            return 0;
        }
        let Some(record) = kernel::read_user::<[u8; RECORD_HEAD as usize]>(at) else { return conn::NO_HTTP.into() };
        if record[0] != VERSION {
            return conn::NO_HTTP.into();
        }
        if record[1] == STDOUT {
            return match kernel::read_user::<[u8; STATUS]>(at + RECORD_HEAD) {
                Some(line) if line[0] == b'S' && line[6] == b':' => conn::digits(line[8], line[9], line[10]).into(),
                _ => conn::NO_HTTP.into(),
            };
        }
        if record[1] != STDERR {
            return conn::NO_HTTP.into();
        }
        let whole = RECORD_HEAD + u64::from(u16::from_be_bytes([record[4], record[5]])) + u64::from(record[6]);
        at += whole;
        left = left.saturating_sub(whole);
    }
    conn::NO_HTTP.into()
}
