//! The ways in which a service ends or hangs, for real.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Death {
    /// Its own fault: raised as the kernel or abort() would.
    Signal(i32),
    Exit(i32),
    /// Takes memory until the kernel's OOM killer comes.
    Memory,
}

impl Death {
    pub fn happen(self) {
        match self {
            Self::Signal(libc::SIGSEGV) => {
                // SAFETY: none; the invalid write is the point, and the process does not outlive it.
                unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
            }
            Self::Signal(libc::SIGABRT) => std::process::abort(),
            Self::Signal(signal) => {
                // SAFETY: default disposition, then raise: the process does not go on.
                unsafe {
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
            }
            Self::Exit(code) => std::process::exit(code),
            Self::Memory => {
                let mut held = Vec::new();
                loop {
                    held.push(vec![1u8; 1 << 20]);
                }
            }
        }
    }
}

/// The state that ps shows as D: the parent of a vfork waits for its child uninterruptibly.
pub fn wait_uninterruptibly(length: Duration) {
    let time = libc::timespec { tv_sec: length.as_secs() as i64, tv_nsec: i64::from(length.subsec_nanos()) };
    // SAFETY: the child shares this memory, and only sleeps and leaves, by raw system calls.
    unsafe {
        #[allow(deprecated)]
        let pid = libc::vfork();
        if pid == 0 {
            libc::syscall(libc::SYS_nanosleep, &time, std::ptr::null_mut::<libc::timespec>());
            libc::_exit(0);
        }
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// Starts a command again and again, as a supervisor does: this many times, with this pause between.
pub fn supervise(times: u32, pause: Duration, command: &[String]) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let (program, args) = command.split_first().ok_or_else(|| anyhow::anyhow!("supervise: nothing to start"))?;
    for _ in 0..times {
        let mut command = std::process::Command::new(program);
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        command.args(args).spawn()?.wait()?;
        std::thread::sleep(pause);
    }
    Ok(())
}
