//! The agent's own use of CPU, memory and files, from /proc/self.

use std::fs;

#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub cpu_seconds: f64,
    pub start_seconds: f64,
    pub resident: u64,
    pub virtual_: u64,
    pub threads: i64,
    pub open_files: Option<i64>,
    pub most_files: Option<i64>,
}

impl Own {
    /// `None` where /proc is not there.
    pub fn read() -> Option<Own> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let mut own = Own::parse(&stat, sysconf(libc::_SC_CLK_TCK)?, sysconf(libc::_SC_PAGESIZE)?, boot_seconds()?)?;
        own.open_files = fs::read_dir("/proc/self/fd").ok().and_then(|dir| i64::try_from(dir.count()).ok());
        own.most_files = fs::read_to_string("/proc/self/limits").ok().and_then(|limits| most_files(&limits));
        Some(own)
    }

    fn parse(stat: &str, ticks: u64, page: u64, boot: f64) -> Option<Own> {
        // The name in parentheses may itself hold spaces and parentheses.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let seconds = |n: u64| n as f64 / ticks as f64;
        Some(Own {
            cpu_seconds: seconds(number(14)? + number(15)?),
            start_seconds: boot + seconds(number(22)?),
            resident: number(24)? * page,
            virtual_: number(23)?,
            threads: i64::try_from(number(20)?).ok()?,
            open_files: None,
            most_files: None,
        })
    }
}

fn most_files(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// When the host booted, in seconds since 1970: wall clock now less the time since boot.
fn boot_seconds() -> Option<f64> {
    let mut up = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes the struct that we own.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut up) } != 0 {
        return None;
    }
    let now = crate::when::now_micros() as f64 / 1e6;
    Some(now - up.tv_sec as f64 - up.tv_nsec as f64 / 1e9)
}

fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: sysconf takes a number and returns one.
    u64::try_from(unsafe { libc::sysconf(name) }).ok().filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1000 8192000 300 184467 1 1 0";
        let own = Own::parse(stat, 100, 4096, 5.0).unwrap();
        assert_eq!((own.cpu_seconds, own.start_seconds, own.threads), (3.0, 15.0, 4));
        assert_eq!((own.virtual_, own.resident), (8_192_000, 300 * 4096));
        assert_eq!(Own::parse("7 (a) S 1", 100, 4096, 5.0), None);
        assert_eq!(most_files("Limit  x\nMax open files            1024    4096   files\n"), Some(1024));
    }

    #[test]
    fn this_process_is_read() {
        let own = Own::read().unwrap();
        assert!(own.resident > 0 && own.threads > 0 && own.open_files.unwrap() > 2);
        let now = crate::when::now_micros() as f64 / 1e6;
        assert!(own.start_seconds <= now + 1.0 && own.start_seconds > now - 86_400.0);
    }
}
