//! What the kernel counts of a program, and the loader's library does not hand out.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::ProgramFd;

const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `struct bpf_prog_info` up to `recursion_misses` (5.12). Older kernels write less of it; the rest stays zero.
#[repr(C)]
struct Info {
    before: [u64; 26],
    recursion_misses: u64,
}

/// The arguments of that command: `union bpf_attr` as far as it is used.
#[repr(C)]
struct Ask {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often a program was not run because it ran already on that CPU. Zero where the kernel does not say.
pub fn skipped(program: &ProgramFd) -> u64 {
    let mut info = Info { before: [0; 26], recursion_misses: 0 };
    let fd = program.as_fd().as_raw_fd() as u32;
    let ask = Ask { fd, len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: a descriptor that is open, and room of the size that is named. Nothing in it asks for more to be written.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const ask, size_of::<Ask>() as libc::c_uint) };
    if done == 0 { info.recursion_misses } else { 0 }
}
