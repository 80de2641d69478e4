//! What the programs must be told of this kernel before they are loaded: where struct members live, what its tracepoints
//! hand over, and what its reasons are called. Resolved from BTF; nothing here talks to the kernel.

use super::btf::Btf;
use serde::{Deserialize, Serialize};
use trace502_ebpf::{HEAD, Offsets, Settings};

/// A member of [`Offsets::TABLE`] that this kernel lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The field of [`Offsets`].
    pub field: &'static str,
    pub strukt: &'static str,
    pub member: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this kernel has no {}.{}", self.strukt, self.member)
    }
}

/// Every offset of the table, `u32::MAX` and an entry in the list where there is none.
pub fn resolve(btf: &Btf) -> (Offsets, Vec<Missing>) {
    let mut missing = Vec::new();
    let offsets = Offsets::resolve(|field, strukt, member| {
        let offset = btf.member_offset(strukt, member);
        if offset.is_none() {
            missing.push(Missing { field, strukt, member });
        }
        offset.unwrap_or(u32::MAX)
    });
    (offsets, missing)
}

/// The facts that change what a program does. `cpus` is the number of possible CPUs.
pub fn settings(btf: &Btf, cpus: u32) -> Settings {
    // The prototypes are asked, not the version: distributions carry both changes back (Debian's 6.1 has the second).
    let reset_reason = btf.func_arg_count("tcp_send_reset").is_some_and(|count| count >= 3);
    let victim_task = btf
        .tracepoint("mark_victim")
        .is_some_and(|arguments| arguments.first().is_some_and(|first| first.ends_with('*')));
    // Up to 6.1 a struct with an array of counters, from 6.2 an array of per-CPU counters; the path is the same.
    let rss_stride = btf.member("mm_struct", "rss_stat.count").and_then(|count| count.stride).unwrap_or(0);
    Settings {
        reset_reason: reset_reason.into(),
        victim_task: victim_task.into(),
        rss_stride,
        head: HEAD as u32,
        cpus,
        jiffy_us: jiffy_us(),
        only_v6: btf.bit_offset("sock_common", "skc_ipv6only").unwrap_or(u32::MAX),
        found: 0,
        mptcp_first: btf.member_offset("mptcp_sock", "first").unwrap_or(u32::MAX),
        places: places(),
        flows: FLOWS,
        _pad: 0,
        drops: news(&Names::read(btf).drop),
    }
}

/// Upstream connections that there is room for, so that their other ends are found.
const FLOWS: u32 = 1 << 17;

/// Connections that there is room for: one for each quarter of a megabyte of memory, within bounds.
fn places() -> u32 {
    // SAFETY: no memory is involved.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let memory = u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0);
    let places = (memory >> 18).clamp(1 << 14, 1 << 17) as u32;
    1 << places.ilog2()
}

/// Drops that every healthy connection may end with, or that only repeat what the sockets tell.
const NO_NEWS: &[&str] = &[
    "QUEUE_PURGE",
    "NO_SOCKET",
    "SOCKET_RCVBUFF",
    "TCP_CLOSE",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_RESET",
    "TCP_INVALID_SYN",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_OFOMERGE",
    "TCP_OFO_DROP",
    "TCP_OFO_QUEUE_PRUNE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_OVERWINDOW",
    "TCP_RFC7323_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ZEROWINDOW",
    "TCP_ABORT_ON_DATA",
];

/// A bit for each drop reason that is news. The first ones are no drops, or say nothing.
fn news(names: &[String]) -> [u64; 4] {
    let mut bits = [0; 4];
    for (number, name) in names.iter().enumerate().take(256).skip(1) {
        let silent = ["CONSUMED", "NOT_DROPPED_YET", "NOT_SPECIFIED", ""];
        if !NO_NEWS.contains(&name.as_str()) && !silent.contains(&name.as_str()) {
            bits[number >> 6] |= 1 << (number & 63);
        }
    }
    bits
}

/// The coarse clock advances by one tick.
fn jiffy_us() -> u32 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) };
    u32::try_from(tick.tv_nsec / 1000).unwrap_or(4000).max(1)
}

/// What this kernel calls its reasons, by number. A recording carries them, since the numbers differ between kernels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Names {
    /// Why a reset was sent: `sk_rst_reason` (6.10).
    pub reset: Vec<String>,
    /// Why a packet was dropped: `skb_drop_reason` (5.17).
    pub drop: Vec<String>,
}

impl Names {
    pub fn read(btf: &Btf) -> Names {
        Names {
            reset: by_number(btf.enum_values("sk_rst_reason"), &["SK_RST_REASON_"]),
            drop: by_number(btf.enum_values("skb_drop_reason"), &["SKB_DROP_REASON_", "SKB_"]),
        }
    }

    pub fn reset(&self, reason: u32) -> Option<&str> {
        named(&self.reset, reason)
    }

    pub fn drop(&self, reason: u32) -> Option<&str> {
        named(&self.drop, reason)
    }
}

fn named(names: &[String], reason: u32) -> Option<&str> {
    names.get(reason as usize).map(String::as_str).filter(|name| !name.is_empty())
}

fn by_number(values: Vec<(String, i64)>, prefixes: &[&str]) -> Vec<String> {
    /// Above are masks, and the ranges of subsystems.
    const REASONS: usize = 1024;
    let mut names = Vec::new();
    for (name, value) in values {
        let short = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
        match usize::try_from(value) {
            Ok(number) if number < REASONS && short != "MAX" => {
                names.resize(names.len().max(number + 1), String::new());
                names[number] = short.to_string();
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::btf::fixture::{Builder, DEBIAN_6_1, DEBIAN_6_12, UPSTREAM_6_18};
    use super::*;

    fn of(blob: &[u8]) -> (Offsets, Vec<Missing>, Settings, Names) {
        let btf = Btf::parse(blob).unwrap();
        let (offsets, missing) = resolve(&btf);
        (offsets, missing, settings(&btf, 4), Names::read(&btf))
    }

    #[test]
    fn debian_6_1_lacks_nothing() {
        let (offsets, missing, settings, names) = of(DEBIAN_6_1);
        assert_eq!(missing, []);
        assert_eq!((offsets.sk_num, offsets.sk_dport, offsets.sk_state), (14, 12, 18));
        assert_eq!((settings.reset_reason, settings.victim_task, settings.rss_stride), (0, 1, 8));
        assert_eq!((settings.head, settings.cpus), (256, 4));
        assert_eq!(names.reset, Vec::<String>::new());
        assert!(names.drop.iter().any(|name| name == "NETFILTER_DROP"));
        assert_eq!(names.drop(0), Some("NOT_DROPPED_YET"));
    }

    #[test]
    fn debian_6_12_lacks_nothing() {
        let (_, missing, settings, names) = of(DEBIAN_6_12);
        assert_eq!(missing, []);
        assert_eq!((settings.reset_reason, settings.victim_task, settings.rss_stride), (1, 1, 40));
        assert!(names.reset.iter().any(|name| name == "TCP_ABORT_ON_CLOSE"));
        assert_eq!(names.reset(1), Some("NO_SOCKET"));
    }

    #[test]
    fn kernel_6_18_lacks_nothing() {
        let (_, missing, settings, names) = of(UPSTREAM_6_18);
        assert_eq!(missing, []);
        assert_eq!((settings.reset_reason, settings.victim_task, settings.rss_stride), (1, 1, 40));
        assert_eq!(names.drop(1), Some("CONSUMED"));
        assert_eq!(names.drop(u32::MAX), None);
        assert!(names.drop.len() > 100 && names.drop.len() < 300, "masks and MAX are no reasons");
    }

    #[test]
    fn a_member_that_is_gone_is_named_and_the_rest_stands() {
        let mut blob = Builder::new();
        let int = blob.int("int", 4);
        blob.structure("tcp_sock", 64, &[("packets_out", int, 128)]);
        let (offsets, missing, settings, names) = of(&blob.blob());
        assert_eq!(offsets.tp_packets_out, 16);
        assert_eq!(offsets.tp_snd_una, u32::MAX);
        let gone = missing.iter().find(|missing| missing.field == "tp_snd_una").unwrap();
        assert_eq!(gone.to_string(), "this kernel has no tcp_sock.snd_una");
        assert_eq!(missing.len(), Offsets::TABLE.len() - 1);
        assert_eq!((settings.reset_reason, settings.victim_task, settings.rss_stride), (0, 0, 0));
        assert_eq!(names, Names::default());
    }

    #[test]
    fn an_old_mark_victim_gets_the_pid() {
        let mut blob = Builder::new();
        let int = blob.int("int", 4);
        blob.tracepoint("mark_victim", &[int]);
        assert_eq!(of(&blob.blob()).2.victim_task, 0);
    }

    #[test]
    fn names_survive_a_recording() {
        let names = of(UPSTREAM_6_18).3;
        let text = serde_json::to_string(&names).unwrap();
        assert_eq!(serde_json::from_str::<Names>(&text).unwrap(), names);
    }
}
