//! Every read of a kernel structure: the only room that adds an offset to a kernel pointer.
//!
//! Two ways of reading. [`direct`] is a plain load through a pointer that the verifier knows (a tracepoint's own
//! argument, the current task): as cheap as it gets. [`read`] asks a helper, works on any address, and may fail.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_task_pt_regs,
};
use trace502_ebpf::{PATH, Tcp, Tuple};

use crate::maps::constant;

/// A pointer into the kernel.
pub type Ptr = *const u8;

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT1: u8 = 4;
pub const TCP_FIN_WAIT2: u8 = 5;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_CLOSE_WAIT: u8 = 8;
pub const TCP_LAST_ACK: u8 = 9;
pub const TCP_LISTEN: u8 = 10;

/// `sk_shutdown`: nothing more comes, nothing more goes.
pub const SHUTDOWN_RECEIVE: u8 = 1;
pub const SHUTDOWN_SEND: u8 = 2;
pub const SHUTDOWN_BOTH: u8 = 3;

/// `offset_of` a struct member in the running kernel.
macro_rules! offset {
    ($field:ident) => {
        constant!(OFFSETS.$field) as usize
    };
}

/// What an offset is where this kernel lacks the member.
const MISSING: usize = u32::MAX as usize;

/// A load through a pointer whose type the verifier knows.
///
/// # Safety
/// `base` must be such a pointer, and `offset` that of a member of type `T`.
#[inline(always)]
unsafe fn direct<T: Copy>(base: Ptr, offset: usize) -> T {
    // SAFETY: the caller's promise; the verifier refuses the program otherwise.
    unsafe { core::ptr::read_volatile(base.add(offset).cast::<T>()) }
}

/// [`direct`] of a member. Only for what a hook was given.
macro_rules! load {
    ($base:expr, $field:ident) => {{
        let (base, offset) = ($base, offset!($field));
        // SAFETY: `Sock` and its like are made only from a hook's own arguments.
        unsafe { direct(base, offset) }
    }};
}

mod call;
mod packet;
mod sock;
mod task;

pub use call::*;
pub use packet::*;
pub use sock::*;
pub use task::*;

/// A read from any kernel address.
#[inline(always)]
pub fn read<T: Copy>(base: Ptr, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes or fails; T is plain data.
    unsafe {
        let from = base.wrapping_add(offset).cast::<c_void>();
        match bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) {
            0 => Some(value.assume_init()),
            _ => None,
        }
    }
}

/// The same where zero will do for what cannot be read. No branch, which every program and the verifier are spared
/// many times over.
#[inline(always)]
fn read_or_zero<T: Copy>(base: Ptr, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes, zeros if it fails; every T here is made of integers.
    unsafe {
        let from = base.wrapping_add(offset).cast::<c_void>();
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Where members are read from.
trait Source: Copy {
    fn get<T: Copy>(self, offset: usize) -> T;
}

/// Any address in the kernel, asked through a helper; zero for what cannot be read, or what this kernel lacks.
#[derive(Clone, Copy)]
struct At(Ptr);

impl Source for At {
    #[inline(always)]
    fn get<T: Copy>(self, offset: usize) -> T {
        if offset == MISSING {
            // SAFETY: every T here is made of integers.
            return unsafe { core::mem::zeroed() };
        }
        read_or_zero(self.0, offset)
    }
}

/// What a hook was given, or a helper returned: plain loads. Zero for members that this kernel lacks.
#[derive(Clone, Copy)]
struct Own(Ptr);

impl Source for Own {
    #[inline(always)]
    fn get<T: Copy>(self, offset: usize) -> T {
        if offset == MISSING {
            // SAFETY: every T here is made of integers.
            return unsafe { core::mem::zeroed() };
        }
        // SAFETY: as in `load`.
        unsafe { direct(self.0, offset) }
    }
}

/// Copies between kernel memory (map values, records) without a loop.
#[inline(always)]
pub fn copy(to: *mut u8, from: Ptr, len: usize) {
    // SAFETY: `to` is checked by the verifier to have `len` bytes; `from` may be anything.
    unsafe { bpf_probe_read_kernel(to.cast(), len as u32, from.cast()) };
}

/// Where zero says "unknown": all of a table's row. By words, or it becomes a loop over bytes in a function of its own,
/// which the verifier walks through each time.
#[inline(always)]
pub fn clear<T: Copy>(to: &mut T) {
    const { assert!(align_of::<T>() >= 4 && size_of::<T>().is_multiple_of(4)) };
    let words = (&raw mut *to).cast::<u32>();
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: within it, and aligned; every T here is made of integers.
        unsafe { core::ptr::write_volatile(words.add(word), 0) };
    }
}

/// One row to another, without such a loop.
#[inline(always)]
pub fn assign<T: Copy>(to: &mut T, from: &T) {
    const { assert!(align_of::<T>() >= 4 && size_of::<T>().is_multiple_of(4)) };
    let (to, from) = ((&raw mut *to).cast::<u32>(), (&raw const *from).cast::<u32>());
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(to.add(word), core::ptr::read_volatile(from.add(word))) };
    }
}

/// The same, and whether it worked.
#[inline(always)]
pub fn copy_checked(to: *mut u8, len: u32, from: u64) -> i64 {
    // SAFETY: as in `copy`.
    unsafe { bpf_probe_read_kernel(to.cast(), len, from as *const c_void) as i64 }
}

/// Reads user memory into `to`; 0 on success.
#[inline(always)]
pub fn copy_user(to: *mut u8, len: u32, from: u64) -> i64 {
    // SAFETY: `to` is checked by the verifier to have `len` bytes; the helper checks `from`.
    unsafe { bpf_probe_read_user(to.cast(), len, from as *const c_void) as i64 }
}

/// Reads a text that ends with a zero; what is behind it stays as it was. How long it is with its zero, or an error.
#[inline(always)]
pub fn copy_text(to: *mut u8, room: u32, from: u64) -> i64 {
    // SAFETY: as in `copy`.
    unsafe { bpf_probe_read_kernel_str(to.cast(), room, from as *const c_void) as i64 }
}

#[inline(always)]
pub fn read_user<T: Copy>(from: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    match copy_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) {
        // SAFETY: the helper wrote all of it; T is plain data.
        0 => Some(unsafe { value.assume_init() }),
        _ => None,
    }
}

/// Inode number of a network namespace.
#[inline(always)]
fn inode_of(net: u64) -> u32 {
    if net == 0 { 0 } else { read_or_zero(net as Ptr, offset!(net_ns_inum)) }
}
