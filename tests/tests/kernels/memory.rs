//! Processes that the kernel kills for memory: who, in which group, with which limit.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use trace502::host::{Host as _, LiveHost};
use trace502::model::*;
use trace502_tests::cgroup::Unit;

use crate::processes::{exit_of, listening_child};
use crate::rig::*;

const LIMIT: u64 = 32 << 20;

/// The group's id is the number of its directory; 1 is the root's.
fn group_id(unit: &Unit) -> Option<u64> {
    let procs = unit.procs();
    let unified = procs.iter().find(|file| !file.starts_with("/sys/fs/cgroup/memory"))?;
    Some(std::fs::metadata(unified.parent()?).ok()?.ino())
}

fn move_into(unit: &Unit, pid: u32) {
    for file in unit.procs() {
        std::fs::write(file, pid.to_string()).unwrap();
    }
}

#[test]
fn an_oom_kill_is_told_with_its_task_group_limit_and_memory() {
    let mut rig = rig();
    let unit = Unit::limited("oom", LIMIT).expect("a memory controller");
    let mut child = listening_child(&mut rig);
    let pid = child.id();
    move_into(&unit, pid);
    let mut host = LiveHost::open(Box::new(|_| None)).unwrap();
    let before = host.memory(pid).expect("the child's memory group");
    assert_eq!((before.limit, before.kills), (Some(LIMIT), Some(0)), "{before:?}");
    assert!(before.usage.is_some_and(|usage| usage <= LIMIT));

    child.stdin.take().unwrap().write_all(b"eat\n").unwrap();
    let (victim, rss) = rig.wait("OOM kill", |seen| match &seen.fact {
        Fact::OomKill { victim, rss_bytes } if victim.pid == pid => Some((victim.clone(), *rss_bytes)),
        _ => None,
    });
    let status = exit_of(&mut rig, pid);
    assert!(matches!(status, ExitStatus::Signal { signal: libc::SIGKILL, .. }), "{status:?}");
    assert!(!victim.comm.is_empty());
    if let Some(group) = group_id(&unit) {
        assert_eq!(victim.cgroup, group);
    }
    let rss = rss.expect("the victim's memory");
    assert!((LIMIT / 2..LIMIT * 2).contains(&rss), "{rss}");
    let after = host.memory(pid).expect("the group is remembered");
    assert_eq!((after.cgroup, after.limit), (before.cgroup, Some(LIMIT)));
    child.wait().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_signal_tells_the_group_of_its_target_not_of_its_sender() {
    let mut rig = rig();
    let Some(unit) = Unit::new("target").unwrap() else {
        println!("skipped: no unified hierarchy is mounted here");
        return;
    };
    let mut child = listening_child(&mut rig);
    let pid = child.id();
    move_into(&unit, pid);
    child.kill().unwrap();
    child.wait().unwrap();
    let group = rig.wait("signal", |seen| match &seen.fact {
        Fact::Signal { target, .. } if target.pid == pid => Some(target.cgroup),
        _ => None,
    });
    assert_eq!(Some(group), group_id(&unit));
}
