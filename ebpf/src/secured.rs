//! Connections whose owner's TLS library tells their story: kept by cookie, since a program in the owner's code has
//! no socket in its hands, and found by the address of the library's `SSL`.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::*;

use crate::emit;
use crate::kernel::{self, Sock};
use crate::maps::{SECURED, THREADS, TLS_KEYS, TLS_NAMES, TlsKey};
use crate::probes::go;
use crate::upstream::class_of;
use crate::{conn, h2, thread};

/// The story of a connection, by the call that is about it.
#[inline(always)]
pub fn of(tgid: u32, ssl: u64) -> Option<&'static mut Conn> {
    let key = TlsKey { ssl, tgid, _pad: 0 };
    let cookie = TLS_KEYS.get_ptr(&key)?;
    // SAFETY: a plain number, which stays readable until the program ends, even if another removes it meanwhile.
    let conn = SECURED.get_ptr_mut(unsafe { &*cookie })?;
    // SAFETY: a map value of plain numbers; one thread at a time calls the library for a connection. Its end may come
    // from elsewhere: what is written after that is lost with it.
    Some(unsafe { &mut *conn })
}

/// The same by the connection underneath.
#[inline(always)]
pub fn inside(conn: &Conn) -> Option<&'static mut Conn> {
    let cookie = conn.cookie;
    // SAFETY: as above; the connection underneath is at its end.
    SECURED.get_ptr_mut(&cookie).map(|inside| unsafe { &mut *inside })
}

/// The `SSL` whose call the running thread, or goroutine, is in; 0 for none.
#[inline(always)]
fn called(tgid: u32, tid: u32) -> u64 {
    // SAFETY: a map value of this very thread.
    match THREADS.get_ptr_mut(tid).map_or(0, |thread| unsafe { (*thread).call.ssl }) {
        0 => go::reading(tgid),
        ssl => ssl,
    }
}

/// The owner moves bytes of this connection: inside a call of its TLS library it is known from now on. Returns the
/// story inside, which begins as a copy.
#[inline(always)]
fn link(conn: &mut Conn) -> Option<&'static mut Conn> {
    let (tgid, tid) = emit::current();
    let ssl = called(tgid, tid);
    if ssl == 0 {
        return None;
    }
    conn.flags |= CONN_SECURED;
    let key = TlsKey { ssl, tgid, _pad: 0 };
    let cookie = conn.cookie;
    if SECURED.insert(&cookie, &*conn, BPF_ANY.into()).is_err()
        || TLS_NAMES.insert(&cookie, &key, BPF_ANY.into()).is_err()
        || TLS_KEYS.insert(&key, &cookie, BPF_ANY.into()).is_err()
    {
        // The rhythm of its bytes goes on to be looked at, as far as it tells something.
        conn.flags &= !CONN_SECURED;
        emit::lost(if conn.role == ROLE_UPSTREAM { Kind::Attempt } else { Kind::Client } as u32);
        return None;
    }
    let inside = inside(conn)?;
    inside.tgid = tgid;
    Some(inside)
}

/// The owner read from a client that speaks TLS.
#[inline(always)]
pub fn accepted(sk: Sock, conn: &mut Conn) -> i32 {
    if conn.flags & CONN_SECURED == 0 {
        sk.tuple(&mut conn.tuple);
        if let Some(inside) = link(conn) {
            inside.role = ROLE_CLIENT;
        }
    }
    0
}

/// The owner sends to a client, in a call that writes: its answer, if that has asked. The call may come back after the
/// client is gone. What is sent outside of such calls is the library's own, or was told before it was sent (Go).
#[inline(never)]
pub fn answering(conn: &Conn) -> i32 {
    if let Some(inside) = inside(conn)
        && inside.role == ROLE_CLIENT
        && inside.phase == PHASE_ASKED
        && thread::writes(emit::current().1)
    {
        inside.flags |= CONN_ANSWERING;
    }
    0
}

/// The owner moved bytes of an upstream connection, which may speak TLS.
#[inline(always)]
pub fn dialled(conn: &mut Conn) -> i32 {
    if conn.request_head[0] & 0xfe != 0x16 || conn.flags & CONN_SECURED != 0 || !conn::looks_tls(conn) {
        return 0;
    }
    begin(conn)
}

#[inline(never)]
fn begin(conn: &mut Conn) -> i32 {
    if class_of(emit::current().0) & PROC_TLS == 0 {
        return 0;
    }
    let Some(inside) = link(conn) else { return 0 };
    inside.phase = PHASE_OPEN;
    inside.request = 0;
    inside.request_len = 0;
    inside.reply_len = 0;
    inside.status = 0;
    inside.slot = 0;
    inside.errno = 0;
    inside.fin = 0;
    inside.reset = 0;
    inside.reply_bytes = 0;
    0
}

/// What is known of a request, whoever saw it.
const OF_REQUEST: u16 = CONN_REUSED | CONN_CHOICE | CONN_RETRY | CONN_BLIND | CONN_TOLD | CONN_SEALED | CONN_IN_TURN;

/// An upstream said goodbye, before its FIN.
#[inline(always)]
pub fn ended(conn: &mut Conn) {
    if conn.fin == 0 && conn.reset == 0 {
        conn.fin = emit::now();
    }
}

/// The owner says goodbye to an upstream, before it closes. There are no resets inside TLS: their place has when.
#[inline(always)]
pub fn parts(conn: &mut Conn) {
    if conn.role == ROLE_UPSTREAM && conn.fin == 0 && conn.reset == 0 {
        conn.reset = emit::now();
    }
}

/// An upstream connection ends: what was seen inside TLS is its story. Without a request that is its handshake.
#[inline(never)]
pub fn reveal(conn: &mut Conn) -> i32 {
    let Some(inside) = inside(conn) else { return 0 };
    conn.slot = inside.slot;
    if inside.role != ROLE_UPSTREAM {
        // Upgraded.
        conn.role = ROLE_OPAQUE;
        return 0;
    }
    // What comes after its owner's goodbye is an answer to that, however fast.
    let parted = inside.reset;
    if parted != 0
        && inside.fin == 0
        && (conn.fin == 0 || conn.fin > parted)
        && (conn.reset == 0 || conn.reset > parted)
    {
        conn.fin = 0;
        conn.reset = 0;
        conn.flags |= CONN_CLOSED_FIRST;
    }
    if inside.request == 0 {
        return 0;
    }
    conn.phase = inside.phase;
    conn.request = inside.request;
    conn.tgid = inside.tgid;
    conn.tid = inside.tid;
    conn.bound = inside.bound;
    conn.bound_request = inside.bound_request;
    conn.choices = inside.choices;
    conn.status = inside.status;
    conn.class |= inside.class & CLASS_FRAMES;
    conn.flags = conn.flags & !OF_REQUEST | inside.flags & OF_REQUEST | CONN_APPLICATION;
    conn.asked = inside.asked;
    conn.asked_before = inside.asked_before;
    conn.request_bytes = inside.request_bytes;
    conn.reply_bytes = inside.reply_bytes;
    conn.request_len = inside.request_len;
    conn.reply_len = inside.reply_len;
    kernel::copy(conn.request_head.as_mut_ptr(), inside.request_head.as_ptr(), HEAD);
    kernel::copy(conn.reply_head.as_mut_ptr(), inside.reply_head.as_ptr(), HEAD);
    // It said goodbye inside TLS, and its owner was faster than its FIN.
    if inside.fin != 0 && conn.fin == 0 && conn.reset == 0 {
        conn.fin = inside.fin;
        conn.flags &= !CONN_CLOSED_FIRST;
    }
    0
}

/// The library's connection is no longer this one.
#[inline(always)]
pub fn unlink(conn: &Conn) {
    let cookie = conn.cookie;
    let Some(key) = TLS_NAMES.get_ptr(&cookie) else { return };
    // SAFETY: a map value that is written once.
    let key = unsafe { *key };
    // The library may have given the address to a newer connection.
    let same = TLS_KEYS.get_ptr(&key).is_some_and(|known| {
        // SAFETY: a plain number in a map.
        unsafe { *known == cookie }
    });
    if same {
        let _ = TLS_KEYS.remove(&key);
    }
}

/// The connection is at its end.
#[inline(never)]
pub fn forget(conn: &Conn) -> i32 {
    unlink(conn);
    let cookie = conn.cookie;
    if let Some(inside) = inside(conn) {
        if inside.role == ROLE_H2 {
            h2::forget(cookie);
        } else if inside.class & CLASS_FRAMES != 0 && inside.role != ROLE_CLIENT {
            h2::asked::forget(cookie);
        }
    }
    let _ = TLS_NAMES.remove(&cookie);
    let _ = SECURED.remove(&cookie);
    0
}
