//! What Go programs call in themselves: they bring a TLS library of their own, and make system calls without the C
//! library. Hooked behind each function's check of its stack, and at the instructions that return.
//!
//! A goroutine may leave its thread within a call and go on in another: the calls of Go are kept by goroutine.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use trace502_ebpf::{ALERT_RECEIVED, ALERT_SENT, Conn, GO_READ, GO_TURN, GO_WRITES, ROLE_H2, ROLE_OPAQUE, TlsCall};

use crate::maps::{GO_CALLS, GO_ON, GO_TURNS, GoCall, GoKey};
use crate::probes::{connect, handshake, tls};
use crate::{emit, h2, kernel, secured};

/// Which function a goroutine is in.
const CONNECT: u32 = 0;
const READ: u32 = 1;
const HANDSHAKE: u32 = 2;

#[inline(always)]
fn key(ctx: *mut c_void, function: u32) -> GoKey {
    GoKey { goroutine: kernel::goroutine(ctx), tgid: emit::current().0, function }
}

#[inline(always)]
fn begins(ctx: *mut c_void, function: u32) -> i32 {
    let [of, buffer, _] = kernel::go_registers(ctx);
    let key = key(ctx, function);
    if GO_CALLS.insert(&key, &GoCall { of, buffer }, BPF_ANY.into()).is_err() {
        emit::lost(0);
        if function == READ
            && let Some(conn) = secured::of(key.tgid, of)
        {
            // What it reads will not be seen, and what is written then would be taken for the answer to something else.
            if conn.role == ROLE_H2 {
                h2::forget(conn.cookie);
            }
            conn.role = ROLE_OPAQUE;
        }
    }
    0
}

/// The call that this goroutine comes back from.
#[inline(always)]
fn ends(ctx: *mut c_void, function: u32) -> Option<GoCall> {
    let key = key(ctx, function);
    // SAFETY: plain numbers; only this goroutine changes them.
    let call = unsafe { GO_CALLS.get(&key).copied() };
    let _ = GO_CALLS.remove(&key);
    call
}

// func connect(s int, addr unsafe.Pointer, addrlen _Socklen) (err error)
#[uprobe]
pub fn go_dials(ctx: ProbeContext) -> i32 {
    begins(ctx.as_ptr(), CONNECT)
}

/// The return of connect(): an error is the address of a table of methods and that of a number.
#[uprobe]
pub fn go_dialled(ctx: ProbeContext) -> i32 {
    let call = ends(ctx.as_ptr(), CONNECT);
    let [methods, number, _] = kernel::go_registers(ctx.as_ptr());
    if let Some(call) = call
        && methods != 0
        && let Some(errno @ 1..4096) = kernel::read_user::<u64>(number)
    {
        return connect::failed(call.buffer, true, errno as i32);
    }
    0
}

// func (c *Conn) Read(b []byte) (int, error)
#[uprobe]
pub fn go_reads(ctx: ProbeContext) -> i32 {
    begins(ctx.as_ptr(), READ)
}

/// The return of Read().
#[uprobe]
pub fn go_read(ctx: ProbeContext) -> i32 {
    // SAFETY: a program of the same kind, with the same context.
    unsafe { GO_ON.tail_call(&ctx, GO_READ) };
    0
}

// func (c *Conn) Write(b []byte) (int, error)
// It returns when all is written, and is not called again with what was not: its beginning tells enough.
#[uprobe]
pub fn go_writes(ctx: ProbeContext) -> i32 {
    // SAFETY: as above.
    unsafe { GO_ON.tail_call(&ctx, GO_WRITES) };
    0
}

// func (c *Conn) serverHandshake(ctx context.Context) error
// func (c *Conn) clientHandshake(ctx context.Context) (err error)
#[uprobe]
pub fn go_shakes(ctx: ProbeContext) -> i32 {
    begins(ctx.as_ptr(), HANDSHAKE)
}

/// The return of serverHandshake() and clientHandshake().
#[uprobe]
pub fn go_shook(ctx: ProbeContext) -> i32 {
    let Some(call) = ends(ctx.as_ptr(), HANDSHAKE) else { return 0 };
    let tgid = emit::current().0;
    match kernel::go_registers(ctx.as_ptr()) {
        [0, _, _] => handshake::done(tgid, call.of),
        [_, error, _] => refused(error, tgid, call.of),
    }
    0
}

// func (c *Conn) sendAlert(err alert) error
#[uprobe]
pub fn go_alerts(ctx: ProbeContext) -> i32 {
    let [of, alert, _] = kernel::go_registers(ctx.as_ptr());
    handshake::reason(emit::current().0, of, ALERT_SENT + (alert as u8 as u32))
}

// func (c *Conn) closeNotify() error
#[uprobe]
pub fn go_parts(ctx: ProbeContext) -> i32 {
    let [of, _, _] = kernel::go_registers(ctx.as_ptr());
    if let Some(conn) = secured::of(emit::current().0, of) {
        secured::parts(conn);
    }
    0
}

/// The error of a Read() that read nothing.
#[inline(always)]
pub fn unread(ctx: *mut c_void, tgid: u32, conn: &mut Conn, call: &TlsCall) {
    let [_, methods, error] = kernel::go_registers(ctx);
    if methods == 0 {
        return;
    }
    // There will be no more: a value whose text is "EOF".
    if kernel::read_user::<[u64; 2]>(error)
        .is_some_and(|[text, len]| len == 3 && kernel::read_user::<[u8; 3]>(text) == Some(*b"EOF"))
    {
        secured::ended(conn);
        return;
    }
    refused(error, tgid, call.ssl);
}

/// The words of a `net.OpError`: its operation, network, two addresses, and the error behind it.
const OPERATION: usize = 10;

/// Whether the error is an alert of the other side: `&permanentError{&net.OpError{Op: "remote error", Err: alert(...)}}`.
#[inline(always)]
fn refused(error: u64, tgid: u32, of: u64) {
    let Some([_, inner]) = kernel::read_user::<[u64; 2]>(error) else { return };
    let Some(words) = kernel::read_user::<[u64; OPERATION]>(inner) else { return };
    if words[1] == 12
        && kernel::read_user::<[u8; 12]>(words[0]) == Some(*b"remote error")
        && let Some(alert) = kernel::read_user::<u8>(words[9])
    {
        handshake::reason(tgid, of, ALERT_RECEIVED + u32::from(alert));
    }
}

/// What Read() returns from, and how many bytes it read.
#[inline(always)]
pub fn read(ctx: *mut c_void) -> Option<(TlsCall, u64)> {
    let Some(call) = ends(ctx, READ) else {
        // Begun before it was watched, or when there was no room; or told to another hook at the same place.
        if counts(ctx) {
            emit::lost(0);
        }
        return None;
    };
    let [n, _, _] = kernel::go_registers(ctx);
    let n = if n as i64 > 0 { n } else { 0 };
    Some((TlsCall { ssl: call.of, buffer: call.buffer, len: 0, moved: 0 }, n))
}

/// What Write() was called with. Where two hooks stand at its beginning, one of them counts.
#[inline(always)]
pub fn writes(ctx: *mut c_void) -> Option<(TlsCall, u64)> {
    let [ssl, buffer, len] = kernel::go_registers(ctx);
    (ssl != 0 && counts(ctx)).then_some((TlsCall { ssl, buffer, len, moved: 0 }, len))
}

/// Whether this hook is the one that counts, of two that stand at the same place.
#[inline(always)]
fn counts(ctx: *mut c_void) -> bool {
    let turn = (tls::answers(ctx) >> GO_TURN) as u32;
    // SAFETY: a plain number.
    unsafe { GO_TURNS.get(&emit::current().0) }.is_none_or(|now| *now == turn)
}

/// The TLS connection that the goroutine which makes the running system call is reading from, 0 for none.
#[inline(always)]
pub fn reading(tgid: u32) -> u64 {
    let goroutine = kernel::running_goroutine();
    for function in [HANDSHAKE, READ] {
        // SAFETY: plain numbers; only this goroutine changes them, and it is in a system call.
        if let Some(call) = unsafe { GO_CALLS.get(&GoKey { goroutine, tgid, function }) } {
            return call.of;
        }
    }
    0
}
