//! What the running system call, or the function that a uprobe stands at, was called with.

use super::*;

/// Which way a socket's payload goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

/// Where the running system call keeps its payload.
pub enum Payload {
    Buffer(u64),
    /// Address and count of an array of iovecs.
    Vectors(u64, u64),
    /// A call without a buffer that we could read: sendfile, splice, io_uring.
    Blind,
}

#[cfg(bpf_target_arch = "aarch64")]
mod syscall {
    //! `struct pt_regs` and numbers of aarch64.
    pub const CONNECT: u64 = 203;
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const RECVMMSG: u64 = 243;
    pub const SENDMMSG: u64 = 269;
    /// `syscallno` follows regs[31], sp, pc, pstate and orig_x0, which keeps the first argument.
    pub const NUMBER: usize = 280;
    pub const ARG0: usize = 272;
    pub const ARG1: usize = 8;
    pub const ARG2: usize = 16;
    pub const ARG4: usize = 32;
    pub const RETURN: usize = 0;
    /// x0 to x2: arguments and results of a function of Go.
    pub const GO: [usize; 3] = [0, 8, 16];
    /// x28.
    pub const GOROUTINE: usize = 224;
    /// x0 to x4: the first arguments of a function.
    pub const CALL: [usize; 5] = [0, 8, 16, 24, 32];
}

#[cfg(not(bpf_target_arch = "aarch64"))]
mod syscall {
    //! `struct pt_regs` and numbers of x86_64.
    pub const CONNECT: u64 = 42;
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
    /// orig_ax, rdi, rsi, rdx and r8.
    pub const NUMBER: usize = 120;
    pub const ARG0: usize = 112;
    pub const ARG1: usize = 104;
    pub const ARG2: usize = 96;
    pub const ARG4: usize = 72;
    pub const RETURN: usize = 80;
    /// rax, rbx and rcx: arguments and results of a function of Go.
    pub const GO: [usize; 3] = [80, 40, 88];
    /// r14.
    pub const GOROUTINE: usize = 8;
    /// rdi, rsi, rdx, rcx and r8: the first arguments of a function.
    pub const CALL: [usize; 5] = [112, 104, 96, 88, 72];
}

/// The buffer of the system call that the current task is in, where that is a call of the socket whose address is
/// asked for if it may be another's.
#[inline(always)]
pub fn payload(way: Way, sk: impl FnOnce() -> u64) -> Payload {
    if uses_io_uring() && is_call_of(sk(), (way == Way::Out) as u32) == 0 {
        return Payload::Blind;
    }
    // SAFETY: both helpers return pointers of kernel types that the verifier knows; the offsets are ABI.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr;
        let number: u64 = direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff;
        let arg1: u64 = direct(regs, syscall::ARG1);
        match number {
            syscall::READ | syscall::WRITE | syscall::SENDTO | syscall::RECVFROM => Payload::Buffer(arg1),
            syscall::READV | syscall::WRITEV => Payload::Vectors(arg1, direct(regs, syscall::ARG2)),
            // struct msghdr: name, namelen, iov at 16, iovlen at 24. The first message of the multi-message calls.
            syscall::SENDMSG | syscall::RECVMSG | syscall::SENDMMSG | syscall::RECVMMSG => {
                match read_user::<[u64; 2]>(arg1.wrapping_add(16)) {
                    Some([vectors, count]) => Payload::Vectors(vectors, count),
                    None => Payload::Blind,
                }
            }
            _ => Payload::Blind,
        }
    }
}

/// Whether what the current task sends and receives may be asked for in io_uring: its completions run inside any system
/// call of the thread, or in a worker whose registers are nobody's.
///
/// Since 6.2 the verifier searches all types of the kernel four times for each way to a pointer that is loaded from a
/// task: to be asked in few places. A function of its own would cost each call more than what it asks.
#[inline(always)]
fn uses_io_uring() -> bool {
    const PF_IO_WORKER: u32 = 0x10;
    let (ring, flags) = (offset!(task_io_uring), offset!(task_flags));
    // SAFETY: the current task, whose type the verifier knows; offsets that are missing are not loaded.
    unsafe {
        let task = bpf_get_current_task_btf() as Ptr;
        ring != MISSING && direct::<u64>(task, ring) != 0
            || flags != MISSING && direct::<u32>(task, flags) & PF_IO_WORKER != 0
    }
}

/// Whether the running system call is one that moves payload of the socket at this address in this direction, which is
/// out unless `out` is 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn is_call_of(sk: u64, out: u32) -> i32 {
    // SAFETY: as in `payload`.
    let (number, descriptor) = unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr;
        (direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff, direct::<u64>(regs, syscall::ARG0))
    };
    let right = match out {
        0 => {
            matches!(number, syscall::READ | syscall::READV | syscall::RECVFROM | syscall::RECVMSG | syscall::RECVMMSG)
        }
        _ => {
            matches!(number, syscall::WRITE | syscall::WRITEV | syscall::SENDTO | syscall::SENDMSG | syscall::SENDMMSG)
        }
    };
    i32::from(right && named(descriptor) == sk)
}

/// Whether the running system call connects this socket: what happens to it now happens in its owner's context.
#[inline(never)]
pub fn connects(sk: Sock) -> bool {
    // SAFETY: as in `payload`.
    let (number, descriptor) = unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr;
        (direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff, direct(regs, syscall::ARG0))
    };
    number == syscall::CONNECT && named(descriptor) == sk.0 as u64
}

/// Kernel address of the socket that this descriptor of the current task is, 0 where it is none.
#[inline(always)]
fn named(descriptor: u64) -> u64 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as Ptr;
    // Each step is null or an address; what cannot be read is null, too.
    let step = |at: u64, offset: usize| -> u64 {
        if at == 0 || offset == MISSING { 0 } else { read_or_zero(at as Ptr, offset) }
    };
    let table = step(step(task as u64, offset!(task_files)), offset!(files_fdt));
    let slots = step(table, offset!(fdt_fd));
    let file = step(slots, (descriptor as u32 as usize) * 8);
    let socket = step(file, offset!(file_private));
    step(socket, offset!(socket_sk))
}

/// Address that the running sendto() or sendmsg() names, and its port in host byte order.
#[inline(always)]
pub fn destination(sk: Sock) -> Option<([u8; 16], u16)> {
    // SAFETY: as in `payload`.
    let (number, arg1, arg4) = unsafe {
        let task = bpf_get_current_task_btf();
        let regs = bpf_task_pt_regs(task) as Ptr;
        if uses_io_uring() && is_call_of(sk.address(), 1) == 0 {
            return None;
        }
        (direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff, direct(regs, syscall::ARG1), direct(regs, syscall::ARG4))
    };
    let at: u64 = match number {
        syscall::SENDTO => arg4,
        // The first member of struct msghdr.
        syscall::SENDMSG | syscall::SENDMMSG => read_user(arg1)?,
        _ => return None,
    };
    if at == 0 {
        return None;
    }
    let [family, port, v4_low, v4_high] = read_user::<[u16; 4]>(at)?;
    let addr = match family {
        AF_INET => mapped(v4_low as u32 | (v4_high as u32) << 16),
        AF_INET6 => read_user(at.wrapping_add(8))?,
        _ => return None,
    };
    Some((addr, u16::from_be(port)))
}

/// Second argument and result of a system call, read from a uprobe's registers behind its instruction.
#[inline(always)]
pub fn call_registers(regs: *const c_void) -> (u64, i64) {
    // SAFETY: a uprobe's context is struct pt_regs; the verifier checks the offsets.
    unsafe { (direct(regs.cast(), syscall::ARG1), direct(regs.cast(), syscall::RETURN)) }
}

/// The first arguments of the function that a uprobe stands at.
#[inline(always)]
pub fn call_arguments(regs: *const c_void) -> [u64; 5] {
    // SAFETY: a uprobe's context is struct pt_regs; the verifier checks the offsets.
    syscall::CALL.map(|offset| unsafe { direct(regs.cast(), offset) })
}

/// What the function returned that a return probe stands behind.
#[inline(always)]
pub fn call_result(regs: *const c_void) -> i32 {
    // SAFETY: as above.
    let wide: u64 = unsafe { direct(regs.cast(), syscall::RETURN) };
    wide as i32
}

/// What a function of Go was called with, or what it returns (Go 1.17, on aarch64 1.18).
#[inline(always)]
pub fn go_registers(regs: *const c_void) -> [u64; 3] {
    // SAFETY: as above.
    syscall::GO.map(|offset| unsafe { direct(regs.cast(), offset) })
}

/// The goroutine that a function of Go runs in.
#[inline(always)]
pub fn goroutine(regs: *const c_void) -> u64 {
    // SAFETY: as above.
    unsafe { direct(regs.cast(), syscall::GOROUTINE) }
}

/// The goroutine that makes the running system call: on its way into the kernel its register stays as it was.
#[inline(always)]
pub fn running_goroutine() -> u64 {
    // SAFETY: as in `payload`.
    unsafe { direct(bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr, syscall::GOROUTINE) }
}

/// One `struct iovec`.
#[inline(always)]
pub fn vector(vectors: u64, index: u64) -> Option<(u64, u64)> {
    read_user::<[u64; 2]>(vectors.wrapping_add(index * 16)).map(|[base, len]| (base, len))
}
