//! Control groups of the lab: one per service, as a supervisor would make them, and memory limits that kill.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guard;

/// Where a hierarchy is mounted: the unified one, or a v1 controller.
pub fn mounted(controller: Option<&str>) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let matches = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        matches.then(|| PathBuf::from(at))
    })
}

/// Every hierarchy: what runs containers makes its groups in all of them.
fn all_mounted() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let groups = fields.filter(|fields| fields.get(2).is_some_and(|kind| kind.starts_with("cgroup")));
    groups.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

/// A unit of the unified hierarchy (`t502-PID/NAME.service`), with a memory limit if asked.
pub struct Unit {
    dirs: Vec<PathBuf>,
}

impl Unit {
    /// `None` where no unified hierarchy is mounted.
    pub fn new(name: &str) -> Result<Option<Self>> {
        let Some(root) = mounted(None) else { return Ok(None) };
        let dir = root.join(guard::prefix()).join(format!("{name}.service"));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make cgroup {}", dir.display()))?;
        Ok(Some(Self { dirs: vec![dir] }))
    }

    /// A unit that the kernel kills at this much memory: by the unified hierarchy where it has the controller, else v1.
    pub fn limited(name: &str, bytes: u64) -> Result<Self> {
        let mut dirs = Self::new(name)?.map(|mut unit| std::mem::take(&mut unit.dirs)).unwrap_or_default();
        if let Some(v1) = mounted(Some("memory")) {
            let dir = v1.join(format!("{}-{name}", guard::prefix()));
            std::fs::create_dir_all(&dir)?;
            std::fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
            dirs.push(dir);
        } else if let (Some(root), Some(dir)) = (mounted(None), dirs.first()) {
            for parent in [root.clone(), root.join(guard::prefix())] {
                std::fs::write(parent.join("cgroup.subtree_control"), "+memory")
                    .context("cannot give the memory controller to a cgroup")?;
            }
            std::fs::write(dir.join("memory.max"), bytes.to_string())?;
            // Without swap to hide in.
            let _ = std::fs::write(dir.join("memory.swap.max"), "0");
        } else {
            anyhow::bail!("no memory controller is mounted: an OOM kill cannot be made here");
        }
        Ok(Self { dirs })
    }

    pub fn procs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    pub fn pids(&self) -> Vec<u32> {
        let Some(dir) = self.dirs.first() else { return Vec::new() };
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for dir in &self.dirs {
            remove(dir);
        }
    }
}

/// Kills everything in a tree, without waiting. Absent in v1, where the process groups end by themselves.
fn kill(dir: &Path) {
    let _ = std::fs::write(dir.join("cgroup.kill"), "1");
}

/// Kills what is in it and removes it.
fn remove(dir: &Path) {
    kill(dir);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    guard::until(Duration::from_secs(2), || {
        kill(dir);
        std::fs::remove_dir(dir).is_ok().then_some(())
    });
}

pub fn remove_where(wanted: &dyn Fn(&str) -> bool) {
    let entries = all_mounted().into_iter().flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten());
    let found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(wanted)).map(|entry| entry.path()).collect();
    // All at once, so that the dying do not wait for each other.
    found.iter().for_each(|dir| kill(dir));
    found.iter().for_each(|dir| remove(dir));
}
