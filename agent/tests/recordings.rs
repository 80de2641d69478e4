//! Golden recordings: what the engine makes of real proxies' faults, byte for byte, with no privileges.
//!
//! Each `.rec` was made by real proxies in the lab; its `.jsonl` is what the live run said. After a change of the
//! kernel side's records, or of what the engine asks or says: `cargo xtask lab -- --record agent/tests/recordings`.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Errors that are open at one time in these recordings.
const OPEN: usize = 3;
const AGAIN: &str = "make them again: cargo xtask lab -- --record agent/tests/recordings";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn replay(file: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trace502")).arg("replay").args(args).arg(file).output().unwrap()
}

fn recordings() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|ending| ending == "rec"));
    all.sort();
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_replay_says_what_was_said_live() {
    let all = recordings();
    let names: Vec<_> = all.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["apache", "caddy", "envoy", "haproxy", "nginx", "php-fpm"]);
    for file in all {
        let said = replay(&file, &["--json"]);
        let complaints = text(&said.stderr);
        assert!(said.status.success(), "{}: {complaints}{AGAIN}", file.display());
        assert!(!complaints.contains("asks other questions"), "{}: {complaints}{AGAIN}", file.display());
        let expected = fs::read_to_string(file.with_extension("jsonl")).unwrap();
        assert_eq!(text(&said.stdout), expected, "{}: {AGAIN}", file.display());
        assert!(expected.lines().count() >= 2);
        assert!(fs::metadata(&file).unwrap().len() < 64 * 1024, "{} is not small", file.display());
    }
}

#[test]
fn a_recording_comes_from_a_pipe_too() {
    let file = folder().join("nginx.rec");
    let mut child = Command::new(env!("CARGO_BIN_EXE_trace502"));
    let child = child.args(["replay", "--json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&file).unwrap()).unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success());
    assert_eq!(text(&said.stdout), fs::read_to_string(file.with_extension("jsonl")).unwrap());
    let odd = Command::new(env!("CARGO_BIN_EXE_trace502")).args(["record", "--json", "-o", "-"]).output().unwrap();
    assert_eq!(odd.status.code(), Some(2));
    assert!(odd.stdout.is_empty() && text(&odd.stderr).contains("standard output"), "{}", text(&odd.stderr));
}

#[test]
fn filters_and_counts_choose_among_the_recorded_errors() {
    let file = folder().join("nginx.rec");
    let expected = fs::read_to_string(file.with_extension("jsonl")).unwrap();
    let oom: String = expected
        .lines()
        .filter(|line| line.contains("\"cause\":\"upstream_oom_killed\""))
        .map(|l| format!("{l}\n"))
        .collect();
    assert!(!oom.is_empty());
    assert_eq!(text(&replay(&file, &["--json", "--cause", "upstream_oom_killed"]).stdout), oom);
    let first = format!("{}\n", expected.lines().next().unwrap());
    assert_eq!(text(&replay(&file, &["--json", "--count", "1"]).stdout), first);
    let plain = text(&replay(&file, &[]).stdout);
    assert!(plain.contains("cause     upstream_oom_killed, certain") && !plain.contains('\x1b'), "{plain}");
}

#[test]
fn a_cut_recording_is_used_up_to_the_cut_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for file in recordings() {
        let bytes = fs::read(&file).unwrap();
        let expected = fs::read_to_string(file.with_extension("jsonl")).unwrap();
        let mut most = 0;
        // The names of the kernel's reasons come first; then the steps, one after the other.
        for part in 1..=8 {
            let cut = dir.path().join("cut.rec");
            fs::write(&cut, &bytes[..bytes.len() - 1 - (bytes.len() / 2) * (8 - part) / 8]).unwrap();
            let said = replay(&cut, &["--json"]);
            let complaints = text(&said.stderr);
            assert!(said.status.success() && complaints.contains("is cut off at byte"), "{complaints}");
            // The errors that were still open at the cut may lack what came after it; those before them do not.
            let said = text(&said.stdout);
            let sure = said.lines().count().saturating_sub(OPEN);
            assert!(said.lines().zip(expected.lines()).take(sure).all(|(a, b)| a == b), "{said}\n{expected}");
            most = most.max(said.lines().count());
        }
        assert_eq!(most, expected.lines().count(), "{}", file.display());
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(folder().join("nginx.rec")).unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let said = replay(&file, &["--json"]);
        assert_eq!(said.status.code(), Some(1), "{name}");
        assert!(said.stdout.is_empty(), "{name}: it is checked before the first record is told");
        let complaint = text(&said.stderr);
        assert!(complaint.contains(name), "{complaint}");
        complaint
    };
    let middle = bytes.len() / 2;
    let says = refused("damaged.rec", &|bytes| bytes[middle] ^= 0x10);
    assert!(says.contains("damaged at byte"), "{says}");
    let says = refused("newer.rec", &|bytes| bytes[8] = 200);
    assert!(says.contains("format 200") && says.contains("newer trace502"), "{says}");
    let says = refused("kernel-side.rec", &|bytes| bytes[12] ^= 0x40);
    assert!(says.contains("replay it with the trace502 that recorded it"), "{says}");
    let says = refused("foreign.rec", &|bytes| bytes.splice(..8, *b"\x1b[2Jhaha").for_each(drop));
    assert!(says.contains("no recording of trace502") && !says.contains('\x1b'), "{says}");
    let says = refused("empty.rec", &|bytes| bytes.clear());
    assert!(says.contains("no recording of trace502"), "{says}");
    let missing = replay(&dir.path().join("missing.rec"), &[]);
    let says = text(&missing.stderr);
    assert!(missing.status.code() == Some(1) && says.matches("missing.rec").count() == 1, "{says}");
}
