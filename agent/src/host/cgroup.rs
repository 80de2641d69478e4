//! Control groups: which unit and container a process is in, and what its memory and CPU groups say.
//! Version 1, version 2 and both at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::MemoryFacts;
use super::proc::read_some;

/// A limit above this is how version 1 writes "none": the largest page count.
const NO_LIMIT: u64 = 1 << 62;
/// Groups nest a few levels; more is a loop or a joke.
const DEPTH: usize = 32;

/// `/proc/PID/cgroup`: the group of a process in each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// By version 1 controller, and `name=systemd`.
    by_controller: HashMap<String, String>,
    unified: Option<String>,
}

impl Groups {
    pub fn parse(bytes: &[u8]) -> Self {
        let mut groups = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            // A group that was removed while a process was in it.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            if controllers.is_empty() {
                groups.unified = Some(path.to_owned());
            } else {
                groups.by_controller.extend(controllers.split(',').map(|name| (name.to_owned(), path.to_owned())));
            }
        }
        groups
    }

    /// The group that names its unit or container best.
    pub fn path(&self) -> Option<&str> {
        let told = |path: &&String| path.as_str() != "/";
        let systemd = self.by_controller.get("name=systemd").filter(told);
        let unified = || self.unified.as_ref().filter(told);
        let memory = || self.by_controller.get("memory").filter(told);
        systemd.or_else(unified).or_else(memory).map(String::as_str)
    }

    /// Directories whose `cgroup.procs` hold the processes of the same unit or container.
    pub fn directories(&self, mounts: &Mounts) -> Vec<PathBuf> {
        let of = |controller: &str| self.in_controller(controller, mounts).map(|(_, dir)| dir);
        let told = |path: &PathBuf| path.exists();
        [of("name=systemd"), self.in_unified(mounts).map(|(_, dir)| dir), of("memory")]
            .into_iter()
            .flatten()
            .filter(told)
            .collect()
    }

    fn in_controller(&self, name: &str, mounts: &Mounts) -> Option<(PathBuf, PathBuf)> {
        mounts.by_controller.get(name)?.join(self.by_controller.get(name)?)
    }

    fn in_unified(&self, mounts: &Mounts) -> Option<(PathBuf, PathBuf)> {
        mounts.unified.as_ref()?.join(self.unified.as_ref()?)
    }
}

/// The innermost systemd unit on the way, unless that is only the wrapper of a container.
pub fn unit(path: &str) -> Option<String> {
    let parts = path.split('/').rev();
    parts
        .filter(|part| part.ends_with(".service") || part.ends_with(".scope"))
        .find(|part| id_in(part).is_none() && !part.starts_with("machine-") && !part.contains("conmon"))
        .map(str::to_owned)
}

/// The first twelve digits of the id of the container that a group belongs to; for systemd-nspawn and LXC its name.
pub fn container(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    // The process that watches a container has a group named after it.
    if parts.iter().any(|part| part.contains("conmon")) {
        return None;
    }
    if let Some(id) = container_id(path) {
        return Some(id[..12].to_owned());
    }
    parts.iter().enumerate().find_map(|(at, part)| {
        let machine = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
        let machine = machine.filter(|name| !name.starts_with("qemu"));
        let nspawn = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"));
        let lxc = part.strip_prefix("lxc.payload.");
        let old_lxc = (*part == "lxc").then(|| parts.get(at + 1).copied()).flatten();
        machine.or(nspawn).or(lxc).or(old_lxc).filter(|name| !name.is_empty()).map(|name| name.replace("\\x2d", "-"))
    })
}

/// The whole id of the innermost container.
pub fn container_id(path: &str) -> Option<&str> {
    path.split('/').rev().find_map(id_in)
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, `…:cri-containerd:ID`, or the id alone.
fn id_in(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    by_controller: HashMap<String, Mount>,
    unified: Option<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The group that is mounted: `/`, or the agent's own one in a container.
    root: String,
    at: PathBuf,
}

impl Mount {
    /// The mount point and the directory of a group below it.
    fn join(&self, group: &str) -> Option<(PathBuf, PathBuf)> {
        let below = if self.root == "/" { Some(group) } else { group.strip_prefix(self.root.as_str()) };
        let below = below?.trim_start_matches('/');
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        Some((self.at.clone(), self.at.join(below)))
    }
}

impl Mounts {
    /// Where the hierarchy of version 2 is mounted.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_ref().map(|mount| mount.at.as_path())
    }

    pub fn read(procfs: &Path) -> Self {
        read_some(&procfs.join("self/mountinfo"), 4 << 20).map(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    pub fn parse(mountinfo: &[u8]) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let place: Vec<&str> = place.split(' ').collect();
            let kind: Vec<&str> = kind.split(' ').collect();
            let (Some(root), Some(at), Some(filesystem)) = (place.get(3), place.get(4), kind.first()) else { continue };
            let mount = Mount { root: unescape(root), at: unescape(at).into() };
            match *filesystem {
                "cgroup2" if mounts.unified.is_none() => mounts.unified = Some(mount),
                "cgroup" => {
                    let options = kind.get(2).map(|options| options.split(',')).into_iter().flatten();
                    for option in options {
                        mounts.by_controller.entry(option.to_owned()).or_insert_with(|| mount.clone());
                    }
                }
                _ => {}
            }
        }
        mounts
    }
}

/// mountinfo writes a space as `\040`, and so on.
fn unescape(word: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(word.to_owned(), |word, (code, plain)| word.replace(code, plain))
}

/// The smallest memory limit on the way up, with the group that sets it.
pub fn memory(groups: &Groups, mounts: &Mounts) -> Option<MemoryFacts> {
    let (top, own, files) = match groups.in_controller("memory", mounts) {
        Some((top, own)) => (top, own, &VERSION_1),
        None => {
            let (top, own) = groups.in_unified(mounts)?;
            (top, own, &VERSION_2)
        }
    };
    if !own.exists() {
        return None;
    }
    let limit_of = |dir: &Path| number_in(&dir.join(files.limit)).filter(|limit| *limit < NO_LIMIT);
    let mut tightest: Option<(u64, PathBuf)> = None;
    for dir in upwards(&own, &top) {
        if let Some(limit) = limit_of(dir).filter(|limit| tightest.as_ref().is_none_or(|(least, _)| limit < least)) {
            tightest = Some((limit, dir.to_owned()));
        }
    }
    let (limit, dir) = match tightest {
        Some((limit, dir)) => (Some(limit), dir),
        None => (None, own.clone()),
    };
    let kills_of = |dir: &Path| keyed(&dir.join(files.events), "oom_kill");
    // Version 1 counts a kill only in the victim's own group.
    let kills = match (kills_of(&dir), files.hierarchical || dir == own) {
        (kills, true) => kills,
        (kills, false) => kills_of(&own).map(|own| own.saturating_add(kills.unwrap_or(0))).or(kills),
    };
    let name = dir.strip_prefix(&top).ok()?.to_string_lossy().into_owned();
    Some(MemoryFacts { cgroup: format!("/{name}"), limit, usage: number_in(&dir.join(files.usage)), kills })
}

struct MemoryFiles {
    limit: &'static str,
    usage: &'static str,
    events: &'static str,
    hierarchical: bool,
}

const VERSION_1: MemoryFiles = MemoryFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    events: "memory.oom_control",
    hierarchical: false,
};

const VERSION_2: MemoryFiles =
    MemoryFiles { limit: "memory.max", usage: "memory.current", events: "memory.events", hierarchical: true };

/// Times the CPU group of a process, or one above it, was throttled.
pub fn throttled(groups: &Groups, mounts: &Mounts) -> Option<u64> {
    let (top, own) = groups.in_controller("cpu", mounts).or_else(|| groups.in_unified(mounts))?;
    upwards(&own, &top)
        .filter_map(|dir| keyed(&dir.join("cpu.stat"), "nr_throttled"))
        .reduce(|sum, count| sum.saturating_add(count))
}

/// Whether a process is frozen with its group, or with one above it: a container that is paused.
pub fn frozen(groups: &Groups, mounts: &Mounts) -> bool {
    let second = groups.in_unified(mounts).and_then(|(_, own)| keyed(&own.join("cgroup.events"), "frozen"));
    let first = || {
        let (_, own) = groups.in_controller("freezer", mounts)?;
        read_some(&own.join("freezer.state"), 64)
    };
    second == Some(1) || first().is_some_and(|state| state.trim_ascii() == b"FROZEN")
}

/// Processes in a group and the groups below it, as far as `most` go.
pub fn members(dir: &Path, most: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut dirs = vec![(dir.to_owned(), 0)];
    let mut seen = 0;
    while let Some((dir, depth)) = dirs.pop() {
        let listed = read_some(&dir.join("cgroup.procs"), 1 << 20).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed);
        // 0 stands for a process of another pid namespace.
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        seen += 1;
        if pids.len() >= most || seen >= 64 {
            break;
        }
        if depth < 4 {
            let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            dirs.extend(below.take(64).map(|entry| (entry.path(), depth + 1)));
        }
    }
    pids.truncate(most);
    pids
}

/// Every process in a group and the groups below it.
pub fn everybody(dir: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut dirs = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        // What is gone meanwhile has nobody in it; a group of threads alone has its processes above it.
        let listed = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        if depth < DEPTH {
            let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            dirs.extend(below.map(|entry| (entry.path(), depth + 1)));
        }
    }
    pids
}

fn upwards<'a>(own: &'a Path, top: &'a Path) -> impl Iterator<Item = &'a Path> {
    own.ancestors().take(DEPTH).take_while(move |dir| dir.starts_with(top))
}

fn number_in(path: &Path) -> Option<u64> {
    let bytes = read_some(path, 64)?;
    // "max" is no number: no limit.
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    let bytes = read_some(path, 4096)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
