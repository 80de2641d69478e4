//! The capabilities that trace502 can use: their numbers, what each is for, what is lost without it.

use serde::Serialize;

/// How much depends on a capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Nothing works without it.
    Required,
    /// Something is lost without it.
    Useful,
    /// This kernel does not ask for it.
    Unneeded,
}

pub struct Capability {
    pub name: &'static str,
    pub bit: u32,
    pub need: Need,
    pub purpose: &'static str,
    pub lost: &'static str,
}

pub const BPF: &str = "CAP_BPF";
pub const PERFMON: &str = "CAP_PERFMON";
pub const SYS_ADMIN: &str = "CAP_SYS_ADMIN";
pub const SYS_RESOURCE: &str = "CAP_SYS_RESOURCE";

/// In the order in which they are shown.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: BPF,
        bit: 39,
        need: Need::Required,
        purpose: "create maps and load programs",
        lost: "everything",
    },
    Capability {
        name: PERFMON,
        bit: 38,
        need: Need::Required,
        purpose: "let programs trace and read kernel memory",
        lost: "everything",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        need: Need::Useful,
        purpose: "look at the processes of other users",
        lost: "executables, open sockets and network namespaces of other users' processes",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        need: Need::Useful,
        purpose: "open files of other users",
        lost: "unix sockets, logs and libraries that only their owner may open",
    },
    Capability {
        name: SYS_ADMIN,
        bit: 21,
        need: Need::Useful,
        purpose: "enter the network namespaces of containers",
        lost: "listeners and addresses inside containers",
    },
    Capability {
        name: "CAP_SYSLOG",
        bit: 34,
        need: Need::Useful,
        purpose: "read the addresses in /proc/kallsyms",
        lost: "the name of the kernel function that dropped a packet",
    },
    Capability {
        name: SYS_RESOURCE,
        bit: 24,
        need: Need::Useful,
        purpose: "raise RLIMIT_MEMLOCK before kernel 5.11",
        lost: "maps larger than the limit",
    },
];

/// One capability as this process has it on this kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    pub name: &'static str,
    pub held: bool,
    pub need: Need,
    pub purpose: &'static str,
    pub lost: &'static str,
}

/// `effective` is CapEff. `last` is the highest number this kernel knows: before 5.8 that is below CAP_PERFMON, and
/// CAP_SYS_ADMIN was asked instead. `memlock` says that this kernel counts maps against RLIMIT_MEMLOCK.
pub fn held(effective: u64, last: u32, memlock: bool) -> Vec<Held> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    let admin = CAPABILITIES.iter().any(|capability| capability.name == SYS_ADMIN && has(capability.bit));
    let young = last < 39;
    CAPABILITIES
        .iter()
        .map(|capability| {
            // CAP_SYS_ADMIN has always stood in for what was carved out of it.
            let replaced = matches!(capability.name, BPF | PERFMON);
            let need = match capability.name {
                BPF | PERFMON if young => Need::Unneeded,
                SYS_ADMIN if young => Need::Required,
                SYS_RESOURCE if !memlock => Need::Unneeded,
                _ => capability.need,
            };
            Held {
                name: capability.name,
                held: has(capability.bit) || admin && replaced,
                need,
                purpose: capability.purpose,
                lost: if need == Need::Required { "everything" } else { capability.lost },
            }
        })
        .collect()
}
