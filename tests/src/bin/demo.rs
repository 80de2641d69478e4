//! `cargo xtask demo`: an nginx with upstreams that fail in ways one would otherwise search for, and `trace502 live`
//! telling why. Everything lives in namespaces of its own and is gone afterwards.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use trace502_tests::agent;
use trace502_tests::client::{Ask, ask_once};
use trace502_tests::faults::{self, Plan, Session, Setup};
use trace502_tests::guard;
use trace502_tests::netns;
use trace502_tests::proxies::{Kind, Proxy};
use trace502_tests::world::{Ports, World};

/// In the order of the show.
const SHOWN: [&str; 14] = [
    "port-mistaken",
    "wrong-address",
    "oom-in-flight",
    "segv-before",
    "kill-before",
    "nft-drop-in",
    "nft-reset-in",
    "queue-full",
    "stopped",
    "close-early",
    "idle-raced",
    "ssh",
    "tls-to-plain",
    "certificate-expired",
];

/// Faults that need no new process each time: asked for again while somebody watches.
const STEADY: [&str; 6] =
    ["wrong-address", "nft-reset-in", "close-early", "ssh", "tls-to-plain", "certificate-expired"];

/// Between two errors: long enough to read one.
const PAUSE: Duration = Duration::from_millis(1200);
/// The end, also when somebody forgets that it runs.
const LONGEST: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    guard::clean_on_signal();
    guard::sweep();
    let watched = std::io::stdout().is_terminal();
    eprintln!("starting nginx and its bad upstreams ...");
    let world = World::new(Ports::Few)?;
    let mut plans = Vec::new();
    for name in SHOWN {
        let fault = faults::all().into_iter().find(|fault| fault.name == name).context("the table lost a fault")?;
        plans.push((name, (fault.prepare)(&Setup { world: world.clone(), kind: Kind::Nginx, fault: fault.name })?));
    }
    let routes: Vec<_> = plans.iter().map(|(_, plan)| plan.route.clone()).collect();
    world.start_shared()?;
    let proxy = Proxy::start(Kind::Nginx, &world, &routes)?;
    eprintln!("nginx listens; try: ip netns exec {} curl -i http://{}/close-early/", world.proxies.name(), proxy.addr);
    let mut live = start_live(watched)?;
    let over = AtomicBool::new(false);
    let viewer = live.0.id();
    let ended = std::thread::scope(|scope| {
        let show = scope.spawn(|| {
            // What fails before it looks would be missed.
            wait_attached(viewer, &over);
            show(&world, &proxy, plans, &over, watched)
        });
        let status = live.wait_until(&show);
        over.store(true, Ordering::Relaxed);
        let shown = show.join().ok().context("the show panicked")?;
        shown.and(status)
    });
    drop(proxy);
    drop(world);
    let status = ended?;
    anyhow::ensure!(status.success(), "trace502 live ended with {status}");
    Ok(())
}

/// In the foreground: a full-screen view needs the terminal.
fn start_live(watched: bool) -> Result<Live> {
    let mut command = Command::new(agent::binary()?);
    command.arg("live");
    if !watched {
        command.arg("--plain");
    }
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            unblock();
            Ok(())
        })
    };
    Ok(Live(command.spawn().context("cannot run trace502 live")?))
}

/// Until the hooks that a process holds in the kernel become no more.
fn wait_attached(pid: u32, over: &AtomicBool) {
    let start = Instant::now();
    let (mut before, mut since) = (0, start);
    while !over.load(Ordering::Relaxed) && start.elapsed() < LONGEST / 10 {
        let now = hooks(pid);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        if now > 0 && since.elapsed() > PAUSE {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn hooks(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files.filter(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains("link_type:"))).count()
}

/// The demo keeps signals for its own thread; its child must have its own back.
fn unblock() {
    // SAFETY: the set is initialised before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

struct Live(Child);

impl Live {
    /// Until the user leaves it, or the show is over.
    fn wait_until<T>(&mut self, show: &std::thread::ScopedJoinHandle<'_, T>) -> Result<std::process::ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if show.is_finished() {
                guard::signal_pid(self.0.id(), libc::SIGTERM);
                return Ok(self.0.wait()?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn show(
    world: &World,
    proxy: &Proxy,
    plans: Vec<(&'static str, Plan)>,
    over: &AtomicBool,
    watched: bool,
) -> Result<()> {
    netns::enter(&world.proxies.handle())?;
    let start = Instant::now();
    let goes_on = || !over.load(Ordering::Relaxed) && start.elapsed() < LONGEST;
    for (name, plan) in plans {
        if !goes_on() {
            return Ok(());
        }
        let session = Session::new(world, proxy, name);
        (plan.act)(&session)?;
        std::thread::sleep(PAUSE);
    }
    for n in 0.. {
        if !watched || !goes_on() {
            break;
        }
        let name = STEADY[n % STEADY.len()];
        ask_once(proxy.addr, &Ask::get(format!("/{name}/again/{n}")))?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
