//! Hooks in the code of one process: which of its files get them, and how: one link for many places where the kernel
//! can, one for each elsewhere.

use std::fs::File;
use std::path::PathBuf;

use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{Program, ProgramError};

use trace502_ebpf::PROC_TLS;

use super::attach::chain;
use super::detach::Held;
use super::go_program::{self, Purpose};
use super::libc_connect;
use super::load::{Kernel, LoadError};
use super::many::{Many, ManyError};
use super::opened;
use super::tls_calls::Call;
use super::tls_library::{self, Library, Visible};

/// Only what is there already is changed.
const BPF_EXIST: u64 = 2;

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

impl Kernel {
    /// Where no trampoline carries `connect_error`: hook the C library that this proxy has mapped.
    /// Libraries are hooked once for each process; one that cannot be hooked is no error.
    pub fn watch_connect(&mut self, pid: u32) {
        let uses_libc = self.reports.iter().any(|report| {
            report.name == "connect_error" && report.attached && report.provider.as_deref() == Some("uprobe")
        });
        if !uses_libc || self.libc.iter().any(|attached| attached.pid == pid) {
            return;
        }
        self.hook_go(pid, Purpose::Connect);
        let mut links = Vec::new();
        for (file, places) in libc_connect::locate(pid) {
            links.extend(self.hook("connect_uprobe", &Places { pid, file: &file, at: &places }).unwrap_or_default());
        }
        if !links.is_empty() {
            self.libc.push(libc_connect::Attached { pid, links });
        }
    }

    /// Looks inside the TLS library that this proxy has mapped. One that cannot be hooked is no error: what its
    /// clients say stays unseen.
    pub fn watch_tls(&mut self, pid: u32) -> Visible {
        if let Some(attached) = self.tls.iter().find(|attached| attached.pid == pid) {
            let name = attached.name.clone();
            return self.seen(pid, name);
        }
        if !self.attached("tls") {
            return Visible::None;
        }
        let mut refused = None;
        let libraries = self.libraries.of(pid);
        for library in libraries.iter().filter(|library| library.reads()) {
            match self.hook_tls(pid, library, &library.calls) {
                Ok(mut links) => {
                    links.extend(self.hook_reasons(pid, &libraries));
                    self.tls.push(tls_library::Attached { pid, name: library.name.clone(), links });
                    return self.seen(pid, library.name.clone());
                }
                Err(error) => refused = Some(chain(&error)),
            }
        }
        if let Some(why) = refused {
            return Visible::Refused(why);
        }
        let seen = if self.attached("tls_go") { self.hook_go(pid, Purpose::Tls) } else { Visible::None };
        match seen {
            Visible::Hooked(name) => self.seen(pid, name),
            other => other,
        }
    }

    fn attached(&self, probe: &str) -> bool {
        self.reports.iter().any(|report| report.name == probe && report.attached)
    }

    /// All of these calls of a library, or none.
    fn hook_tls(&mut self, pid: u32, library: &Library, calls: &[Call]) -> Result<Vec<Link>, HookError> {
        let mut links = Vec::new();
        for (program, at) in tls_library::places(calls) {
            links.extend(self.hook(program, &Places { pid, file: &library.file, at: &at })?);
        }
        Ok(links)
    }

    /// The calls that tell why a handshake failed. Without them it is known that it did.
    fn hook_reasons(&mut self, pid: u32, libraries: &[Library]) -> Vec<Link> {
        if !self.attached("tls_reasons") {
            return Vec::new();
        }
        let hook = |library| self.hook_tls(pid, library, &library.reasons).unwrap_or_default();
        libraries.iter().flat_map(hook).collect()
    }

    fn hook(&mut self, program: &str, places: &Places) -> Result<Vec<Link>, HookError> {
        hook(&mut self.bpf, self.many.as_ref(), program, places)
    }

    /// What clients say to this process inside TLS is seen in the file of this name.
    fn seen(&mut self, pid: u32, name: String) -> Visible {
        match self.add_class(pid, PROC_TLS) {
            Ok(()) => Visible::Hooked(name),
            Err(error) => Visible::Refused(error.to_string()),
        }
    }

    fn add_class(&mut self, pid: u32, more: u32) -> Result<(), LoadError> {
        let map = self.bpf.map_mut("PROCS").ok_or(LoadError::Map("PROCS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(|_| LoadError::Map("PROCS"))?;
        // One that is gone by now must not come back: nobody would forget it again.
        let Ok(class) = map.get(&pid, 0) else { return Ok(()) };
        map.insert(pid, class | more, BPF_EXIST).map_err(|error| LoadError::Refused(error.to_string()))
    }

    /// Hooks functions of a proxy that is a Go program, all of them or none.
    fn hook_go(&mut self, pid: u32, purpose: Purpose) -> Visible {
        let Some(go) = self.go_programs.of(pid) else { return Visible::None };
        if self.go.iter().any(|attached| attached.pid == pid && attached.purpose == purpose) {
            return Visible::Hooked(go.name());
        }
        let places = match go.places(purpose) {
            Ok(places) if places.is_empty() => return Visible::None,
            Ok(places) => places,
            Err(why) => return Visible::Refused(why.to_string()),
        };
        let mut links = Vec::new();
        self.go_turn = self.go_turn.wrapping_add(1);
        let cookie = purpose.cookie(self.go_turn);
        for chunk in places.chunk_by(|one, next| one.0 == next.0) {
            let at: Vec<(u64, u64)> = chunk.iter().map(|(_, offset)| (*offset, cookie)).collect();
            match self.hook(chunk[0].0, &Places { pid, file: &go.file, at: &at }) {
                Ok(more) => links.extend(more),
                Err(why) => return Visible::Refused(chain(&why)),
            }
            if chunk[0].0 == go_program::WRITES {
                // From here on those count that stand there now, and no older ones.
                self.go_turns(pid);
            }
        }
        self.go.push(go_program::Attached { pid, purpose, links });
        Visible::Hooked(go.name())
    }

    /// Which hooks of this process count. Where that cannot be said all do, and for the moment in which there are two of
    /// them its answers may be taken for two.
    fn go_turns(&mut self, pid: u32) -> Option<()> {
        let mut turns: HashMap<_, u32, u32> = HashMap::try_from(self.bpf.map_mut("GO_TURNS")?).ok()?;
        turns.insert(pid, self.go_turn, 0).ok()
    }

    /// The hooks of a process that has become another program, which go on until they are dropped: see
    /// [`Kernel::let_go`].
    pub fn unhook(&mut self, pid: u32) -> Hooks {
        let tls = self.tls.extract_if(.., |attached| attached.pid == pid);
        let mut links: Vec<Link> = tls.flat_map(|attached| attached.links).collect();
        links.extend(self.go.extract_if(.., |attached| attached.pid == pid).flat_map(|attached| attached.links));
        links.extend(self.libc.extract_if(.., |attached| attached.pid == pid).flat_map(|attached| attached.links));
        Hooks(links)
    }

    /// Drops hooks, soon.
    pub fn let_go(&mut self, hooks: Hooks) {
        if !hooks.0.is_empty() {
            self.detacher.drop_later(hooks.0);
        }
    }

    /// Forgets a process that is gone, or is no proxy any more.
    pub fn forget(&mut self, pid: u32) {
        let hooks = self.unhook(pid);
        self.let_go(hooks);
        self.forget_go(pid);
    }

    /// What it left behind of calls that did not return.
    fn forget_go(&mut self, pid: u32) -> Option<()> {
        let mut turns: HashMap<_, u32, u32> = HashMap::try_from(self.bpf.map_mut("GO_TURNS")?).ok()?;
        // Only a program of Go has an entry.
        turns.remove(&pid).ok()?;
        let mut calls: HashMap<_, GoKeyRow, [u64; 2]> = HashMap::try_from(self.bpf.map_mut("GO_CALLS")?).ok()?;
        let left: Vec<GoKeyRow> = calls.keys().flatten().filter(|key| key.pid == pid).collect();
        for key in left {
            // One that is gone has returned after all.
            let _ = calls.remove(&key);
        }
        Some(())
    }
}

/// Hooks in the code of one process.
#[derive(Debug)]
#[must_use]
pub struct Hooks(Vec<Link>);

/// A function that a goroutine is in, as `GO_CALLS` has it.
#[derive(Clone, Copy)]
#[repr(C)]
struct GoKeyRow {
    goroutine: u64,
    pid: u32,
    function: u32,
}

// SAFETY: integers without padding.
unsafe impl aya::Pod for GoKeyRow {}

/// Path of a process's file as we can open it.
pub(super) fn root_path(pid: u32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}
