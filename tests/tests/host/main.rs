//! Real programs on this host: proxies written in Go, proxies that have no name, and an agent with few privileges.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

mod go;
mod privileges;
mod unnamed;

use std::sync::{Mutex, MutexGuard};

use trace502_tests::guard;
use trace502_tests::world::lock;

/// One world at a time; `None` where there can be none.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: probes need root");
        return None;
    }
    guard::sweep();
    Some(lock(&ALONE))
}
