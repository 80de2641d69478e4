//! Proxies that are Go programs: which of their functions are hooked, and by which programs.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use trace502_ebpf::{GO_TURN, TLS_GO, TLS_VAGUE};

use super::go_functions::{self, Function, GoError};
use super::inside::Link;
use super::opened::{self, Identity};

/// What functions are hooked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Connects that fail in the call.
    Connect,
    /// What is said inside TLS.
    Tls,
}

impl Purpose {
    /// What its programs are told where they are attached.
    pub fn cookie(self, turn: u32) -> u64 {
        if self == Purpose::Tls { TLS_GO | TLS_VAGUE | u64::from(turn) << GO_TURN } else { 0 }
    }
}

/// A function, the program where it begins, and the one where it returns if that tells more.
struct Call {
    function: &'static str,
    purpose: Purpose,
    begins: &'static str,
    returns: Option<&'static str>,
    /// Without it the others tell less, and not something else.
    optional: bool,
}

/// Those that begin first: an answer that is seen to a request that is not tells nothing, a request whose answer is not
/// seen looks unanswered.
const CALLS: [Call; 7] = [
    call("syscall.connect", Purpose::Connect, "go_dials", Some("go_dialled")),
    call("crypto/tls.(*Conn).Write", Purpose::Tls, WRITES, None),
    call("crypto/tls.(*Conn).serverHandshake", Purpose::Tls, "go_shakes", Some("go_shook")),
    call("crypto/tls.(*Conn).clientHandshake", Purpose::Tls, "go_shakes", Some("go_shook")).optional(),
    call("crypto/tls.(*Conn).sendAlert", Purpose::Tls, "go_alerts", None).optional(),
    call("crypto/tls.(*Conn).closeNotify", Purpose::Tls, "go_parts", None).optional(),
    call("crypto/tls.(*Conn).Read", Purpose::Tls, "go_reads", Some("go_read")),
];

/// The program whose hooks take turns: at the beginning of a call of which the end says nothing more.
pub const WRITES: &str = "go_writes";

const fn call(function: &'static str, purpose: Purpose, begins: &'static str, returns: Option<&'static str>) -> Call {
    Call { function, purpose, begins, returns, optional: false }
}

impl Call {
    const fn optional(mut self) -> Call {
        self.optional = true;
        self
    }
}

/// Hooks in one process.
pub struct Attached {
    pub pid: u32,
    pub purpose: Purpose,
    pub links: Vec<Link>,
}

/// The functions of an executable, in the order of [`CALLS`].
type Functions = Arc<Result<Option<Vec<Option<Function>>>, GoError>>;

/// They are looked up once for each executable.
#[derive(Default)]
pub struct Programs {
    known: HashMap<Identity, Functions>,
}

/// More executables than any host's proxies have; the memory is only to spare work.
const KNOWN: usize = 256;

/// An executable that Go built.
pub struct Program {
    /// The one that was looked into.
    pub file: File,
    functions: Functions,
}

impl Programs {
    /// The executable of a process, if Go built it.
    pub fn of(&mut self, pid: u32) -> Option<Program> {
        // The file itself, also when an upgrade has replaced it.
        let file = File::open(format!("/proc/{pid}/exe")).ok()?;
        let identity = Identity::of(&file).ok()?;
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let functions = self.known.entry(identity).or_insert_with(|| {
            let names: Vec<&str> = CALLS.iter().map(|call| call.function).collect();
            Arc::new(go_functions::find(&file, &names))
        });
        let functions = functions.clone();
        let is_go = !matches!(*functions, Ok(None));
        is_go.then_some(Program { file, functions })
    }
}

impl Program {
    /// What the executable is called.
    pub fn name(&self) -> String {
        opened::path(&self.file).read_link().unwrap_or_default().display().to_string()
    }

    /// Program and offset of each hook for this purpose, the returns first: a call that is seen to begin is seen to
    /// end. Empty where it lacks one that the others are nothing without.
    pub fn places(&self, purpose: Purpose) -> Result<Vec<(&'static str, u64)>, &GoError> {
        let functions = match &*self.functions {
            Ok(functions) => functions.as_deref().unwrap_or_default(),
            Err(error) => return Err(error),
        };
        let mut places = Vec::new();
        for (call, function) in CALLS.iter().zip(functions).filter(|(call, _)| call.purpose == purpose) {
            let Some(function) = function else {
                match call.optional {
                    true => continue,
                    false => return Ok(Vec::new()),
                }
            };
            if let Some(program) = call.returns {
                places.extend(function.returns.iter().map(|at| (program, *at)));
            }
            places.push((call.begins, function.begins));
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has these functions.
    fn with(has: fn(&str) -> bool) -> Program {
        let function = |(place, call): (usize, &Call)| {
            let at = place as u64 * 100;
            has(call.function).then(|| Function { begins: at, returns: vec![at + 10, at + 20] })
        };
        let functions = CALLS.iter().enumerate().map(function).collect();
        Program { file: File::open("/dev/null").unwrap(), functions: Arc::new(Ok(Some(functions))) }
    }

    #[test]
    fn answers_are_hooked_before_requests_and_returns_before_beginnings() {
        let program = with(|_| true);
        let connect = [("go_dialled", 10), ("go_dialled", 20), ("go_dials", 0)];
        assert_eq!(program.places(Purpose::Connect).unwrap(), connect);
        let tls: Vec<&str> = program.places(Purpose::Tls).unwrap().iter().map(|(name, _)| *name).collect();
        let shakes = ["go_shook", "go_shook", "go_shakes"];
        let others = ["go_alerts", "go_parts", "go_read", "go_read", "go_reads"];
        assert_eq!(tls, [&[WRITES][..], &shakes, &shakes, &others].concat());
    }

    #[test]
    fn a_program_that_lacks_one_of_the_functions_is_left_alone() {
        // It never reads, or never dials with TLS.
        let (mute, serves) = (with(|name| !name.ends_with("Read")), with(|name| !name.ends_with("clientHandshake")));
        assert_eq!(mute.places(Purpose::Tls).unwrap(), []);
        assert_eq!(mute.places(Purpose::Connect).unwrap().len(), 3);
        assert_eq!(serves.places(Purpose::Tls).unwrap().len(), 9);
    }

    #[test]
    fn this_program_was_not_built_by_go() {
        assert!(Programs::default().of(std::process::id()).is_none());
    }
}
