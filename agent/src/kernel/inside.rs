//! Hooks in the code of one process: one link for many places where the kernel can, one for each elsewhere.

use std::fs::File;

use aya::Ebpf;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{Program, ProgramError};

use super::detach::Held;
use super::many::{Many, ManyError};
use super::opened;

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Many(#[from] ManyError),
    #[error(transparent)]
    One(#[from] ProgramError),
}

/// A program stands in a process as long as this lives.
#[derive(Debug)]
pub enum Link {
    Many(Held),
    One(UProbeLink),
}

/// Places of a file that was looked into, in one process, each with what the program there is told.
pub struct Places<'a> {
    pub pid: u32,
    pub file: &'a File,
    pub at: &'a [(u64, u64)],
}

/// Puts this program at these places, all of them or none.
pub fn hook(bpf: &mut Ebpf, many: Option<&Many>, program: &str, places: &Places) -> Result<Vec<Link>, HookError> {
    if places.at.is_empty() {
        return Ok(Vec::new());
    }
    let file = opened::path(places.file);
    if let Some(many) = many
        && many.has(program)
    {
        let link = many.attach(program, &file, places.at, places.pid)?;
        return Ok(vec![Link::Many(Held::new(link))]);
    }
    let Some(Program::UProbe(program)) = bpf.program_mut(program) else { return Ok(Vec::new()) };
    let mut links = Vec::new();
    for (at, cookie) in places.at {
        let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(*at), cookie: Some(*cookie) };
        let link = program.attach(point, &file, UProbeScope::OneProcess(pid_of(places.pid)))?;
        links.push(Link::One(program.take_link(link)?));
    }
    Ok(links)
}

fn pid_of(pid: u32) -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(pid).unwrap_or(std::num::NonZeroU32::MIN)
}
