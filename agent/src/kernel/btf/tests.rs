//! The reader against blobs of our own, reduced copies of real kernels, damaged copies of those, and this host's kernel.

use super::fixture::{Builder, DEBIAN_6_1, DEBIAN_6_12, Keep, UPSTREAM_6_18, reduce};
use super::raw::Kind;
use super::*;
use crate::kernel::probes::{Hook, PROBES};
use trace502_ebpf::Offsets;

#[test]
fn members_are_found_through_groups_paths_typedefs_and_arrays() {
    let mut blob = Builder::new();
    let int = blob.int("int", 4);
    let long = blob.int("long", 8);
    let count = blob.to(Kind::Typedef, "count_t", long);
    let count = blob.to(Kind::Const, "", count);
    let cell = blob.structure("cell", 24, &[("pad", long, 0), ("count", count, 64)]);
    let cells = blob.array(cell, 4);
    let inner = blob.group(Kind::Union, "", 8, false, &[("either", int, 0), ("or", int, 0)]);
    let outer = blob.structure("", 16, &[("first", long, 0), ("", inner, 64)]);
    let pointer = blob.to(Kind::Ptr, "", cell);
    blob.structure("whole", 200, &[("a", int, 0), ("", outer, 64), ("cells", cells, 256), ("next", pointer, 1024)]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();

    assert_eq!(btf.member("whole", "a"), Some(Member { offset: 0, size: 4, stride: None }));
    assert_eq!(btf.member_offset("whole", "or"), Some(16));
    assert_eq!(btf.member("whole", "cells"), Some(Member { offset: 32, size: 96, stride: Some(24) }));
    assert_eq!(btf.member("whole", "cells.count"), Some(Member { offset: 40, size: 8, stride: Some(24) }));
    assert_eq!(btf.member_size("whole", "next"), Some(8));
    assert_eq!(btf.member("whole", "next.count"), None, "a pointer is not followed");
    for (strukt, path) in
        [("whole", "b"), ("whole", ""), ("whole", "a.b"), ("whole", "cells."), ("who", "a"), ("", "a")]
    {
        assert_eq!(btf.member(strukt, path), None, "{strukt}.{path}");
    }
}

#[test]
fn a_bitfield_is_refused_and_its_neighbours_are_not() {
    let mut blob = Builder::new();
    let int = blob.int("int", 4);
    blob.group(Kind::Struct, "bits", 8, true, &[("few", int, 3 << 24), ("odd", int, 5), ("plain", int, 32)]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.member_offset("bits", "few"), None);
    assert_eq!(btf.member_offset("bits", "odd"), None);
    assert_eq!(btf.member_offset("bits", "plain"), Some(4));
}

#[test]
fn enumerators_keep_sign_and_width() {
    let mut blob = Builder::new();
    blob.enumeration(Kind::Enum, "small", false, &[("ZERO", 0), ("MASK", 0xffff_0000)]);
    blob.enumeration(Kind::Enum, "signed", true, &[("MINUS", -1)]);
    blob.enumeration(Kind::Enum64, "wide", false, &[("BIG", 1 << 40)]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.enum_values("small"), [("ZERO".into(), 0), ("MASK".into(), 0xffff_0000)]);
    assert_eq!(btf.enum_values("signed"), [("MINUS".into(), -1)]);
    assert_eq!(btf.enum_values("wide"), [("BIG".into(), 1 << 40)]);
    assert_eq!(btf.enum_values("none"), []);
}

#[test]
fn one_name_is_looked_up_without_an_index() {
    let mut blob = Builder::new();
    blob.enumeration(Kind::Enum, "helpers", false, &[]);
    blob.structure("helpers", 0, &[]);
    blob.unsigned("helpers", &["FIRST", "SECOND"]);
    blob.enumeration(Kind::Enum64, "wide", false, &[("BIG", 1 << 40), ("BIGGER", 1 << 41)]);
    let blob = blob.blob();
    let ask = |enumeration, name| lists(&blob, enumeration, name).unwrap();
    assert_eq!(
        [ask("helpers", "SECOND"), ask("helpers", "SECON"), ask("helpers", "BIG")].map(Option::unwrap),
        [true, false, false]
    );
    assert_eq!([ask("wide", "BIGGER"), ask("wide", "FIRST")], [Some(true), Some(false)]);
    assert_eq!([ask("none", "FIRST"), ask("", "FIRST")], [None, None]);
    assert!(matches!(lists(&blob[..20], "helpers", "FIRST"), Err(BtfError::Short { bytes: 20 })));
}

#[test]
fn a_flag_of_one_bit_is_found_by_its_bit() {
    let mut blob = Builder::new();
    let byte = blob.int("unsigned char", 1);
    blob.group(Kind::Struct, "flags", 4, true, &[("reuse", byte, 24 | 4 << 24), ("only", byte, 29 | 1 << 24)]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!((btf.bit_offset("flags", "only"), btf.bit_offset("flags", "other")), (Some(29), None));
    assert_eq!(btf.bit_offset("none", "only"), None);
}

#[test]
fn prototypes_are_spelled_as_in_c() {
    let mut blob = Builder::new();
    let int = blob.int("int", 4);
    let sock = blob.record(Kind::Fwd, "sock", 0, 0, &[]);
    let constant = blob.to(Kind::Const, "", sock);
    let pointer = blob.to(Kind::Ptr, "", constant);
    let twice = blob.to(Kind::Ptr, "", pointer);
    blob.tracepoint("seen", &[pointer, int, twice]);
    let prototype = blob.prototype(&[pointer]);
    blob.record(Kind::Func, "inet_sendmsg", 1, prototype, &[]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.tracepoint("seen").unwrap(), ["const struct sock *", "int", "const struct sock **"]);
    assert_eq!(btf.func_arg_count("seen"), Some(3));
    assert_eq!(btf.func("inet_sendmsg").unwrap(), ["const struct sock *"]);
    assert_eq!((btf.tracepoint("unseen"), btf.func("seen")), (None, None));
}

#[test]
fn what_is_no_btf_is_an_error_that_says_so() {
    let good = Builder::new().blob();
    assert!(Btf::parse(&good).is_ok());
    let with = |at: usize, value: u8| {
        let mut blob = good.clone();
        blob[at] = value;
        Btf::parse(&blob).map(|_| ()).unwrap_err()
    };
    assert!(matches!(Btf::parse(&[]), Err(BtfError::Short { bytes: 0 })));
    assert!(matches!(Btf::parse(&good[..20]), Err(BtfError::Short { bytes: 20 })));
    assert!(matches!(with(0, 0), BtfError::Magic(0xeb00)));
    assert!(matches!(with(2, 9), BtfError::Version(9)));
    assert!(matches!(with(15, 0xff), BtfError::Section("types")));
    assert!(matches!(with(23, 0xff), BtfError::Section("strings")));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert!(matches!(Btf::parse(&swapped), Err(BtfError::BigEndian)));
    let mut blob = Builder::new();
    blob.int("int", 4);
    let mut blob = blob.blob();
    blob[24 + 7] = 0x1f;
    assert!(matches!(Btf::parse(&blob), Err(BtfError::Kind { id: 1, kind: 0x1f })));
    blob[24 + 7] = 4;
    blob[24 + 4] = 2;
    assert!(matches!(Btf::parse(&blob), Err(BtfError::Truncated { id: 1 })));
}

#[test]
fn loops_end() {
    let mut blob = Builder::new();
    // A typedef of itself, a struct inside itself, and a wide one whose every member is itself.
    blob.to(Kind::Typedef, "round", 1);
    blob.structure("own", 8, &[("", 2, 0), ("x", 1, 0)]);
    let many = vec![("", 3, 0); 2000];
    blob.structure("many", 8, &many);
    blob.array(4, 2);
    blob.structure("deep", 8, &[("array", 4, 0)]);
    blob.to(Kind::Ptr, "", 6);
    blob.tracepoint("ring", &[6]);
    let blob = blob.blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!(btf.member("own", "x"), None);
    assert_eq!(btf.member("many", "x"), None);
    assert_eq!(btf.member("deep", "array.x"), None);
    assert!(btf.tracepoint("ring").unwrap()[0].starts_with("void"));
}

/// Asks everything that the agent asks.
fn ask(btf: &Btf) {
    for (_, strukt, member) in Offsets::TABLE {
        btf.member(strukt, member);
    }
    for name in TRACEPOINTS {
        btf.tracepoint(name);
    }
    for name in FUNCTIONS {
        btf.func(name);
    }
    for (name, _) in ENUMS {
        btf.enum_values(name);
    }
}

#[test]
fn every_truncation_is_an_error_or_an_answer() {
    for length in 0..DEBIAN_6_1.len() {
        // The strings come last: the header refuses whatever is cut.
        assert!(Btf::parse(&DEBIAN_6_1[..length]).is_err(), "{length}");
    }
    // With a header that agrees with the cut, types are cut in the middle.
    let types = u32::from_le_bytes(*DEBIAN_6_1[12..].first_chunk().unwrap());
    for cut in 0..types {
        let mut blob = DEBIAN_6_1.to_vec();
        blob[12..16].copy_from_slice(&cut.to_le_bytes());
        if let Ok(btf) = Btf::parse(&blob) {
            assert!(btf.raw.count() <= cut / 12);
        }
    }
}

#[test]
fn flipped_bytes_are_errors_or_answers() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..400 {
        let mut blob = DEBIAN_6_12.to_vec();
        for _ in 0..=random() % 8 {
            let at = random() as usize % blob.len();
            blob[at] = random() as u8;
        }
        if let Ok(btf) = Btf::parse(&blob) {
            ask(&btf);
        }
    }
}

#[test]
fn the_kernels_of_the_fixtures_answer() {
    for blob in [DEBIAN_6_1, DEBIAN_6_12, UPSTREAM_6_18] {
        let btf = Btf::parse(blob).unwrap();
        assert_eq!(btf.tracepoint("inet_sock_set_state").unwrap(), ["const struct sock *", "const int", "const int"]);
        assert_eq!(btf.tracepoint("mark_victim").unwrap()[0], "struct task_struct *");
        assert_eq!(btf.member_offset("socket", "sk"), Some(24));
        assert!(btf.func("inet_sendmsg").is_some());
    }
    let old = Btf::parse(DEBIAN_6_1).unwrap();
    let new = Btf::parse(DEBIAN_6_12).unwrap();
    assert_eq!((old.func_arg_count("tcp_send_reset"), new.func_arg_count("tcp_send_reset")), (Some(2), Some(3)));
    assert_eq!((old.tracepoint("sock_send_length"), new.func_arg_count("sock_send_length")), (None, Some(3)));
    assert!(old.member("sock", "sk_protocol").is_some_and(|member| member.size == 2));
}

#[test]
fn every_probe_has_a_provider_on_every_kernel_of_the_fixtures() {
    for (kernel, blob) in [("6.1", DEBIAN_6_1), ("6.12", DEBIAN_6_12), ("6.18", UPSTREAM_6_18)] {
        let btf = Btf::parse(blob).unwrap();
        let exists = |hook: &Hook| match hook {
            Hook::TpBtf(name) => btf.tracepoint(name).is_some(),
            Hook::Fexit(name) => btf.func(name).is_some(),
            Hook::Iter(name) => btf.func(&format!("bpf_iter_{name}")).is_some(),
            Hook::LibcConnect | Hook::Go | Hook::Tls => true,
        };
        for probe in PROBES {
            let carried = probe.providers.iter().any(|provider| provider.iter().all(|(_, hook)| exists(hook)));
            assert!(carried, "{} on {kernel}", probe.name);
            for field in probe.needs {
                assert!(Offsets::TABLE.iter().any(|(name, _, _)| name == field), "{} needs {field}", probe.name);
            }
        }
    }
}

#[test]
fn this_host_answers_as_its_fixture_does() {
    // Where the host has BTF at all: a build machine may not.
    let Ok(blob) = read(Path::new("/")) else { return };
    let btf = Btf::parse(&blob).unwrap();
    assert!(btf.raw.count() > 10_000);
    assert_eq!(btf.member_offset("list_head", "prev"), Some(8));
    assert_eq!(btf.member_offset("sock_common", "skc_dport"), Some(12));
    assert!(btf.tracepoint("inet_sock_set_state").is_some_and(|arguments| arguments.len() == 3));
    let small = reduce(&btf, &keep());
    let small = Btf::parse(&small).unwrap();
    for (_, strukt, member) in Offsets::TABLE {
        assert_eq!(small.member(strukt, member), btf.member(strukt, member), "{strukt}.{member}");
    }
    for name in TRACEPOINTS {
        assert_eq!(small.tracepoint(name), btf.tracepoint(name), "{name}");
    }
    for name in FUNCTIONS {
        assert_eq!(small.func(name), btf.func(name), "{name}");
    }
}

/// Tracepoints whose prototypes the fixtures keep.
const TRACEPOINTS: &[&str] = &[
    "cgroup_attach_task",
    "cgroup_mkdir",
    "inet_sk_error_report",
    "inet_sock_set_state",
    "kfree_skb",
    "mark_victim",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
    "signal_generate",
    "sock_recv_length",
    "sock_send_length",
    "sys_enter",
    "sys_exit",
    "tcp_destroy_sock",
    "tcp_probe",
    "tcp_rcv_space_adjust",
    "tcp_receive_reset",
    "tcp_retransmit_skb",
    "tcp_send_reset",
];

/// Functions whose prototypes the fixtures keep: what fentry and fexit hook where they can.
const FUNCTIONS: &[&str] = &[
    "__sys_connect",
    "__sys_connect_file",
    "bpf_iter_task_file",
    "bpf_iter_tcp",
    "inet6_recvmsg",
    "inet6_sendmsg",
    "inet_accept",
    "inet_csk_accept",
    "inet_csk_listen_start",
    "inet_csk_listen_stop",
    "inet_listen",
    "inet_recvmsg",
    "inet_sendmsg",
    "inet_sendpage",
    "inet_stream_connect",
    "tcp_v4_connect",
    "tcp_v6_connect",
    "unix_accept",
    "unix_listen",
    "unix_release",
    "unix_stream_connect",
    "unix_stream_recvmsg",
    "unix_stream_sendmsg",
    "unix_stream_sendpage",
];

const ENUMS: &[(&str, &[&str])] = &[
    ("sk_rst_reason", &[]),
    ("skb_drop_reason", &[]),
    ("bpf_func_id", &["BPF_FUNC_ringbuf_output", "BPF_FUNC_sk_storage_get", "BPF_FUNC_task_pt_regs"]),
];

/// Structures that the table does not name yet, and is likely to.
const NEIGHBOURS: &[&str] =
    &["file", "inet_request_sock", "inet_timewait_sock", "iov_iter", "msghdr", "request_sock", "sockaddr_un"];

fn keep() -> Keep<'static> {
    static MEMBERS: std::sync::LazyLock<Vec<(&str, &str)>> = std::sync::LazyLock::new(|| {
        let table = Offsets::TABLE.iter().map(|&(_, strukt, member)| (strukt, member));
        table.chain(NEIGHBOURS.iter().map(|&strukt| (strukt, ""))).collect()
    });
    Keep { members: &MEMBERS, tracepoints: TRACEPOINTS, functions: FUNCTIONS, enums: ENUMS }
}

/// Makes a fixture again, when the table enters a structure that they lack: `BTF_IN=vmlinux.btf BTF_OUT=tests/fixtures/btf/NAME.btf cargo test -p
/// trace502 --lib make_a_fixture -- --ignored`. The blob of a packaged kernel is section `.BTF` of its unpacked vmlinuz.
#[test]
#[ignore = "writes a file"]
fn make_a_fixture() {
    let blob = std::fs::read(std::env::var("BTF_IN").unwrap()).unwrap();
    let btf = Btf::parse(&blob).unwrap();
    let (_, missing) = crate::kernel::offsets::resolve(&btf);
    let small = reduce(&btf, &keep());
    println!("{} types, {} bytes, missing: {missing:?}", Btf::parse(&small).unwrap().raw.count(), small.len());
    for (field, strukt, member) in Offsets::TABLE {
        println!("{field} {}", btf.member_offset(strukt, member).unwrap_or(u32::MAX));
    }
    std::fs::write(std::env::var("BTF_OUT").unwrap(), small).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    let blob = read(Path::new("/")).unwrap();
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let btf = Btf::parse(&blob).unwrap();
        let parsed = start.elapsed();
        ask(&btf);
        println!("parse {parsed:?}, parse and ask {:?}", start.elapsed());
    }
}
