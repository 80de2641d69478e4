//! Whatever the lab makes outside its own memory, it makes here or hands over to here: child processes, temporary
//! directories, and the sweep that removes what an earlier, killed run left. Nothing is ever killed by name.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cgroup;
use crate::netns;

/// Everything of one run carries this, so that a later run can tell what is left over.
pub fn prefix() -> String {
    format!("t502-{}", std::process::id())
}

/// Removes what runs that are no longer alive left behind.
pub fn sweep() {
    let dead = |name: &str| {
        name.strip_prefix("t502-")
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    remove_where(&dead);
}

/// Removes what this run made: for the exit by a signal, where no destructor runs.
pub fn sweep_own() {
    let own = prefix();
    // Twice: the other threads go on making things until the process ends.
    for _ in 0..2 {
        remove_where(&|name: &str| name == own || name.starts_with(&format!("{own}-")));
    }
}

fn remove_where(wanted: &dyn Fn(&str) -> bool) {
    cgroup::remove_where(wanted);
    netns::remove_where(wanted);
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(wanted) {
            // A leftover that cannot be removed is the next run's problem again, not this one's.
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
    }
}

/// On SIGINT, SIGTERM and the end of the terminal: clean up, then end. Call before any thread is started.
pub fn clean_on_signal() {
    // SAFETY: plain libc calls on zeroed structures that are filled in before use.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        // Who starts it by nohup wants it to go on.
        let mut hang_up: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut hang_up);
        if hang_up.sa_sigaction != libc::SIG_IGN {
            libc::sigaddset(&mut set, libc::SIGHUP);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both pointers outlive the call.
        unsafe { libc::sigwait(&set, &mut signal) };
        sweep_own();
        std::process::exit(128 + signal);
    });
}

/// A directory under /tmp (unix socket paths are short), removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// The one of this run.
    pub fn new() -> Result<Self> {
        Self::at(prefix())
    }

    /// One of its own for a part of the run.
    pub fn of(part: &str) -> Result<Self> {
        Self::at(format!("{}-{part}", prefix()))
    }

    fn at(name: String) -> Result<Self> {
        let path = PathBuf::from("/tmp").join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // The folder of this run's units, empty by now.
        cgroup::remove_where(&|name| name == prefix());
    }
}

/// How a child is to be started.
pub struct Launch {
    pub command: Command,
    pub netns: Option<Arc<OwnedFd>>,
    /// Files that this process, and the lab, see instead of the host's (path seen, path of the stand-in).
    pub binds: Vec<(&'static str, PathBuf)>,
    /// `cgroup.procs` files to enter.
    pub cgroups: Vec<PathBuf>,
    pub user: Option<u32>,
    pub files: Option<u64>,
}

impl Launch {
    pub fn new(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self {
            command: Command::new(program),
            netns: None,
            binds: Vec::new(),
            cgroups: Vec::new(),
            user: None,
            files: None,
        }
    }

    pub fn args<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn within(mut self, netns: Option<Arc<OwnedFd>>) -> Self {
        self.netns = netns;
        self
    }

    /// Both output streams go to this file.
    pub fn log(mut self, path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        self.command.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
        Ok(self)
    }

    pub fn start(self) -> Result<Kid> {
        let name = format!("{:?}", self.command.get_program());
        let child = spawn(self).with_context(|| format!("cannot start {name}"))?;
        Ok(Kid { child: Mutex::new(child) })
    }

    fn prepare(&mut self) -> io::Result<()> {
        let netns = self.netns.clone();
        let files = self.files;
        let user = self.user;
        let mut binds = Vec::new();
        for (seen, real) in &self.binds {
            binds.push((CString::new(*seen)?, CString::new(real.as_os_str().as_encoded_bytes())?));
        }
        let cgroups = self
            .cgroups
            .iter()
            .map(|path| CString::new(path.as_os_str().as_encoded_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let enter = move || {
            // SAFETY: only async-signal-safe calls between fork and exec, on memory made before the fork.
            unsafe {
                libc::setpgid(0, 0);
                unblock_signals();
                for path in &cgroups {
                    enter_cgroup(path)?;
                }
                if let Some(ns) = &netns {
                    check(libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET))?;
                }
                if !binds.is_empty() {
                    bind_files(&binds)?;
                }
                if let Some(n) = files {
                    let limit = libc::rlimit { rlim_cur: n, rlim_max: n };
                    check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
                }
                if let Some(uid) = user {
                    check(libc::setgroups(0, std::ptr::null()))?;
                    check(libc::setgid(uid))?;
                    check(libc::setuid(uid))?;
                }
                // After setuid, which clears it.
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            }
            Ok(())
        };
        // SAFETY: `enter` keeps to async-signal-safe calls, see there.
        unsafe { self.command.pre_exec(enter) };
        Ok(())
    }
}

fn check(ret: libc::c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// Between fork and exec only.
unsafe fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// # Safety
/// Between fork and exec only.
unsafe fn enter_cgroup(procs: &CString) -> io::Result<()> {
    // SAFETY: the path is a C string, the buffer is static.
    unsafe {
        let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd)?;
        let written = libc::write(fd, c"0".as_ptr().cast(), 1);
        libc::close(fd);
        check(written as libc::c_int)
    }
}

/// # Safety
/// Between fork and exec only.
unsafe fn bind_files(binds: &[(CString, CString)]) -> io::Result<()> {
    // SAFETY: all pointers are C strings that outlive the calls.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()))?;
        for (seen, real) in binds {
            check(libc::mount(real.as_ptr(), seen.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()))?;
        }
    }
    Ok(())
}

type Request = (Launch, Sender<io::Result<Child>>);

/// The parent-death signal follows the *thread* that forked, so one thread that lives as long as the lab forks for all.
fn spawn(launch: Launch) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut launch, answer) in receive {
                let child = launch.prepare().and_then(|()| launch.command.spawn());
                // The asker may have panicked; then nobody owns the child and it must not stay.
                if let Err(lost) = answer.send(child)
                    && let Ok(mut child) = lost.0
                {
                    let _ = child.kill();
                }
            }
        });
        Mutex::new(send)
    });
    let (answer, receive) = channel();
    let gone = |_| io::Error::other("the spawning thread is gone");
    spawner
        .lock()
        .map_err(|_| io::Error::other("the spawner is poisoned"))?
        .send((launch, answer))
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    receive.recv().map_err(gone)?
}

/// A child and its process group; both end on drop.
pub struct Kid {
    child: Mutex<Child>,
}

impl Kid {
    pub fn pid(&self) -> u32 {
        self.lock().id()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn signal(&self, signal: i32) {
        signal_pid(self.pid(), signal);
    }

    pub fn take_stdout(&self) -> Option<std::process::ChildStdout> {
        self.lock().stdout.take()
    }

    /// Has it ended? With which raw wait status?
    pub fn ended(&self) -> Option<std::process::ExitStatus> {
        self.lock().try_wait().ok().flatten()
    }

    pub fn wait(&self, limit: Duration) -> Option<std::process::ExitStatus> {
        until(limit, || self.ended())
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let group = child.id() as i32;
        // SAFETY: kill has no memory to break. The group is the child's own, see `prepare`.
        unsafe {
            libc::kill(-group, libc::SIGKILL);
            libc::kill(-group, libc::SIGCONT);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub fn signal_pid(pid: u32, signal: i32) {
    // SAFETY: kill has no memory to break; pids come from children or from /proc of their groups.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Asks until there is an answer, at most this long.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a tool to its end; its stderr is the message when it fails.
pub fn tool(program: &str, args: &[&str]) -> Result<String> {
    output(Command::new(program).args(args))
}

/// The same of a command that was prepared.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {:?}: is it installed?", command.get_program()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {}", stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
