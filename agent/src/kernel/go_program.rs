//! Proxies that are Go programs: which of their functions are hooked, and by which programs.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use aya::programs::uprobe::UProbeLink;

use super::go_functions::{self, Function, GoError};

/// What functions are hooked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Connect,
}

/// A function, the program where it begins and the one where it returns.
struct Call {
    function: &'static str,
    purpose: Purpose,
    begins: &'static str,
    returns: &'static str,
}

const CALLS: [Call; 1] =
    [Call { function: "syscall.connect", purpose: Purpose::Connect, begins: "go_dials", returns: "go_dialled" }];

/// Hooks in one process.
pub struct Attached {
    pub pid: u32,
    pub purpose: Purpose,
    pub links: Vec<UProbeLink>,
}

/// The functions of an executable, in the order of [`CALLS`].
type Functions = Arc<Result<Option<Vec<Option<Function>>>, GoError>>;

/// By device and inode: they are looked up once for each executable.
#[derive(Default)]
pub struct Programs {
    known: HashMap<(u64, u64), Functions>,
}

/// More executables than any host's proxies have; the memory is only to spare work.
const KNOWN: usize = 256;

/// An executable that Go built, as it can be opened.
pub struct Program {
    pub path: PathBuf,
    functions: Functions,
}

impl Programs {
    /// The executable of a process, if Go built it.
    pub fn of(&mut self, pid: u32) -> Option<Program> {
        // The file itself, also when an upgrade has replaced it.
        let path = PathBuf::from(format!("/proc/{pid}/exe"));
        let file = File::open(&path).ok()?;
        let meta = file.metadata().ok()?;
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let functions = self.known.entry((meta.dev(), meta.ino())).or_insert_with(|| {
            let names: Vec<&str> = CALLS.iter().map(|call| call.function).collect();
            Arc::new(go_functions::find(&file, &names))
        });
        let is_go = !matches!(**functions, Ok(None));
        is_go.then(|| Program { path, functions: functions.clone() })
    }
}

impl Program {
    /// Program and offset of each hook for this purpose, the returns first: a call that is seen to begin is seen to
    /// end. Empty where it has none of these functions.
    pub fn places(&self, purpose: Purpose) -> Result<Vec<(&'static str, u64)>, &GoError> {
        let functions = match &*self.functions {
            Ok(functions) => functions.as_deref().unwrap_or_default(),
            Err(error) => return Err(error),
        };
        let mut places = Vec::new();
        for (call, function) in CALLS.iter().zip(functions) {
            if let Some(function) = function
                && call.purpose == purpose
            {
                places.extend(function.returns.iter().map(|at| (call.returns, *at)));
                places.push((call.begins, function.begins));
            }
        }
        Ok(places)
    }
}
