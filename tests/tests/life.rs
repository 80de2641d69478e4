//! The life of `trace502 agent` on this host: proxies come and go, settings change, the disk fills, and it goes on.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trace502_tests::agent;
use trace502_tests::client::{Answer, Ask, ask_once};
use trace502_tests::daemon::{Daemon, PATIENCE, exchange, get};
use trace502_tests::guard::{Launch, TempDir, output, signal_pid, tool, until};
use trace502_tests::netns;
use trace502_tests::proxies::{Kind, Proxy};
use trace502_tests::route::{Route, Special};
use trace502_tests::service::Draft;
use trace502_tests::world::{Ports, World, alone};

fn ask(world: &World, addr: SocketAddr, path: &str) -> Answer {
    let handle = world.proxies.handle();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            netns::enter(&handle).unwrap();
            ask_once(addr, &Ask::get(path)).unwrap()
        });
        asked.join().unwrap()
    })
}

/// Errors that the agent counted for this upstream.
fn errors(daemon: &Daemon, upstream: &str) -> f64 {
    let start = format!(r#"trace502_gateway_errors_total{{proxy="nginx",upstream="{upstream}""#);
    daemon.sample(&start).unwrap_or_default()
}

/// Asks for what fails, and waits until the agent has told of it.
fn fails_and_is_told(world: &World, proxy: SocketAddr, daemon: &Daemon, upstream: &str) {
    let before = errors(daemon, upstream);
    assert_eq!(ask(world, proxy, "/gone/x"), Answer::Status(502));
    until(PATIENCE, || (errors(daemon, upstream) > before).then_some(()))
        .unwrap_or_else(|| panic!("an error of nginx is not told: {}\n{}", daemon.metrics(), daemon.said()));
}

/// Programs in the kernel that a process holds.
fn programs(pid: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:").map(str::to_owned))).collect()
}

fn world() -> (Arc<World>, String, [Route; 1]) {
    let world = World::new(Ports::Plenty).unwrap();
    let nobody = format!("127.0.0.1:{}", world.port());
    let routes = [Route::to("gone", nobody.clone())];
    (world, nobody, routes)
}

#[test]
fn proxies_that_start_restart_and_are_upgraded_are_followed() {
    let Some(_alone) = alone() else { return };
    let (world, nobody, routes) = world();
    let daemon = Daemon::start(world.dir(), &[]).unwrap();
    let first = Proxy::start(Kind::Nginx, &world, &routes).unwrap();
    fails_and_is_told(&world, first.addr, &daemon, &nobody);
    drop(first);
    let second = Proxy::start(Kind::Nginx, &world, &routes).unwrap();
    fails_and_is_told(&world, second.addr, &daemon, &nobody);

    // New workers on a reload.
    let before = second.workers();
    assert!(second.reload());
    let renewed = || second.workers().iter().all(|pid| !before.contains(pid)).then_some(());
    until(PATIENCE, renewed).unwrap();
    fails_and_is_told(&world, second.addr, &daemon, &nobody);

    // As packages run it: then a new program can take over the listening sockets, and the old one leaves.
    let at = second.addr;
    drop(second);
    let file = |name: &str| world.dir().join("nginx").join(name);
    let _ = fs::remove_file(file("nginx.pid"));
    let (config, log) = (file("nginx.conf").display().to_string(), file("error.log").display().to_string());
    let args = ["-e", &log, "-c", &config];
    let service = Draft::program(&world, &world.proxies, "daemon", "/usr/sbin/nginx", &args).start().unwrap();
    let master = || fs::read_to_string(file("nginx.pid")).ok()?.trim().parse::<u32>().ok();
    let works = |master: u32| service.pids().iter().any(|pid| parent(*pid) == Some(master));
    let old = until(PATIENCE, || master().filter(|pid| works(*pid))).unwrap();
    fails_and_is_told(&world, at, &daemon, &nobody);
    signal_pid(old, libc::SIGUSR2);
    let new = until(PATIENCE, || master().filter(|pid| *pid != old && works(*pid))).unwrap();
    signal_pid(old, libc::SIGQUIT);
    until(PATIENCE, || (!service.pids().contains(&old) && !works(old)).then_some(())).unwrap();
    assert!(works(new));
    fails_and_is_told(&world, at, &daemon, &nobody);
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_reload_keeps_the_probes_and_a_mistake_changes_nothing() {
    let Some(_alone) = alone() else { return };
    let (world, nobody, routes) = world();
    let config = world.dir().join("agent.toml");
    fs::write(&config, "max-series = 100\n").unwrap();
    let daemon = Daemon::start(world.dir(), &["--config", config.to_str().unwrap()]).unwrap();
    let proxy = Proxy::start(Kind::Nginx, &world, &routes).unwrap();
    let before = programs(daemon.kid.pid());
    assert!(before.len() > 5, "{before:?}");
    let mut told = 0;
    for (text, says) in [
        ("max-series = 200\n", "reloaded; changed: max-series"),
        ("max-serie = 300\n", "did you mean `max-series`?"),
        ("max-series = 200\nhead-bytes = 100\n", "takes a restart: head-bytes"),
    ] {
        fs::write(&config, text).unwrap();
        daemon.kid.signal(libc::SIGHUP);
        let heard = || daemon.said().get(told..)?.contains(says).then_some(());
        until(PATIENCE, heard).unwrap_or_else(|| panic!("{says} is not in {}", daemon.said()));
        told = daemon.said().len();
        assert_eq!(programs(daemon.kid.pid()), before, "the probes stay attached");
        fails_and_is_told(&world, proxy.addr, &daemon, &nobody);
    }
}

#[test]
fn what_a_log_says_counts_also_where_the_agent_was_held_up() {
    let Some(_alone) = alone() else { return };
    let (world, _, [gone]) = world();
    let limited = Route { name: "limited".into(), special: Special::Limited, ..gone.clone() };
    let proxy = Proxy::start(Kind::Nginx, &world, &[gone, limited]).unwrap();
    let daemon = Daemon::start(world.dir(), &[]).unwrap();
    assert_eq!(ask(&world, proxy.addr, "/limited/x"), Answer::Status(502));
    daemon.kid.signal(libc::SIGSTOP);
    assert_eq!(ask(&world, proxy.addr, "/limited/x"), Answer::Status(503));
    // What comes later is told in the same breath: by then the time in which the line had to come is over.
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!(ask(&world, proxy.addr, "/gone/x"), Answer::Status(502));
    daemon.kid.signal(libc::SIGCONT);
    let told = || errors_of(&daemon, "503").first().cloned();
    let line = until(PATIENCE, told).unwrap_or_else(|| panic!("{}", daemon.metrics()));
    assert!(line.contains(r#"cause="proxy_limit""#), "{line}\n{}", daemon.said());
}

/// The samples of errors with this status.
fn errors_of(daemon: &Daemon, status: &str) -> Vec<String> {
    let status = format!(r#"status="{status}""#);
    let text = daemon.metrics();
    let lines = text.lines().filter(|l| l.starts_with("trace502_gateway_errors_total{") && l.contains(&status));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_second_agent_refuses_and_names_the_first() {
    let Some(_alone) = alone() else { return };
    let dir = TempDir::of("second").unwrap();
    let daemon = Daemon::start(dir.path(), &[]).unwrap();
    let name = format!("test-{}", daemon.addr.port());
    let again = Launch::new(agent::binary().unwrap()).args(["agent", "--instance", &name, "--listen", "off"]);
    let log = dir.path().join("again.log");
    let again = again.args(["--history", "off"]).log(&log).unwrap().start().unwrap();
    assert_eq!(again.wait(PATIENCE).unwrap().code(), Some(1));
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains(&format!("pid {}", daemon.kid.pid())), "{said}");
    assert!(get(daemon.addr, "/healthz").is_some(), "the first goes on");
}

/// A file system of two megabytes; it goes with this.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf) -> Disk {
        fs::create_dir_all(&at).unwrap();
        tool("mount", &["-t", "tmpfs", "-o", "size=2m,mode=700", "t502", at.to_str().unwrap()]).unwrap();
        Disk(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool("umount", &["--lazy", self.0.to_str().unwrap_or_default()]);
    }
}

fn history(file: &Path) -> usize {
    let mut command = std::process::Command::new(agent::binary().unwrap());
    let command = command.args(["history", "--since", "1h", "--json", "--history"]).arg(file);
    output(command).unwrap().lines().count()
}

#[test]
fn a_full_disk_is_told_survived_and_made_up_for_and_a_damaged_file_is_set_aside() {
    let Some(_alone) = alone() else { return };
    let (world, nobody, routes) = world();
    let disk = Disk::new(world.dir().join("disk"));
    let file = disk.0.join("history.db");
    fs::write(&file, "SQLite format 3\0 and then nonsense that is no database".repeat(100)).unwrap();
    let daemon = Daemon::start(&disk.0, &[]).unwrap();
    assert_eq!(daemon.history, file);
    let aside =
        || fs::read_dir(&disk.0).unwrap().flatten().any(|e| e.file_name().to_string_lossy().contains(".corrupt-"));
    until(PATIENCE, || aside().then_some(())).unwrap_or_else(|| panic!("{}", daemon.said()));
    assert!(daemon.said().contains("set aside"), "{}", daemon.said());

    let proxy = Proxy::start(Kind::Nginx, &world, &routes).unwrap();
    fails_and_is_told(&world, proxy.addr, &daemon, &nobody);
    daemon.until("trace502_history_incidents_total", |n| n == 1.0).unwrap();
    let ballast = disk.0.join("ballast");
    let mut filler = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
    let mut count = 1;
    // Its own file may have some room left.
    until(PATIENCE, || {
        fails_and_is_told(&world, proxy.addr, &daemon, &nobody);
        count += 1;
        (daemon.sample("trace502_history_degraded") == Some(1.0)).then_some(())
    })
    .unwrap();
    let page = exchange(daemon.addr, "/", "").unwrap().1;
    assert!(page.contains("full"), "{page}");
    assert!(get(daemon.addr, "/readyz").is_some(), "what it is there for goes on");
    drop(filler);
    fs::remove_file(&ballast).unwrap();
    daemon.until("trace502_history_degraded", |n| n == 0.0).unwrap();
    daemon.until("trace502_history_incidents_total", |n| n == f64::from(count)).unwrap();
    assert_eq!(history(&file), count as usize);
    daemon.kid.signal(libc::SIGTERM);
    assert!(daemon.kid.wait(PATIENCE).unwrap().success());
    assert_eq!(history(&file), count as usize, "the history is read without an agent, too");
}
