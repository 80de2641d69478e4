//! How slow the machine is: in a virtual machine that is emulated, a server that is well needs seconds for what it does
//! in milliseconds elsewhere, and a proxy with the lab's usual patience would give it up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static FACTOR: AtomicU32 = AtomicU32::new(1);

/// Everybody waits this many times as long as usual, from now on.
pub fn set(factor: u32) {
    FACTOR.store(factor.max(1), Ordering::Relaxed);
}

/// Where a process of the lab tells its own how long to wait.
pub const VARIABLE: &str = "TRACE502_LAB_SLOW";

/// As the lab that started this process does.
pub fn inherit() {
    if let Some(factor) = std::env::var(VARIABLE).ok().and_then(|factor| factor.parse().ok()) {
        set(factor);
    }
}

pub fn factor() -> u32 {
    FACTOR.load(Ordering::Relaxed)
}

/// Seconds that a proxy of the lab waits where it usually waits this many.
pub fn seconds(usual: u32) -> u32 {
    usual * factor()
}

pub fn duration(usual: Duration) -> Duration {
    usual * factor()
}
