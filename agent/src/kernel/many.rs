//! Hooks at many places of a process's code with one link (`uprobe_multi`, 6.6).
//!
//! A hook by a perf event is one place and one link, and the kernel takes each back by itself, one after the other:
//! tenths of a second each, whoever is waiting. Links of this kind are taken back side by side. aya does not know them:
//! what is here loads the same programs from the same object, for the same maps, and makes the links.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::btf::BtfFeatures;
use aya_obj::generated::bpf_insn;
use aya_obj::{Object, ProgramSection};

const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const BTF_LOAD: libc::c_long = 18;
const LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_KPROBE`: what programs in user code are, too.
const KPROBE: u32 = 2;
/// `BPF_TRACE_UPROBE_MULTI`.
const UPROBE_MULTI: u32 = 48;
/// `BPF_F_UPROBE_MULTI_RETURN`.
const RETURN: u32 = 1;
/// Times a load is tried that a signal broke off.
const TRIES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum ManyError {
    #[error("the kernel side cannot be read again: {0}")]
    Object(String),
    #[error("no program {0} in this build")]
    Unknown(String),
    #[error("refused by the kernel: {0}")]
    Kernel(#[from] io::Error),
}

/// The kernel's `union bpf_attr` as PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
    types: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
}

#[repr(C)]
struct LoadTypes {
    types: u64,
    log: u64,
    size: u32,
    log_size: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    counters: u64,
    cookies: u64,
    count: u32,
    how: u32,
    pid: u32,
    _pad: u32,
}

#[repr(C)]
struct Update {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn call<T>(command: libc::c_long, argument: &mut T) -> io::Result<i32> {
    // SAFETY: each caller passes the structure that the command reads, with its size; what it points to outlives this.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *argument, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A command that answers with a file.
fn bpf<T>(command: libc::c_long, argument: &mut T) -> io::Result<OwnedFd> {
    let file = call(command, argument)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A program that can be hooked this way.
struct Loaded {
    file: OwnedFd,
    /// It stands at the return of what it is attached to.
    returns: bool,
}

/// The kernel side as it is read for such hooks, before there are its maps.
pub struct Unbound {
    object: Object,
    types: Option<OwnedFd>,
}

/// Programs for such hooks.
pub struct Many {
    object: Object,
    /// Types of the programs, which name their functions.
    types: Option<OwnedFd>,
    loaded: Mutex<HashMap<String, Loaded>>,
}

fn unread(error: &dyn std::fmt::Display) -> ManyError {
    ManyError::Object(error.to_string())
}

impl Unbound {
    /// `None` where this kernel has no such links, or not for one process alone (before 6.10).
    pub fn prepare(bytes: &[u8]) -> Option<Unbound> {
        supported().then(|| Unbound::read(bytes).ok()).flatten()
    }

    fn read(bytes: &[u8]) -> Result<Unbound, ManyError> {
        let mut object = Object::parse(bytes).map_err(|e| unread(&e))?;
        // A kernel that has such links has all of these.
        let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let types = object.fixup_and_sanitize_btf(&features).map_err(|e| unread(&e))?.map(|types| types.to_bytes());
        let types = types.as_deref().map(load_types).transpose()?;
        Ok(Unbound { object, types })
    }

    /// Puts the maps of the same kernel side in their places.
    pub fn bind(self, bpf: &Ebpf) -> Result<Many, ManyError> {
        let Unbound { mut object, types } = self;
        let maps = std::mem::take(&mut object.maps);
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        let known = maps.iter().filter_map(|(name, map)| {
            let file = data(bpf.map(name)?)?.fd().as_fd().as_raw_fd();
            Some((name.as_str(), file, map))
        });
        object.relocate_maps(known, &text).map_err(|e| unread(&e))?;
        object.relocate_calls(&text).map_err(|e| unread(&e))?;
        Ok(Many { object, types, loaded: Mutex::default() })
    }
}

impl Many {
    /// Has the kernel verify this program, unless that was done.
    pub fn load(&self, name: &str) -> Result<(), ManyError> {
        if self.has(name) {
            return Ok(());
        }
        let unknown = || ManyError::Unknown(name.to_owned());
        let program = self.object.programs.get(name).ok_or_else(unknown)?;
        let function = self.object.functions.get(&program.function_key()).ok_or_else(unknown)?;
        let returns = matches!(program.section, ProgramSection::URetProbe { .. });
        let functions = function.func_info.func_info_bytes();
        let load = || Load {
            types: self.types.as_ref().map_or(0, |types| types.as_raw_fd() as u32),
            function_size: if self.types.is_some() { function.func_info_rec_size as u32 } else { 0 },
            functions: if self.types.is_some() { functions.as_ptr() as u64 } else { 0 },
            function_count: if self.types.is_some() { function.func_info.len() as u32 } else { 0 },
            ..program_of(name, &function.instructions)
        };
        let mut tries = (0..TRIES).map(|_| bpf(PROG_LOAD, &mut load()));
        let again = |result: &io::Result<_>| result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        let file = tries.find(|result| !again(result)).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
        self.table().insert(name.to_owned(), Loaded { file, returns });
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.table().contains_key(name)
    }

    /// What is to be known of a program, if it is loaded.
    pub fn ask<T>(&self, name: &str, question: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.table().get(name).map(|program| question(program.file.as_fd()))
    }

    pub fn unload(&self, name: &str) {
        self.table().remove(name);
    }

    /// Hooks all these places of a file, each with its cookie, in one process.
    pub fn attach(&self, name: &str, file: &Path, places: &[(u64, u64)], pid: u32) -> Result<OwnedFd, ManyError> {
        let table = self.table();
        let program = table.get(name).ok_or_else(|| ManyError::Unknown(name.to_owned()))?;
        Ok(link(&program.file, if program.returns { RETURN } else { 0 }, file, places, pid)?)
    }

    /// Puts a program into a map of programs, for others to go on with.
    pub fn enter(&self, map: &Map, place: u32, name: &str) -> Result<(), ManyError> {
        let unknown = || ManyError::Unknown(name.to_owned());
        let table = self.table();
        let file = table.get(name).ok_or_else(unknown)?.file.as_raw_fd();
        let map = data(map).ok_or_else(unknown)?.fd().as_fd().as_raw_fd() as u32;
        let (key, value) = (&raw const place as u64, &raw const file as u64);
        call(MAP_UPDATE_ELEM, &mut Update { map, _pad: 0, key, value, flags: 0 })?;
        Ok(())
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing will be loaded any more: gives back what that needs.
    pub fn settle(&mut self) {
        self.object.programs.clear();
        self.object.functions.clear();
        self.object.btf = None;
        self.object.btf_ext = None;
    }
}

fn program_of(name: &str, instructions: &[bpf_insn]) -> Load {
    let mut short = [0; 16];
    let len = name.len().min(short.len() - 1);
    short[..len].copy_from_slice(&name.as_bytes()[..len]);
    Load {
        kind: KPROBE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        name: short,
        attach: UPROBE_MULTI,
        ..Load::default()
    }
}

fn load_types(bytes: &[u8]) -> io::Result<OwnedFd> {
    bpf(BTF_LOAD, &mut LoadTypes { types: bytes.as_ptr() as u64, log: 0, size: bytes.len() as u32, log_size: 0 })
}

fn link(program: &OwnedFd, how: u32, file: &Path, places: &[(u64, u64)], pid: u32) -> io::Result<OwnedFd> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = places.iter().copied().unzip();
    let mut create = LinkCreate {
        program: program.as_raw_fd() as u32,
        target: 0,
        attach: UPROBE_MULTI,
        flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        counters: 0,
        cookies: cookies.as_ptr() as u64,
        count: places.len() as u32,
        how,
        pid,
        _pad: 0,
    };
    bpf(LINK_CREATE, &mut create)
}

/// Whether there are such links, and for one process. Those of the first kernels looked at one thread alone; they do
/// not refuse a process number that cannot be.
fn supported() -> bool {
    // r0 = 0; exit
    let nothing = [0xb7_u64, 0x95];
    let mut load = Load { instructions: nothing.as_ptr() as u64, count: 2, ..program_of("nothing", &[]) };
    let Ok(program) = bpf(PROG_LOAD, &mut load) else { return false };
    // A folder is no file to hook: the kernel says so once it has taken the rest for good.
    let answer = |pid| link(&program, 0, Path::new("/"), &[(0, 0)], pid).err().and_then(|error| error.raw_os_error());
    answer(0) == Some(libc::EBADF) && answer(u32::MAX) == Some(libc::EINVAL)
}

/// What a map of any type that we have is to the kernel.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}
