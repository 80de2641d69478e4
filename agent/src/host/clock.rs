//! The clocks of this host and the way from one to another.

use crate::model::Nanos;

pub struct Clock {
    ticks_per_second: u64,
}

impl Clock {
    pub fn new() -> Self {
        // SAFETY: sysconf takes a constant and touches no memory of ours.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self { ticks_per_second: u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100) }
    }

    /// The monotonic instant of a tick counted since boot, rounded down to a tick (10 ms).
    ///
    /// Ticks in /proc count suspended time; the monotonic clock does not.
    pub fn at_tick(&self, ticks: u64) -> Nanos {
        let since_boot = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_second);
        let suspended = now(libc::CLOCK_BOOTTIME).saturating_sub(now(libc::CLOCK_MONOTONIC));
        u64::try_from(since_boot).unwrap_or(u64::MAX).saturating_sub(suspended)
    }

    pub fn millis(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.ticks_per_second
    }

    /// Wall clock of a monotonic instant, by what the wall clock says now: in microseconds since 1970.
    pub fn wall_micros(&self, at: Nanos) -> i64 {
        let (wall, monotonic) = (now(libc::CLOCK_REALTIME), now(libc::CLOCK_MONOTONIC));
        let nanos = i128::from(wall) - i128::from(monotonic) + i128::from(at);
        i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX)
    }
}

pub fn monotonic() -> Nanos {
    now(libc::CLOCK_MONOTONIC)
}

fn now(clock: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_on_the_wall_is_what_the_system_says() {
        let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
        let said = Clock::new().wall_micros(monotonic());
        let after = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
        // Two clocks read one after the other differ by the time in between.
        assert!((before - 1_000_000..=after + 1_000_000).contains(&said), "{before} {said} {after}");
    }

    #[test]
    fn a_child_started_between_two_readings_of_the_clock() {
        let proc = crate::host::proc::Procfs::new("/proc");
        let before = monotonic();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let after = monotonic();
        let started = proc.clock().at_tick(proc.stat(child.id()).unwrap().start_ticks);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(started <= after && started + 11_000_000 >= before, "{before} {started} {after}");
    }

    #[test]
    fn absurd_ticks_do_not_overflow() {
        Clock::new().at_tick(u64::MAX);
        Clock::new().millis(u64::MAX);
        Clock::new().wall_micros(u64::MAX);
    }
}
