//! An agent as a process of its own, with a made-up engine: its life from ready to the end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::config::Flags;
use crate::filter::Filter;
use crate::history::{Reader, Span};
use crate::metrics::tests::incident;
use crate::model::Notice;
use crate::privilege::KEPT;
use crate::status::{Probe, Status};

/// An engine that tells one error at its start and one at its end.
struct MadeUp {
    mood: String,
}

impl Source for MadeUp {
    fn run(self: Box<Self>, mut outlet: Outlet, stop: &Stop) -> anyhow::Result<()> {
        let probes = vec![Probe { name: "p".into(), provider: "made up".into(), attached: true, required: true }];
        outlet.status(Status { probes, ..Status::default() });
        outlet.notice(Notice::Incident(Box::new(incident("127.0.0.1:8000", "first_word"))));
        loop {
            match self.mood.as_str() {
                "fails" => anyhow::bail!("the ring is gone"),
                "panics" => panic!("made up"),
                _ => {}
            }
            let mut fd = libc::pollfd { fd: stop.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid descriptor in an array of one.
            let stopped = unsafe { libc::poll(&mut fd, 1, 20) } > 0;
            if let Some(settings) = outlet.reloaded() {
                println!("proxies {:?} ring {}", settings.proxy, settings.ring_size);
            }
            if stopped && self.mood != "hangs" {
                outlet.notice(Notice::Incident(Box::new(incident("127.0.0.1:8000", "last_word"))));
                return Ok(());
            }
            outlet.beat();
        }
    }
}

#[test]
#[ignore = "the process that the other tests look at"]
fn child_agent() {
    let file = PathBuf::from(std::env::var("TRACE502_TEST_CONFIG").unwrap());
    let mood = std::env::var("TRACE502_TEST_MOOD").unwrap_or_default();
    // The harness has threads of its own; after a fork there is one, as in the real agent.
    // SAFETY: the child only runs the agent, and the parent only waits for it.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            println!("\npid {}", std::process::id());
            // It must not outlive a test that fails.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let load = || Config::load(Some(&file), &Flags::default());
            let result = std::panic::catch_unwind(|| run(&load, |_| Ok(Box::new(MadeUp { mood }))));
            let code = match result {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => {
                    eprintln!("{error:#}");
                    1
                }
                Err(_) => 101,
            };
            libc::_exit(code);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 99 };
        libc::_exit(code);
    }
}

/// The process goes with the test, whichever way that ends; what it forked goes with it.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    child: Leash,
    pid: i32,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
    manager: UnixDatagram,
    dir: tempfile::TempDir,
    addr: SocketAddr,
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Running {
    fn start(mood: &str) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let addr = free_port();
        let name: String = dir.path().display().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let text = format!(
            "listen = '{addr}'\nhistory = '{}'\ninstance = '{}'\n",
            dir.path().join("h/history.db").display(),
            &name[name.len().saturating_sub(20)..]
        );
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (child, pid, out, err) = spawn(dir.path(), mood);
        Running { child, pid, out, err, manager, dir, addr }
    }

    fn told(&self) -> String {
        let mut buffer = [0; 1024];
        let length = self.manager.recv(&mut buffer).expect("the manager is told");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// What the manager is told next, apart from signs of life.
    fn news(&self) -> String {
        std::iter::repeat_with(|| self.told()).find(|text| text != "WATCHDOG=1").unwrap()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a pid that we started and a signal.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    fn get(&self, path: &str) -> String {
        let mut text = String::new();
        // Before it listens there is nothing to read.
        if let Ok(mut stream) = TcpStream::connect(self.addr) {
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
            stream.read_to_string(&mut text).unwrap();
        }
        text
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Its exit code and what it said.
    fn end(mut self) -> (ExitStatus, String, tempfile::TempDir) {
        let status = self.child.0.wait().unwrap();
        let mut said = String::new();
        self.err.read_to_string(&mut said).unwrap();
        (status, said, self.dir)
    }

    fn line(&mut self, start: &str) -> String {
        line(&mut self.out, start)
    }
}

fn spawn(dir: &Path, mood: &str) -> (Leash, i32, BufReader<ChildStdout>, BufReader<ChildStderr>) {
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", "daemon::tests::child_agent", "--ignored", "--nocapture"])
        .env("TRACE502_TEST_CONFIG", dir.join("agent.toml"))
        .env("TRACE502_TEST_MOOD", mood)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .env("TZ", "AAA-5:30")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let err = BufReader::new(child.stderr.take().unwrap());
    let pid = line(&mut out, "pid ")[4..].parse().unwrap();
    (Leash(child), pid, out, err)
}

fn line(out: &mut impl BufRead, start: &str) -> String {
    let mut lines = out.lines().map(Result::unwrap);
    lines.find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line `{start}`"))
}

fn causes(dir: &Path) -> Vec<String> {
    let mut causes = Vec::new();
    let tell = |incident: crate::model::Incident| {
        causes.push(incident.cause);
        std::ops::ControlFlow::Continue(())
    };
    Reader::open(&dir.join("h/history.db")).unwrap().each(Span::default(), &Filter::default(), tell).unwrap();
    causes
}

/// Waits for what comes soon.
fn until(what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !wanted() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn from_ready_to_the_end() {
    let agent = Running::start("");
    assert!(agent.news().starts_with("READY=1\nSTATUS=probes attached; metrics on 127.0.0.1:"));
    assert_eq!(agent.told(), "WATCHDOG=1");
    until("readiness", || agent.get("/readyz").contains(" 200 "));
    until("the incident", || agent.get("/metrics").contains(r#"cause="first_word"} 1"#));
    let page = agent.get("/");
    assert!(page.contains("CAP_SYS_PTRACE (to see"));
    assert!(page.contains("time of this host") && page.contains(" +05:30<td>502"), "{page}");
    until("the record", || Reader::open(&agent.dir.path().join("h/history.db")).is_ok());
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.news(), "STOPPING=1");
    let (status, said, dir) = agent.end();
    assert!(status.success(), "{said}");
    assert_eq!(causes(dir.path()), ["first_word", "last_word"], "what the engine says at its end is kept");
}

#[test]
fn each_thread_holds_only_what_it_needs() {
    let agent = Running::start("");
    until("readiness", || agent.get("/readyz").contains(" 200 "));
    let kept = KEPT.iter().filter(|k| k.until.is_none()).fold(0u64, |bits, k| bits | 1 << k.bit);
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid)).unwrap();
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect::<Vec<_>>()
    };
    // A thread has its name a moment after it runs, and gives away what it holds a moment later.
    let named = |name: &str| threads().iter().any(|status| field(status, "Name:") == name);
    until("its threads", || ["engine", "http", "history"].into_iter().all(named));
    until("that each holds no more", || threads().iter().all(|status| holds_no_more(status, kept)));
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

/// Whether a thread with this status has only the capabilities that are kept, and those that face strangers have none.
fn holds_no_more(status: &str, kept: u64) -> bool {
    let caps = |name: &str| u64::from_str_radix(field(status, name), 16).unwrap();
    let most = if ["http", "history"].contains(&field(status, "Name:")) { 0 } else { kept };
    (field(status, "NoNewPrivs:"), field(status, "Seccomp:")) == ("1", "2")
        && (caps("CapEff:") | caps("CapPrm:")) & !most == 0
        && (caps("CapBnd:") & !kept, caps("CapInh:")) == (0, 0)
}

#[test]
fn a_second_agent_is_told_of_the_first() {
    let agent = Running::start("");
    agent.news();
    let (mut second, _, _, mut err) = spawn(agent.dir.path(), "");
    let mut said = String::new();
    err.read_to_string(&mut said).unwrap();
    assert!(!second.0.wait().unwrap().success());
    assert!(said.contains(&format!("an agent runs already (pid {})", agent.pid)), "{said}");
    assert!(agent.get("/healthz").contains(" 200 "));
}

#[test]
fn a_second_agent_of_another_name_leaves_the_history_of_the_first_alone() {
    let agent = Running::start("");
    agent.news();
    let beside = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(agent.config()).unwrap();
    let text = text.replace(&agent.addr.to_string(), "127.0.0.1:0").replace("instance = '", "instance = 'two");
    fs::write(beside.path().join("agent.toml"), text).unwrap();
    let (mut second, _, _, mut err) = spawn(beside.path(), "");
    let mut said = String::new();
    err.read_to_string(&mut said).unwrap();
    assert!(!second.0.wait().unwrap().success());
    assert!(said.contains(&format!("is written by another agent (pid {})", agent.pid)), "{said}");
    assert!(said.contains("--history"), "{said}");
    assert!(agent.get("/healthz").contains(" 200 "));
}

#[test]
fn a_kill_leaves_nothing_in_the_way_of_the_next_life() {
    let agent = Running::start("");
    agent.news();
    until("the record", || Reader::open(&agent.dir.path().join("h/history.db")).is_ok());
    agent.signal(libc::SIGKILL);
    let (_, _, dir) = agent.end();
    let before = causes(dir.path()).len();
    let (mut child, pid, _out, _err) = spawn(dir.path(), "");
    until("the next life", || causes(dir.path()).len() > before);
    // SAFETY: a pid that we started and a signal.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn a_reload_takes_up_what_it_can_and_names_the_rest() {
    let mut agent = Running::start("");
    agent.news();
    let old = fs::read_to_string(agent.config()).unwrap();
    let token = agent.dir.path().join("token");
    fs::write(&token, "0123456789abcdef").unwrap();
    let new = format!("{old}proxy = ['my-proxy']\nring-size = '1MiB'\ntoken-file = '{}'\n", token.display());
    fs::write(agent.config(), new).unwrap();
    agent.signal(libc::SIGHUP);
    assert!(agent.news().starts_with("RELOADING=1"));
    assert!(agent.news().starts_with("READY=1"));
    assert_eq!(agent.line("proxies"), r#"proxies ["my-proxy"] ring 16777216"#);
    assert!(agent.get("/metrics").contains(" 401 "), "the token is asked for");

    fs::write(agent.config(), "listn = 'x'\n").unwrap();
    agent.signal(libc::SIGHUP);
    assert!(agent.news().starts_with("RELOADING=1") && agent.news().starts_with("READY=1"));
    assert!(agent.get("/metrics").contains(" 401 "), "a mistake changes nothing");
    agent.signal(libc::SIGINT);
    let (status, said, _dir) = agent.end();
    assert!(status.success());
    assert!(said.contains("reloaded; changed: token-file, proxy"), "{said}");
    assert!(said.contains("takes a restart: ring-size"), "{said}");
    assert!(said.contains("not reloaded:") && said.contains("did you mean `listen`?"), "{said}");
}

#[test]
fn an_engine_that_fails_ends_the_agent_with_its_reason() {
    for (mood, reason) in
        [("fails", "the engine thread failed: the ring is gone"), ("panics", "engine thread panicked")]
    {
        let agent = Running::start(mood);
        let (status, said, dir) = agent.end();
        assert!(!status.success() && said.contains(reason), "{mood}: {said}");
        assert_eq!(causes(dir.path()), ["first_word"], "what it said before is kept");
    }
}

#[test]
fn an_engine_that_hangs_cannot_hold_up_the_end() {
    let agent = Running::start("hangs");
    agent.news();
    agent.signal(libc::SIGTERM);
    let (status, said, _dir) = agent.end();
    assert!(status.success() && said.contains("the engine thread did not end in time"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("listen = '{}'\nhistory = 'off'\ninstance = 'taken'\n", taken.local_addr().unwrap());
    fs::write(dir.path().join("agent.toml"), text).unwrap();
    let (mut child, _, _, mut err) = spawn(dir.path(), "");
    let mut said = String::new();
    err.read_to_string(&mut said).unwrap();
    assert!(!child.0.wait().unwrap().success());
    assert!(said.contains("cannot listen on 127.0.0.1:") && said.contains("Address already in use"), "{said}");
}
