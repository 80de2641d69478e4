//! A thread that needs nothing of the host: no capabilities, its own files only, no connections to elsewhere.

use std::fmt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{PrivilegeError, caps};

/// What a thread may still touch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shelter<'a> {
    /// Below these it reads.
    pub reads: &'a [&'a Path],
    /// Below these it reads and writes.
    pub writes: &'a [&'a Path],
}

/// How far Landlock holds on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walls {
    /// Files, TCP, signals and abstract sockets (Linux 6.12 and later).
    Full,
    /// What this kernel knows of it.
    Partial,
    /// The kernel has no Landlock, or it is switched off.
    None,
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Walls::Full => "Landlock",
            Walls::Partial => "Landlock as far as this kernel has it",
            Walls::None => "no Landlock on this kernel",
        })
    }
}

/// The calling thread gives up all capabilities and goes behind walls. Cannot be undone; threads that it starts
/// later live there, too.
pub fn hermit(shelter: Shelter<'_>) -> Result<Walls, PrivilegeError> {
    caps::no_new_privileges()?;
    let walls = walls(shelter).unwrap_or(Walls::None);
    caps::none()?;
    Ok(walls)
}

fn walls(shelter: Shelter<'_>) -> Result<Walls, RulesetError> {
    // What was new in Linux 6.12; older kernels take what they know.
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let read = shelter.reads.iter().map(|path| (path, AccessFs::from_read(abi) & !AccessFs::Execute));
    let write = shelter.writes.iter().map(|path| (path, AccessFs::from_all(abi) & !AccessFs::Execute));
    for (path, access) in read.chain(write) {
        // What is not there cannot be touched anyway.
        let Ok(folder) = PathFd::new(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(folder, access))?;
    }
    let status = rules.restrict_self()?;
    let ruleset = if matches!(status.landlock, LandlockStatus::Available { .. }) {
        status.ruleset
    } else {
        RulesetStatus::NotEnforced
    };
    Ok(match ruleset {
        RulesetStatus::FullyEnforced => Walls::Full,
        RulesetStatus::PartiallyEnforced => Walls::Partial,
        RulesetStatus::NotEnforced => Walls::None,
    })
}
