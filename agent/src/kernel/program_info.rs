//! What the kernel counts of a program, and the loader's library does not hand out.

use std::os::fd::{AsRawFd as _, BorrowedFd};

const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `struct bpf_prog_info` up to `verified_insns` (5.16). Older kernels write less of it; the rest stays zero.
#[repr(C)]
struct Info {
    before: [u64; 26],
    recursion_misses: u64,
    verified: u32,
    _pad: u32,
}

/// The arguments of that command: `union bpf_attr` as far as it is used.
#[repr(C)]
struct Ask {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often a program was not run because it ran already on that CPU. Zero where the kernel does not say.
pub fn skipped(program: BorrowedFd<'_>) -> u64 {
    info(program).recursion_misses
}

/// Instructions that the verifier walked through. Zero where the kernel does not say.
pub fn walked(program: BorrowedFd<'_>) -> u32 {
    info(program).verified
}

fn info(program: BorrowedFd<'_>) -> Info {
    const NOTHING: Info = Info { before: [0; 26], recursion_misses: 0, verified: 0, _pad: 0 };
    let mut info = NOTHING;
    let fd = program.as_raw_fd() as u32;
    let ask = Ask { fd, len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: a descriptor that is open, and room of the size that is named. Nothing in it asks for more to be written.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const ask, size_of::<Ask>() as libc::c_uint) };
    if done == 0 { info } else { NOTHING }
}
