use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::logs::Format;

struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        Self { _dir: dir, path }
    }

    fn source(&self) -> Source {
        Source { format: Format::Nginx, path: self.path.clone() }
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

fn line(connection: u64) -> String {
    format!(
        "2026/11/21 07:44:36 [error] 1#1: *{connection} connect() failed (111: Connection refused) while connecting to \
         upstream, client: ::1, server: s, request: \"GET / HTTP/1.1\", upstream: \"http://127.0.0.1:1/\", host: \"h\"\n"
    )
}

fn read(follower: &mut Follower) -> Vec<u64> {
    let mut seen = Vec::new();
    while follower.read(|followed| seen.extend(followed.error.connection)) {}
    seen
}

#[test]
fn only_what_is_written_from_now_on_counts() {
    let log = Log::new();
    log.append(&line(1));
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    assert!(read(&mut follower).is_empty());
    log.append(&(line(2) + &line(3)));
    assert_eq!(read(&mut follower), [2, 3]);
    let half = line(4);
    log.append(&half[..50]);
    assert!(read(&mut follower).is_empty());
    log.append(&half[50..]);
    assert_eq!(read(&mut follower), [4]);
}

#[test]
fn a_log_that_does_not_exist_yet_is_read_from_its_start() {
    let log = Log::new();
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    assert!(read(&mut follower).is_empty());
    log.append(&line(1));
    assert_eq!(read(&mut follower), [1]);
}

#[test]
fn rotation_loses_nothing() {
    let log = Log::new();
    log.append("");
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    fs::rename(&log.path, log.path.with_extension("1")).unwrap();
    // The proxy still writes to the old file until it is told to open the new one.
    let mut old = OpenOptions::new().append(true).open(log.path.with_extension("1")).unwrap();
    old.write_all(line(1).as_bytes()).unwrap();
    assert_eq!(read(&mut follower), [1]);
    old.write_all(line(2).as_bytes()).unwrap();
    log.append(&line(3));
    assert_eq!(read(&mut follower), [2, 3]);
    assert_eq!(follower.health().errors, 3);
}

#[test]
fn a_log_that_was_emptied_in_place_goes_on() {
    let log = Log::new();
    log.append(&line(1));
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    fs::write(&log.path, "").unwrap();
    assert!(read(&mut follower).is_empty());
    log.append(&line(2));
    assert_eq!(read(&mut follower), [2]);
    assert_eq!(follower.health().rotations, 1);
}

#[test]
fn an_endless_line_costs_bounded_memory_and_hides_nothing_after_it() {
    let log = Log::new();
    log.append("");
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    log.append(&"x".repeat(3 << 20));
    assert!(read(&mut follower).is_empty());
    assert!(follower.tails[0].line.len() <= LONGEST);
    log.append(&format!("\n{}", line(5)));
    assert_eq!(read(&mut follower), [5]);
    assert_eq!(follower.health().long, 1);
}

#[test]
fn a_pipe_is_refused_and_a_log_is_followed_once() {
    let log = Log::new();
    log.append("");
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    let link = log.path.with_extension("link");
    std::os::unix::fs::symlink(&log.path, &link).unwrap();
    follower.add(Source { path: link, ..log.source() }).unwrap();
    log.append(&line(1));
    assert_eq!(read(&mut follower), [1]);
    let refused = follower.add(Source { path: "/dev/null".into(), ..log.source() });
    assert!(matches!(refused, Err(LogsError::NoFile(_))));
}

#[test]
fn a_line_that_comes_wakes_whoever_waits() {
    let log = Log::new();
    log.append("");
    let mut follower = Follower::new();
    follower.add(log.source()).unwrap();
    assert!(follower.changes.is_some());
    log.append(&line(1));
    let mut seen = Vec::new();
    while seen.is_empty() {
        let fd = follower.changes().unwrap().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1);
        seen = read(&mut follower);
    }
    assert_eq!(seen, [1]);
}
