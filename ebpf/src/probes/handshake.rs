//! What the owner's TLS library makes of a handshake with an upstream: that it came to its end, the library's own error,
//! and what was found about the certificate. Programs of this file run once or a few times for each handshake.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use trace502_ebpf::*;

use crate::maps::THREADS;
use crate::probes::tls::answers;
use crate::{emit, kernel, secured};

/// `ERR_LIB_SSL`, of OpenSSL and of BoringSSL: what one calls so is another part of the other.
const LIBRARY: u64 = 20;
const LIBRARY_OF_BORING: u64 = 16;

// void ERR_vset_error(int lib, int reason, const char *fmt, va_list args) (OpenSSL 3)
// void ERR_put_error(int lib, int func, int reason, const char *file, int line) (OpenSSL 1.1, BoringSSL)
#[uprobe]
pub fn tls_error(ctx: ProbeContext) -> i32 {
    let [library, second, third, _, _] = kernel::call_arguments(ctx.as_ptr());
    let how = answers(ctx.as_ptr());
    let boring = how & TLS_BORING != 0;
    if library as u32 as u64 != if boring { LIBRARY_OF_BORING } else { LIBRARY } {
        return 0;
    }
    let code = (if how & TLS_THIRD != 0 { third } else { second }) as u32;
    // Alerts have the same numbers in both.
    let code = if boring && code < ALERT_RECEIVED { code + BORING } else { code };
    let (tgid, tid) = emit::current();
    match called(tid) {
        0 => 0,
        ssl => reason(tgid, ssl, code & SHOOK_REASONS),
    }
}

// int X509_STORE_CTX_get_error(const X509_STORE_CTX *ctx)
// The library asks this way what its verification came to; what it is told last counts.
#[uretprobe]
pub fn tls_verified(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    let ssl = called(tid);
    let found = kernel::call_result(ctx.as_ptr()) as u32 & SHOOK_VERIFIED;
    note(tgid, ssl, |slot| slot & !SHOOK_VERIFIED | found)
}

// long SSL_get_verify_result(const SSL *ssl)
#[uprobe]
pub fn tls_asked(ctx: ProbeContext) -> i32 {
    let [ssl, ..] = kernel::call_arguments(ctx.as_ptr());
    if let Some(thread) = THREADS.get_ptr_mut(emit::current().1) {
        // SAFETY: a map value; only this thread changes it.
        unsafe { (*thread).verdict = ssl };
    }
    0
}

// The return of SSL_get_verify_result.
#[uretprobe]
pub fn tls_told(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    let found = kernel::call_result(ctx.as_ptr()) as u32 & SHOOK_VERIFIED;
    note(tgid, asked(tid), |slot| slot | found << SHOOK_TOLD)
}

// int X509_check_host(X509 *, const char *name, size_t namelen, unsigned int flags, char **peername)
// By the owner itself: the library tries one name after the other, and tells by the error of its verification.
#[uretprobe]
pub fn tls_named(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    if called(tid) != 0 || kernel::call_result(ctx.as_ptr()) != 0 {
        return 0;
    }
    note(tgid, asked(tid), |slot| slot | SHOOK_NAME)
}

/// The handshake came to its end.
#[inline(always)]
pub fn done(tgid: u32, ssl: u64) {
    note(tgid, ssl, |slot| slot | SHOOK);
}

/// Why it failed; what comes first is the reason of what follows.
#[inline(always)]
pub fn reason(tgid: u32, ssl: u64, code: u32) -> i32 {
    note(tgid, ssl, |slot| if slot >> SHOOK_REASON & SHOOK_REASONS == 0 { slot | code << SHOOK_REASON } else { slot })
}

/// The `SSL` whose call this thread is in, 0 for none.
#[inline(always)]
fn called(tid: u32) -> u64 {
    // SAFETY: a map value; only this thread changes it.
    THREADS.get_ptr(tid).map_or(0, |thread| unsafe { (*thread).call.ssl })
}

/// The `SSL` whose certificate this thread asked about last.
#[inline(always)]
fn asked(tid: u32) -> u64 {
    // SAFETY: as above.
    THREADS.get_ptr(tid).map_or(0, |thread| unsafe { (*thread).verdict })
}

#[inline(always)]
fn note(tgid: u32, ssl: u64, with: impl Fn(u32) -> u32) -> i32 {
    if ssl != 0
        && let Some(conn) = secured::of(tgid, ssl)
        && conn.role == ROLE_UPSTREAM
    {
        conn.slot = with(conn.slot);
    }
    0
}
