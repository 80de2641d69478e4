//! The lab cleans up after itself, also where it could not: what a killed run left is gone with the next one.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use trace502_tests::guard::{sweep, until};
use trace502_tests::world::root;

/// Whatever on this host carries this name: namespaces, folders, control groups, processes.
fn left(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let groups = mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let groups = groups.filter_map(|line| line.split(' ').nth(1));
    for folder in ["/run/netns", "/tmp"].into_iter().chain(groups) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let read = |file: &str| fs::read_to_string(entry.join(file)).unwrap_or_default();
        let ended = read("stat").rsplit(") ").next().is_none_or(|rest| rest.starts_with(['Z', 'X']));
        if !ended && (read("cgroup").contains(name) || read("cmdline").contains(name)) {
            found.push(format!("process {}: {}", entry.display(), read("cmdline")));
        }
    }
    found
}

#[test]
fn what_a_killed_run_left_is_swept_by_the_next() {
    if !root() {
        return;
    }
    // These have a service that is stopped, one in a memory limit, a supervisor's children, rules of nftables, and PHP-FPM;
    // and one takes seconds, so that the lab is not done yet.
    let faults = ["stopped", "oom-before", "crash-loop", "nft-drop-in", "fpm-children-busy", "node-keepalive"];
    let faults = faults.iter().flat_map(|fault| ["--fault", fault]);
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["--measure", "cells", "--no-agent", "--proxy", "nginx", "--proxy", "php-fpm"])
        .args(faults)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let name = format!("t502-{}", lab.id());
    // Read from until it is dead: a lab that finds nobody reading would end by itself.
    let mut said = BufReader::new(lab.stderr.take().unwrap()).lines();
    // All of it runs once the first cell is told, and stays so while it is looked at.
    let told = said.next();
    // SAFETY: this child is not waited for yet, its number is nobody else's.
    unsafe { libc::kill(lab.id() as i32, libc::SIGSTOP) };
    let before = left(&name);
    let ended = lab.try_wait().unwrap();
    lab.kill().unwrap();
    lab.wait().unwrap();
    drop(said);
    assert!(told.is_some_and(|line| line.is_ok()), "the lab told no cell");
    assert_eq!(ended, None, "the lab ended by itself");
    assert!(before.iter().any(|what| what.starts_with("/run/netns")), "the lab made nothing: {before:?}");
    assert!(before.contains(&format!("/tmp/{name}")), "{before:?}");
    assert!(before.iter().any(|what| what.starts_with("process ")), "{before:?}");
    sweep();
    let gone = until(Duration::from_secs(60), || left(&name).is_empty().then_some(()));
    assert!(gone.is_some(), "{:#?}", left(&name));
}
