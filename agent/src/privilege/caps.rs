//! Capabilities: the table of those that remain, and the calls that give up the rest.

use std::io;

use super::PrivilegeError;

/// A capability that the running agent needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    pub name: &'static str,
    pub bit: u32,
    pub why: &'static str,
    /// Kernels from this version on do not ask for it.
    pub until: Option<(u32, u32)>,
}

/// Everything else goes.
pub const KEPT: &[Kept] = &[
    Kept {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        why: "see executables, open files and namespaces of other users' processes",
        until: None,
    },
    Kept {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        why: "read logs and libraries that only their owner may open",
        until: None,
    },
    Kept {
        name: "CAP_SYS_ADMIN",
        bit: 21,
        why: "enter network namespaces and read who listens there; seccomp bars its other uses",
        until: None,
    },
    Kept { name: "CAP_PERFMON", bit: 38, why: "attach to the libraries of a proxy that starts later", until: None },
    Kept { name: "CAP_SYSLOG", bit: 34, why: "name the kernel function that dropped a packet", until: None },
    // "bpf: refine kernel.unprivileged_bpf_disabled behaviour": from then on only making objects asks for it.
    Kept {
        name: "CAP_BPF",
        bit: 39,
        why: "read the maps of its own programs, before Linux 5.19 only",
        until: Some((5, 19)),
    },
];

const SETPCAP: u32 = 8;
const MOST: u32 = 63;

/// What this kernel makes necessary.
pub fn wanted(kernel: (u32, u32)) -> Vec<&'static Kept> {
    KEPT.iter().filter(|kept| kept.until.is_none_or(|until| kernel < until)).collect()
}

fn call(what: &'static str, result: libc::c_int) -> Result<(), PrivilegeError> {
    if result == 0 { Ok(()) } else { Err(PrivilegeError::Call { what, source: io::Error::last_os_error() }) }
}

/// prctl with numbers only.
fn prctl(option: libc::c_int, a: u64, b: u64) -> libc::c_int {
    // SAFETY: the options used here take numbers, no pointers.
    unsafe { libc::prctl(option, a, b, 0, 0) }
}

pub fn no_new_privileges() -> Result<(), PrivilegeError> {
    call("cannot set no_new_privs", prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0))
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Two of them make the 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn permitted() -> Result<u64, PrivilegeError> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the kernel reads the header and writes two sets; both live here and have its layout.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    call("cannot read the capabilities", result as libc::c_int)?;
    Ok(u64::from(sets[0].permitted) | u64::from(sets[1].permitted) << 32)
}

fn set(bits: u64) -> Result<(), PrivilegeError> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        let bits = (bits >> shift) as u32;
        Sets { effective: bits, permitted: bits, inheritable: 0 }
    };
    let sets = [half(0), half(32)];
    // SAFETY: the kernel reads a header and two sets of its layout.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    call("cannot give up capabilities", result as libc::c_int)
}

/// This thread keeps those that it has of `wanted`, and no program it could start gets any.
pub fn keep(wanted: &[&'static Kept]) -> Result<Vec<&'static Kept>, PrivilegeError> {
    let held = permitted()?;
    let kept: Vec<&'static Kept> = wanted.iter().filter(|k| held >> k.bit & 1 == 1).copied().collect();
    let bits = kept.iter().fold(0, |bits, k| bits | 1 << k.bit);
    // Kernels before 4.3 have no ambient set, and none that we run on is as old.
    call(
        "cannot clear the ambient capabilities",
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0),
    )?;
    if held >> SETPCAP & 1 == 1 {
        for bit in (0..=MOST).filter(|bit| bits >> bit & 1 == 0) {
            // Past the last capability of this kernel it says EINVAL, which is as good as dropped.
            prctl(libc::PR_CAPBSET_DROP, u64::from(bit), 0);
        }
    }
    set(bits)?;
    Ok(kept)
}

/// This thread has no capability any more.
pub fn none() -> Result<(), PrivilegeError> {
    set(0)
}
