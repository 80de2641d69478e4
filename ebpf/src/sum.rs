//! Sums that several CPUs add to at the same time. Rust has no such operation for this machine.

use core::arch::asm;
use core::cell::UnsafeCell;

#[repr(transparent)]
pub struct Sum(UnsafeCell<u64>);

impl Sum {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: one load of eight bytes.
        unsafe { core::ptr::read_volatile(self.0.get()) }
    }

    /// Returns what it was before.
    #[inline(always)]
    pub fn add(&self, n: u64) -> u64 {
        let before;
        // SAFETY: one instruction on eight bytes of a map's value (5.12), which also keeps what is before and behind it apart.
        unsafe {
            asm!("{n} = atomic_fetch_add((u64 *)({to} + 0), {n})", to = in(reg) self.0.get(), n = inout(reg) n => before)
        };
        before
    }

    #[inline(always)]
    pub fn take(&self, n: u64) -> u64 {
        self.add(n.wrapping_neg())
    }
}
