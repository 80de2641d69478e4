//! /proc read and parsed: processes, their threads, their owners. No memory of what is gone, no judgement.
//!
//! Nothing read here is trusted: names hold newlines, parentheses and bytes that are no UTF-8, files vanish
//! between two reads, and every read is bounded.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::DescriptorFacts;
use super::clock::Clock;

/// Longest word of a command line, and longest name or path, that is kept.
const WORD: usize = 160;
const PATH: usize = 1024;
const WORDS: usize = 3;
const THREADS: usize = 64;
/// Flag of a task in the kernel.
const PF_EXITING: u64 = 4;
/// Descriptors looked at for logs: a proxy opens them before its connections.
const FILES: usize = 1024;
/// Descriptors counted one by one.
const COUNTED: usize = 1 << 20;

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub state: char,
    pub parent: u32,
    /// On its way out: memory, files and control group may be gone already, and are no longer its own.
    pub exiting: bool,
    pub cpu_ticks: u64,
    /// Since boot; tells a process from a later one with the same pid.
    pub start_ticks: u64,
}

impl Stat {
    /// A zombie has ended, although its pid is still taken.
    pub fn alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// In whose name a process opens files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub capabilities: u64,
}

pub struct Procfs {
    root: PathBuf,
    clock: Clock,
}

impl Procfs {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), clock: Clock::new() }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    pub fn read(&self, pid: u32, name: &str) -> Option<Vec<u8>> {
        read_some(&self.file(pid, name), 64 * 1024)
    }

    pub fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&self.read(pid, "stat")?)
    }

    pub fn identity(&self, pid: u32) -> Option<Identity> {
        Some(parse_status(&self.read(pid, "status")?))
    }

    /// Its number in its own process namespace.
    pub fn innermost(&self, pid: u32) -> Option<u32> {
        parse_innermost(&self.read(pid, "status")?)
    }

    pub fn exe(&self, pid: u32) -> Option<String> {
        let path = fs::read_link(self.file(pid, "exe")).ok()?;
        Some(text(path.as_os_str().as_bytes(), PATH))
    }

    pub fn cmdline(&self, pid: u32) -> Vec<String> {
        read_some(&self.file(pid, "cmdline"), 4096).map(|bytes| parse_cmdline(&bytes)).unwrap_or_default()
    }

    /// Inode of a namespace of a process, such as `net`.
    pub fn namespace(&self, pid: u32, kind: &str) -> Option<u32> {
        let inode = fs::metadata(self.file(pid, "ns").join(kind)).ok()?.ino();
        u32::try_from(inode).ok()
    }

    /// State letters of its threads, main thread first.
    pub fn thread_states(&self, pid: u32) -> String {
        let mut states: String = self.stat(pid).map(|stat| stat.state).into_iter().collect();
        let Ok(threads) = fs::read_dir(self.file(pid, "task")) else { return states };
        for tid in threads.flatten().filter_map(|entry| number(&entry.file_name())).filter(|tid| *tid != pid) {
            if states.len() >= THREADS {
                break;
            }
            let stat = read_some(&self.file(pid, "task").join(tid.to_string()).join("stat"), 4096);
            states.extend(stat.and_then(|bytes| parse_stat(&bytes)).map(|stat| stat.state));
        }
        states
    }

    /// Nanoseconds that those of its threads which can run now were on a CPU, by thread.
    pub fn running(&self, pid: u32) -> Vec<(u32, u64)> {
        let Ok(threads) = fs::read_dir(self.file(pid, "task")) else { return Vec::new() };
        let of = |tid: u32| {
            let dir = self.file(pid, "task").join(tid.to_string());
            let stat = parse_stat(&read_some(&dir.join("stat"), 4096)?).filter(|stat| stat.state == 'R');
            let used = read_some(&dir.join("schedstat"), 256).filter(|_| stat.is_some())?;
            Some((tid, std::str::from_utf8(&used).ok()?.split_whitespace().next()?.parse().ok()?))
        };
        threads.flatten().filter_map(|entry| of(number(&entry.file_name())?)).take(THREADS).collect()
    }

    /// Kernel function the main thread waits in.
    pub fn waits_in(&self, pid: u32) -> Option<String> {
        let name = text(&self.read(pid, "wchan")?, WORD);
        (!name.is_empty() && name != "0").then_some(name)
    }

    /// Every process, the newest pids first.
    pub fn pids(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| number(&entry.file_name())).collect();
        pids.sort_unstable_by(|a, b| b.cmp(a));
        pids
    }

    /// How many descriptors a process has open, and how many it may have.
    pub fn descriptors(&self, pid: u32) -> Option<DescriptorFacts> {
        let limit = open_files(&self.read(pid, "limits")?)?;
        let folder = self.file(pid, "fd");
        // Linux 6.2 tells the number as the folder's size; before, they are counted.
        let open = match fs::metadata(&folder).ok()?.size() {
            0 => fs::read_dir(&folder).ok()?.take(COUNTED).count() as u64,
            told => told,
        };
        Some(DescriptorFacts { open, limit })
    }

    /// Inodes of the sockets a process has open, as far as `most` descriptors go.
    pub fn sockets(&self, pid: u32, most: usize) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.file(pid, "fd")) else { return Vec::new() };
        let links = entries.flatten().take(most).filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter_map(|target| socket_inode(target.as_os_str().as_bytes())).collect()
    }

    /// Regular files that a process has open to append to, as paths that lead there from outside.
    pub fn appended(&self, pid: u32) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.file(pid, "fd")) else { return Vec::new() };
        let same_files = self.namespace(pid, "mnt") == self.namespace(std::process::id(), "mnt");
        let mut found = Vec::new();
        for entry in entries.flatten().take(FILES) {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let gone = target.as_os_str().as_bytes().ends_with(b" (deleted)");
            if gone || !target.is_absolute() || found.contains(&target) {
                continue;
            }
            let Some(number) = number(&entry.file_name()) else { continue };
            let info = read_some(&self.file(pid, "fdinfo").join(number.to_string()), 4096).unwrap_or_default();
            if appends(&info) && fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                found.push(target);
            }
        }
        if same_files {
            return found;
        }
        let root = self.file(pid, "root");
        found.iter().filter_map(|path| path.strip_prefix("/").ok()).map(|path| root.join(path)).collect()
    }
}

/// A file's first bytes. Files of /proc say nothing of their size beforehand.
pub fn read_some(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Text of unknown origin: bounded, valid, unescaped.
pub fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

fn socket_inode(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The `flags:` line of an fdinfo: octal.
fn appends(fdinfo: &[u8]) -> bool {
    let text = String::from_utf8_lossy(fdinfo);
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// The soft limit in `Max open files   1024   4096   files`.
fn open_files(limits: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(limits);
    let soft = text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// `pid (name) state parent ...`: the name may hold anything, so it ends at the last parenthesis.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = text(bytes.get(open + 1..close)?, WORD);
    let rest = std::str::from_utf8(&bytes[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from 1; the state is field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = |number| field(number).and_then(|word| word.parse::<u64>().ok());
    Some(Stat {
        name,
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        exiting: ticks(9)? & PF_EXITING != 0,
        cpu_ticks: ticks(14)?.saturating_add(ticks(15)?),
        start_ticks: ticks(22)?,
    })
}

/// The ids that file access is judged by: the fourth of the `Uid:` and `Gid:` lines.
pub fn parse_status(bytes: &[u8]) -> Identity {
    let mut identity = Identity::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let Some((key, value)) = line.split_once(':') else { continue };
        let numbers = || value.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok());
        match key {
            "Uid" => identity.uid = numbers().nth(3).unwrap_or_default(),
            "Gid" => identity.gid = numbers().nth(3).unwrap_or_default(),
            "Groups" => identity.groups = numbers().take(4096).collect(),
            "CapEff" => identity.capabilities = u64::from_str_radix(value.trim(), 16).unwrap_or_default(),
            _ => {}
        }
    }
    identity
}

/// The last number of the `NSpid:` line.
fn parse_innermost(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// The first words, without what looks like a secret and without the padding of a process that renamed itself.
pub fn parse_cmdline(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.trim_ascii().is_empty()).take(WORDS);
    words.map(|word| conceal(text(word.trim_ascii_end(), WORD))).collect()
}

fn conceal(word: String) -> String {
    let Some((key, _)) = word.split_once('=') else { return word };
    let lower = key.to_ascii_lowercase();
    let secret = ["pass", "secret", "token", "key", "credential"].iter().any(|hint| lower.contains(hint));
    if secret { format!("{key}=***") } else { word }
}

/// A child that sleeps. A spawned child has its own memory before the kernel shows its command line: wait for that.
#[cfg(test)]
pub fn sleeper(program: &std::ffi::OsStr, seconds: &str) -> std::process::Child {
    let child = std::process::Command::new(program).arg(seconds).spawn().unwrap();
    while Procfs::new("/proc").cmdline(child.id()).last().is_none_or(|word| word != seconds) {
        std::thread::yield_now();
    }
    child
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "812 (uvicorn) S 1 812 812 0 -1 4194560 5 0 0 0 120 30 0 0 20 0 4 0 98765 1 2 18446744073709551615";

    #[test]
    fn stat_is_read_field_by_field() {
        let stat = parse_stat(STAT.as_bytes()).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("uvicorn", 'S', 1));
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (150, 98765));
        assert!(stat.alive());
    }

    #[test]
    fn a_name_may_hold_parentheses_newlines_and_bytes_that_are_no_text() {
        let nasty = STAT.as_bytes().splitn(2, |b| *b == b')').nth(1).unwrap();
        let mut bytes = b"7 (a) R 0 (b\n\xff) Z".to_vec();
        bytes.extend_from_slice(b") ");
        bytes.extend_from_slice(nasty.trim_ascii_start());
        let stat = parse_stat(&bytes).unwrap();
        assert_eq!(stat.name, "a) R 0 (b\n\u{fffd}) Z");
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 1, 98765));
    }

    #[test]
    fn a_cut_or_foreign_stat_says_nothing() {
        for cut in 0..STAT.len() - 25 {
            if let Some(stat) = parse_stat(&STAT.as_bytes()[..cut]) {
                assert_eq!(stat.name, "uvicorn", "cut at {cut}");
            }
        }
        for junk in [&b""[..], b")(", b"()", b"1 (x) S", b"\xff\xfe", b"1 (x) S -1 a b c"] {
            assert_eq!(parse_stat(junk), None);
        }
    }

    #[test]
    fn status_gives_the_ids_that_file_access_is_judged_by() {
        let status = b"Name:\tnginx\nUid:\t0\t33\t0\t33\nGid:\t0\t33\t0\t34\nGroups:\t4 33 \xff\nGroups:\t4 33 \nCapEff:\t0000000000000002\n";
        let identity = parse_status(status);
        assert_eq!((identity.uid, identity.gid, identity.capabilities), (33, 34, 2));
        assert_eq!(identity.groups, [4, 33]);
        assert_eq!(parse_status(b"Uid:\nGid: x\nCapEff: zz\n:::"), Identity::default());
    }

    #[test]
    fn command_lines_are_short_and_hold_no_secret() {
        assert_eq!(parse_cmdline(b"python3\0-m\0uvicorn\0app:app\0"), ["python3", "-m", "uvicorn"]);
        assert_eq!(parse_cmdline(b"nginx: worker process\0\0\0  \0"), ["nginx: worker process"]);
        assert_eq!(parse_cmdline(b"d\0--db-password=hunter2\0a=b"), ["d", "--db-password=***", "a=b"]);
        assert_eq!(parse_cmdline(&[0; 4096]), Vec::<String>::new());
        assert_eq!(parse_cmdline(&[b'x'; 4096])[0].len(), WORD);
    }

    #[test]
    fn this_process_is_described() {
        let proc = Procfs::new("/proc");
        let pid = std::process::id();
        let stat = proc.stat(pid).unwrap();
        assert!(stat.alive());
        assert!(proc.exe(pid).unwrap().contains("trace502"));
        assert!(!proc.thread_states(pid).is_empty());
        assert!(proc.pids().contains(&pid));
        assert!(proc.namespace(pid, "net").is_some());
        assert!(proc.stat(u32::MAX).is_none());
    }

    #[test]
    fn a_socket_is_found_among_the_open_files() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).unwrap();
        let inode = socket_inode(link.as_os_str().as_bytes()).unwrap();
        assert!(Procfs::new("/proc").sockets(std::process::id(), 1024).contains(&inode));
        assert_eq!(socket_inode(b"pipe:[12]"), None);
        assert_eq!(socket_inode(b"socket:[99999999999999]"), None);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        assert_eq!(
            open_files(b"Max processes 1 2 processes\nMax open files            1024   4096   files\n"),
            Some(1024)
        );
        assert_eq!(open_files(b"Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files(b"Max open files\n"), None);
    }

    #[test]
    fn the_innermost_number_is_the_last() {
        assert_eq!(parse_innermost(b"Name:\tx\nNSpid:\t4711\t29\nCpus:\t1\n"), Some(29));
        assert_eq!(parse_innermost(b"Name:\tx\n"), None);
        assert_eq!(Procfs::new("/proc").innermost(std::process::id()), Some(std::process::id()));
    }

    #[test]
    fn logs_are_the_files_that_are_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, append: bool| {
            fs::OpenOptions::new().append(append).write(true).create(true).open(dir.path().join(name)).unwrap()
        };
        let files = (open("error.log", true), open("data", false), open("gone.log", true));
        fs::remove_file(dir.path().join("gone.log")).unwrap();
        let proc = Procfs::new("/proc");
        let mut found = proc.appended(std::process::id());
        found.retain(|path| path.starts_with(dir.path()));
        assert_eq!(found, [dir.path().join("error.log")]);
        drop(files);
        assert!(proc.appended(u32::MAX).is_empty());
        assert!(!appends(b"") && !appends(b"flags:\t9x\n") && appends(b"pos:\t0\nflags:\t0102001\n"));
    }
}
