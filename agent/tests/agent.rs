//! `trace502 agent` on this host, with a real nginx in front of nothing. Needs root.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process that ends with the test.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(addr) {
        let _ = write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}

fn until(what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !wanted() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// nginx in front of a port on which nobody listens.
fn nginx(dir: &Path) -> (Leash, SocketAddr, SocketAddr) {
    let (front, nobody) = (free(), free());
    let d = dir.display();
    let paths =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|p| format!("{p}_temp_path {d}/{p};")).join(" ");
    let config = format!(
        "daemon off; master_process off; pid {d}/pid; error_log {d}/error.log;\nevents {{}}\n\
         http {{ access_log off; {paths}\nserver {{ listen {front}; location / {{ proxy_pass http://{nobody}; }} }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(dir.join("nginx.conf"))
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is a Debian package; cargo xtask setup installs it");
    let child = Leash(child);
    until("nginx", || TcpStream::connect(front).is_ok());
    (child, front, nobody)
}

fn agent(dir: &Path, listen: SocketAddr) -> Leash {
    let name: String = listen.port().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_trace502"))
        .args(["agent", "--instance", &name, "--listen", &listen.to_string(), "--history"])
        .arg(dir.join("history.db"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Leash(child)
}

fn history(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_trace502"))
        .arg("history")
        .arg("--history")
        .arg(dir.join("history.db"))
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Numbers of the kernel's objects of this kind (prog, link, map) that a process holds.
fn held(pid: u32, kind: &str) -> Vec<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    let key = format!("{kind}_id:");
    let ids = texts.flat_map(|text| {
        // A link names its program as well; each file is one object.
        let own = text.contains("link_type:") == (kind == "link");
        let line = text.lines().filter(|_| own).find_map(|line| line.strip_prefix(&key).map(str::to_owned));
        line.and_then(|id| id.trim().parse().ok())
    });
    ids.collect()
}

/// All that there are, as bpftool sees them.
fn existing(kind: &str) -> Vec<u64> {
    let out = Command::new("bpftool").args(["-j", kind, "show"]).output().expect("bpftool is a Debian package");
    let all: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    all.as_array().into_iter().flatten().filter_map(|item| item["id"].as_u64()).collect()
}

#[test]
fn an_error_reaches_metrics_page_and_history() {
    let dir = tempfile::tempdir().unwrap();
    let (_nginx, front, nobody) = nginx(dir.path());
    let addr = free();
    let mut agent = agent(dir.path(), addr);
    until("the agent", || get(addr, "/readyz").contains(" 200 "));
    assert!(get(front, "/api/cart?secret=1").contains(" 502 "));

    let line = format!(
        r#"trace502_gateway_errors_total{{proxy="nginx",upstream="{nobody}",status="502",cause="no_listener"}} 1"#
    );
    until("the metric", || get(addr, "/metrics").contains(&line));
    assert!(get(addr, "/").contains(&nobody.to_string()));
    let upstream = nobody.to_string();
    until("the record", || !history(dir.path(), &["--json", "--upstream", &upstream]).is_empty());
    let json = history(dir.path(), &["--json", "--upstream", &upstream, "--path", "/api"]);
    let record: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&record["cause"], &record["request"]["path"]), (&"no_listener".into(), &"/api/cart".into()));
    assert!(!json.contains("secret"), "query strings are not kept");
    let text = history(dir.path(), &["--upstream", &upstream]);
    assert!(text.starts_with("1 gateway errors from") || text.starts_with("1 gateway error from"), "{text}");

    // SAFETY: a pid that we started and a signal.
    unsafe { libc::kill(agent.0.id() as i32, libc::SIGTERM) };
    assert!(agent.0.wait().unwrap().success());
}

#[test]
fn a_restart_picks_up_what_runs_already_and_a_kill_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_nginx, front, _) = nginx(dir.path());
    let addr = free();
    let mut first = agent(dir.path(), addr);
    until("the agent", || get(addr, "/readyz").contains(" 200 "));
    let pid = first.0.id();
    let ours = ["prog", "link", "map"].map(|kind| (kind, held(pid, kind)));
    for (kind, ids) in &ours {
        let all = existing(kind);
        assert!(ids.len() > 5 && ids.iter().all(|id| all.contains(id)), "{kind} {ids:?}");
    }
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    until("their end", || {
        ours.iter().all(|(kind, ids)| {
            let all = existing(kind);
            ids.iter().all(|id| !all.contains(id))
        })
    });

    let _second = agent(dir.path(), addr);
    until("the agent", || get(addr, "/readyz").contains(" 200 "));
    assert!(get(front, "/after").contains(" 502 "));
    until("the record", || history(dir.path(), &["--json", "--path", "/after"]).contains("no_listener"));
}

#[test]
fn what_remains_is_what_the_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free();
    let agent = agent(dir.path(), addr);
    until("the agent", || get(addr, "/readyz").contains(" 200 "));
    let kept = trace502::privilege::KEPT.iter().fold(0u64, |bits, k| bits | 1 << k.bit);
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.0.id())).unwrap();
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect::<Vec<_>>()
    };
    // A thread has its name a moment after it runs, and gives away what it holds a moment later.
    until("its threads", || {
        let mut names: Vec<_> = threads().iter().map(|status| field(status, "Name:").to_owned()).collect();
        names.sort();
        names == ["engine", "history", "http", "trace502"]
    });
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
        && caps("CapBnd:") & !kept == 0
}
