//! Proxies that are known by their cgroup: who is in it already, who is born or becomes somebody in it, who moves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trace502::logs;
use trace502::watch::{Choice, Stop, Wanted, Watch, WatchError};
use trace502_tests::cgroup::mounted;

use crate::rig::*;

/// Under this name a process runs on that was a shell before.
const NAME: &str = "t502-inside";

/// A cgroup of version 2 and its children, which end with it.
struct Group {
    dir: PathBuf,
    program: PathBuf,
    children: Vec<Child>,
}

impl Group {
    /// `None` where no such hierarchy is mounted.
    fn new(name: &str) -> Option<Group> {
        let dir = mounted(None)?.join(format!("t502-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Some(Group::at(dir))
    }

    fn at(dir: PathBuf) -> Group {
        let program = std::env::temp_dir().join(dir.file_name().unwrap()).join(NAME);
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        // A script runs under its own name, and has no library that would be looked into.
        std::fs::write(&program, "#!/bin/sh\nsleep 3600 & wait\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        Group { dir, program, children: Vec::new() }
    }

    fn path(&self) -> String {
        format!("cgroup:/{}", self.dir.file_name().unwrap().to_str().unwrap())
    }

    /// Runs a script that is handed the group's file of processes.
    fn run(&mut self, script: &str, below: &str) -> u32 {
        let dir = self.dir.join(below);
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(dir.join("cgroup.procs")).arg(&self.program);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.children.push(child);
        self.children.last().unwrap().id()
    }

    fn take(&self, pid: u32) {
        put(&self.dir, pid);
    }

    /// Ends everybody in it, and the group.
    fn end(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let below = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut dirs: Vec<PathBuf> = below.filter(|path| path.is_dir()).collect();
        dirs.push(self.dir.clone());
        let deadline = Instant::now() + PATIENCE;
        for dir in dirs {
            // Children of the scripts end a moment after them.
            while dir.exists() && std::fs::remove_dir(&dir).is_err() && Instant::now() < deadline {
                for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                    // SAFETY: plain numbers; only children of ours are in a group that we made.
                    unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(self.program.parent().unwrap());
    }
}

fn put(dir: &Path, pid: u32) {
    std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
}

/// Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

struct Scene {
    watch: Watch,
    stop: Stop,
}

impl Scene {
    fn new(word: &str) -> Scene {
        let logs = logs::Wanted { find: false, ..logs::Wanted::default() };
        let choice = Choice { proxies: Wanted::new([word]).unwrap(), logs, ..Choice::default() };
        let watch = Watch::start(&choice, |_| Ok::<_, WatchError>(None)).unwrap();
        Scene { watch, stop: Stop::new().unwrap().0 }
    }

    fn has(&self, pid: u32) -> bool {
        self.watch.proxies().contains_key(&pid)
    }

    fn named(&self, pid: u32, name: &str) -> bool {
        self.watch.proxies().get(&pid).is_some_and(|known| known == name)
    }

    fn until(&mut self, what: &str, done: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "no {what}: {:?}", self.watch.proxies());
            self.watch.step(&self.stop, &mut Vec::new());
        }
    }
}

/// Longer than a slow guest takes to load the probes: they are killed in the end.
const WAITS: &str = "exec sleep 3600";
const STAYS: &str = "echo $$ > $1; exec \"$2\"";
/// Its child stays what it was born as.
const FORKS: &str = "echo $$ > $1; (sleep 3600; :) & wait";

#[test]
fn everybody_in_a_cgroup_is_a_proxy() {
    let _rig = rig();
    let Some(mut group) = Group::new("all") else { return eprintln!("not looked at: no cgroup of version 2") };
    let there = group.run(STAYS, "below");
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(group.dir.join("below/cgroup.procs")).unwrap().contains(&there.to_string()) {
        assert!(Instant::now() < deadline);
    }
    let mut scene = Scene::new(&group.path());
    assert!(scene.has(there), "it was there before the watch, in a group below");
    let moved = group.run(WAITS, "");
    group.take(moved);
    scene.until("process that moved into the group", |scene| scene.has(moved));
    let forking = group.run(FORKS, "below");
    scene.until("child of a process in the group", |scene| {
        let child = |pid: &u32| parent(*pid) == Some(forking);
        scene.has(forking) && scene.watch.proxies().keys().any(child)
    });
    put(group.dir.parent().unwrap(), moved);
    scene.until("end of what moved away", |scene| !scene.has(moved));
    assert!(scene.has(there));
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_cgroup_that_is_made_again_is_the_same_and_its_namesake_is_not() {
    let _rig = rig();
    let Some(mut group) = Group::new("again") else { return eprintln!("not looked at: no cgroup of version 2") };
    let word = group.path();
    group.end();
    let mut scene = Scene::new(&word);
    for _ in 0..2 {
        // As when a service starts again: the group is a new one.
        std::fs::create_dir(&group.dir).unwrap();
        let namesake = PathBuf::from(format!("{}-2", group.dir.display()));
        let mut namesake = Group::at(namesake);
        let other = namesake.run(STAYS, "");
        let inside = group.run(STAYS, "");
        // It moved there as a shell.
        scene.until("process of the new group", |scene| scene.named(inside, NAME));
        assert!(!scene.has(other), "another group whose name begins like this one's");
        namesake.end();
        group.end();
        scene.until("end of it", |scene| !scene.has(inside));
    }
}

#[test]
fn a_group_of_version_1_with_the_same_path_is_another() {
    let _rig = rig();
    let (Some(v1), Some(mut group)) = (mounted(Some("pids")), Group::new("old")) else {
        return eprintln!("not looked at: the hierarchies of both versions are not mounted here");
    };
    let word = group.path();
    group.end();
    let mut scene = Scene::new(&word);
    std::fs::create_dir(&group.dir).unwrap();
    // Made later, it must not take the other's place.
    let mut old = Group::at(v1.join(group.dir.file_name().unwrap()));
    let other = old.run(STAYS, "");
    let inside = group.run(STAYS, "");
    scene.until("process of the group", |scene| scene.has(inside));
    assert!(!scene.has(other));
    old.end();
}
