//! What a process used, as the kernel accounts for it.

use std::fs;

/// Nanoseconds that the threads of a process ran, user and system. Work that an interrupt does in their name counts
/// as theirs, which for loopback traffic is the network stack.
pub fn cpu(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| ran(&task.path().join("schedstat"))).sum()
}

/// The same of the calling thread, up to this moment: what is in /proc is booked when a thread stops running.
pub fn own_cpu() -> u64 {
    let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spent) };
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}

fn ran(path: &std::path::Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Bytes of memory that a process holds.
pub fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_ran_and_holds_memory() {
        // The kernel books the time of a thread when it stops running: a young thread has to stop once.
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(own_cpu() > 0);
        assert!(cpu(std::process::id()) > 0);
        assert!(resident(std::process::id()) > 100_000);
        assert_eq!((cpu(u32::MAX), resident(u32::MAX)), (0, 0));
    }
}
