//! What Go programs call in themselves: they bring a TLS library of their own, and make system calls without the C
//! library. Hooked behind each function's check of its stack, and at the instructions that return.
//!
//! A goroutine may leave its thread within a call and go on in another: the calls of Go are kept by goroutine.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;

use crate::maps::{GO_CALLS, GoCall, GoKey};
use crate::probes::connect;
use crate::{emit, kernel};

/// Which function a goroutine is in.
const CONNECT: u32 = 0;

#[inline(always)]
fn key(ctx: &ProbeContext, function: u32) -> GoKey {
    GoKey { goroutine: kernel::goroutine(ctx.as_ptr()), tgid: emit::current().0, function }
}

#[inline(always)]
fn begins(ctx: &ProbeContext, function: u32) -> i32 {
    let [of, buffer, _] = kernel::go_registers(ctx.as_ptr());
    let _ = GO_CALLS.insert(&key(ctx, function), &GoCall { of, buffer }, BPF_ANY.into());
    0
}

/// The call that this goroutine comes back from.
#[inline(always)]
fn ends(ctx: &ProbeContext, function: u32) -> Option<GoCall> {
    let key = key(ctx, function);
    // SAFETY: plain numbers; only this goroutine changes them.
    let call = unsafe { GO_CALLS.get(&key).copied() };
    let _ = GO_CALLS.remove(&key);
    call
}

// func connect(s int, addr unsafe.Pointer, addrlen _Socklen) (err error)
#[uprobe]
pub fn go_dials(ctx: ProbeContext) -> i32 {
    begins(&ctx, CONNECT)
}

/// The return of connect(): an error is the address of a table of methods and that of a number.
#[uprobe]
pub fn go_dialled(ctx: ProbeContext) -> i32 {
    let call = ends(&ctx, CONNECT);
    let [methods, number, _] = kernel::go_registers(ctx.as_ptr());
    if let Some(call) = call
        && methods != 0
        && let Some(errno @ 1..4096) = kernel::read_user::<u64>(number)
    {
        return connect::failed(call.buffer, true, errno as i32);
    }
    0
}
