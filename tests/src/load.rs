//! Many requests at once: threads in the proxies' namespace that take numbers until there are none left.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::netns;
use crate::world::World;

/// Calls `work` with each number below `count`, from this many threads, each with a state of its own.
pub fn run<S>(
    world: &World,
    threads: usize,
    count: usize,
    work: impl Fn(&mut S, usize) -> Result<()> + Sync,
) -> Result<()>
where
    S: Default,
{
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    netns::enter(&world.proxies.handle())?;
                    let mut state = S::default();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return Ok(());
                        }
                        work(&mut state, n)?;
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a client's thread panicked")?)
    })
}

/// A number that looks random and is the same in every run.
pub fn scatter(n: usize) -> usize {
    let mut x = (n as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as usize
}
