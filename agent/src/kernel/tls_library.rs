//! Which files of a proxy hold its TLS library: a shared OpenSSL, or one that is linked into the executable and kept
//! its symbols, or is a BoringSSL that is known without them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use serde::Serialize;
use trace502_ebpf::{TLS_SHAKES, TLS_WRITES};

use super::boring_calls;
use super::inside::Link;
use super::inside::root_path;
use super::opened::Identity;
use super::tls_calls::{self, Call, Doing};

/// The programs at the return of each kind of call, and those at its beginning: a call that is seen to begin is seen to
/// end.
const PROGRAMS: [(&str, &[Doing]); 10] = [
    ("tls_shook", &[Doing::Handshake]),
    ("tls_read", &[Doing::Read]),
    ("tls_wrote", &[Doing::Write]),
    ("tls_called", &[Doing::Handshake, Doing::Read, Doing::Write]),
    ("tls_parts", &[Doing::Part]),
    ("tls_verified", &[Doing::Verified]),
    ("tls_told", &[Doing::Asked]),
    ("tls_named", &[Doing::Named]),
    ("tls_asked", &[Doing::Asked]),
    ("tls_error", &[Doing::Error]),
];

/// Each program with the places where it stands and what it is told there.
pub fn places(calls: &[Call]) -> Vec<(&'static str, Vec<(u64, u64)>)> {
    let of = |doings: &[Doing]| {
        let wanted = calls.iter().filter(|call| doings.contains(&call.doing));
        wanted.map(|call| (call.at, call.answers | told(call.doing))).collect::<Vec<_>>()
    };
    let programs = PROGRAMS.iter().map(|(program, doings)| (*program, of(doings)));
    programs.filter(|(_, places)| !places.is_empty()).collect()
}

/// What a program is told of the call, beside how it answers.
fn told(doing: Doing) -> u64 {
    match doing {
        Doing::Handshake => TLS_SHAKES,
        Doing::Write => TLS_WRITES,
        _ => 0,
    }
}

/// Hooks in one process.
pub struct Attached {
    pub pid: u32,
    /// The library, as the process calls it.
    pub name: String,
    pub links: Vec<Link>,
}

/// What can be seen of the TLS of one proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Visible {
    /// The file whose calls are hooked.
    Hooked(String),
    /// No TLS library that could be hooked is mapped.
    None,
    /// There is one, and it was refused.
    Refused(String),
}

/// A TLS library as one process has it mapped.
#[derive(Debug)]
pub struct Library {
    /// As the process calls it.
    pub name: String,
    /// The one that was looked into.
    pub file: File,
    pub calls: Arc<[Call]>,
    /// Calls that tell why a handshake failed. A library may have these alone.
    pub reasons: Arc<[Call]>,
}

impl Library {
    /// Whether what is said inside TLS can be read in it.
    pub fn reads(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// The calls of a file, and those that tell reasons.
type Found = (Arc<[Call]>, Arc<[Call]>);

/// Calls by file: the workers of a proxy share their libraries.
#[derive(Default)]
pub struct Libraries {
    known: HashMap<Identity, Found>,
}

/// More files than any host's proxies have; the memory is only to spare work.
const KNOWN: usize = 256;

impl Libraries {
    /// The TLS libraries of a process.
    pub fn of(&mut self, pid: u32) -> Vec<Library> {
        let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return Vec::new() };
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let exe = exe.to_string_lossy();
        let exe = exe.trim_end_matches(" (deleted)");
        let mut found = Vec::new();
        for (name, mapped) in candidates(&maps, exe) {
            let Some(file) = open(pid, name, &mapped) else { continue };
            let Ok(identity) = Identity::of(&file) else { continue };
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            let (calls, reasons) = self.known.entry(identity).or_insert_with(|| look(&file, name == exe)).clone();
            if !calls.is_empty() || !reasons.is_empty() {
                found.push(Library { name: name.to_owned(), calls, reasons, file });
            }
        }
        found
    }
}

/// Looks into a file by its symbols; into an executable without them by what is left.
fn look(file: &File, executable: bool) -> Found {
    let (calls, reasons) = match tls_calls::of(file) {
        None if executable => boring_calls::of(file),
        calls => Some((calls.unwrap_or_default(), tls_calls::reasons(file))),
    }
    .unwrap_or_default();
    (calls.into(), reasons.into())
}

/// Where a file is mapped, and its inode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    range: String,
    inode: u64,
}

/// Mapped files that may hold a TLS library, each once.
fn candidates<'a>(maps: &'a str, exe: &str) -> BTreeMap<&'a str, Mapped> {
    let mut found = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(inode)) = (words.next(), words.nth(3)) else { continue };
        let Some(start) = line.find('/') else { continue };
        let name = line[start..].trim_end().trim_end_matches(" (deleted)");
        let file = name.rsplit('/').next().unwrap_or_default();
        let library = ["libssl.so", "libssl-", "libcrypto.so", "libcrypto-"].iter().any(|it| file.starts_with(it));
        if library || name == exe {
            let inode = inode.parse().unwrap_or(0);
            found.entry(name).or_insert_with(|| Mapped { range: range.to_owned(), inode });
        }
    }
    found
}

/// Opens a mapped file: by its path as long as that is the same file, else by its mapping (an upgrade replaced it).
fn open(pid: u32, name: &str, mapped: &Mapped) -> Option<File> {
    if let Ok(file) = File::open(root_path(pid, name))
        && file.metadata().is_ok_and(|meta| meta.ino() == mapped.inode)
    {
        return Some(file);
    }
    File::open(format!("/proc/{pid}/map_files/{}", mapped.range)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_libraries_and_the_executable_are_candidates() {
        let maps = "5500-5600 r-xp 00000000 08:01 11                 /usr/sbin/nginx\n\
                    7f00-7f01 r--p 00000000 08:01 12                 /usr/lib/x86_64-linux-gnu/libssl.so.3\n\
                    7f01-7f02 r-xp 00001000 08:01 12                 /usr/lib/x86_64-linux-gnu/libssl.so.3\n\
                    7f03-7f04 r-xp 00000000 08:01 13                 /opt/old lib/libssl.so.1.1 (deleted)\n\
                    7f05-7f06 r-xp 00000000 08:01 14                 /usr/lib/libcap.so.2\n\
                    7f07-7f08 rw-p 00000000 00:00 0 \n";
        let found = candidates(maps, "/usr/sbin/nginx");
        let names: Vec<_> = found.keys().copied().collect();
        assert_eq!(names, ["/opt/old lib/libssl.so.1.1", "/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/sbin/nginx"]);
        assert_eq!(found["/usr/lib/x86_64-linux-gnu/libssl.so.3"], Mapped { range: "7f00-7f01".into(), inode: 12 });
    }

    #[test]
    fn a_process_has_one_list_of_places_for_each_program_however_many_calls_there_are() {
        let call = |doing, at, answers| Call { doing, at, answers };
        let calls = [
            call(Doing::Handshake, 1, 0),
            call(Doing::Read, 2, 0),
            call(Doing::Read, 3, 5),
            call(Doing::Write, 4, 0),
            call(Doing::Write, 5, 5),
        ];
        let places = places(&calls);
        let programs: Vec<_> = places.iter().map(|(program, _)| *program).collect();
        assert_eq!(programs, ["tls_shook", "tls_read", "tls_wrote", "tls_called"]);
        assert_eq!(places[1].1, [(2, 0), (3, 5)]);
        assert_eq!(places[3].1.len(), calls.len());
    }
}
