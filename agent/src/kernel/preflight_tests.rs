//! Each kind of bad ground, made from files, with its sentence and its way out.

use super::super::btf::fixture::{Builder, UPSTREAM_6_18};
use super::super::findings::{Finding, Level};
use super::super::tempdir::Root;
use super::*;

/// A host that lacks nothing.
fn host() -> Root {
    let root = Root::new();
    root.write("proc/sys/kernel/osrelease", "6.12.41+deb13-cloud-amd64\n");
    root.write("proc/sys/kernel/cap_last_cap", "40\n");
    root.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
    root.write("proc/sys/net/core/bpf_jit_enable", "1\n");
    root.write("proc/self/status", status("000001ffffffffff"));
    root.write("proc/self/uid_map", "         0          0 4294967295\n");
    root.write("proc/self/limits", limits("8388608"));
    root.write("proc/kallsyms", "ffffffff81000000 T _stext\n");
    root.link("proc/self/ns/pid", "pid:[4026531836]");
    root.link("proc/self/exe", "/usr/bin/trace502");
    root.write("sys/kernel/btf/vmlinux", UPSTREAM_6_18);
    root.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    root.write("sys/kernel/tracing/events/header_page", "");
    root
}

fn status(effective: &str) -> String {
    format!("Name:\ttrace502\nUid:\t0\t0\t0\t0\nCapInh:\t0\nCapEff:\t{effective}\n")
}

fn limits(memlock: &str) -> String {
    format!("Limit   Soft Limit   Hard Limit   Units\nMax locked memory   {memlock}   {memlock}   bytes\n")
}

/// The one finding of a host.
fn only(root: &Root) -> Finding {
    let mut found = Preflight::read(root.path()).findings();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn a_host_with_everything_has_no_findings() {
    let root = host();
    let preflight = Preflight::read(root.path());
    assert_eq!(preflight.findings(), []);
    assert!(!preflight.hopeless());
    assert_eq!((preflight.version, preflight.uid), (Some((6, 12)), Some(0)));
    assert_eq!((preflight.lockdown, preflight.memlock), (Lockdown::Integrity, Some(8_388_608)));
    assert_eq!(preflight.btf, Ok(UPSTREAM_6_18.len()));
    assert_eq!(preflight.tracefs.as_deref(), Some(Path::new("/sys/kernel/tracing")));
    assert!(preflight.kernel_symbols && preflight.helpers == Some(true));
    assert_eq!((preflight.jit, preflight.unprivileged_bpf), (Some(true), Some(false)));
    assert_eq!(preflight.trampolines, Trampolines::NotTried);
    assert!(!preflight.counts_memlock() && raise_memlock(&preflight).is_ok());
}

#[test]
fn no_btf() {
    let root = host();
    root.remove("sys/kernel/btf/vmlinux");
    let found = only(&root);
    assert_eq!((found.id, found.level), ("no_btf", Level::Fatal));
    assert!(found.says.contains("built without CONFIG_DEBUG_INFO_BTF"), "{}", found.says);
    assert!(found.fix.contains("boot a kernel built with"), "{}", found.fix);

    root.write("sys/kernel/btf/vmlinux", &UPSTREAM_6_18[..1000]);
    assert!(only(&root).says.contains("damaged"));
}

#[test]
fn no_tracefs() {
    let root = host();
    root.remove("sys/kernel/tracing/events/header_page");
    std::fs::remove_dir(root.path().join("sys/kernel/tracing/events")).unwrap();
    let found = only(&root);
    assert_eq!((found.id, found.level), ("no_tracefs", Level::Note));
    assert_eq!(found.run, ["sudo mount -t tracefs tracefs /sys/kernel/tracing"]);
    root.write("sys/kernel/debug/tracing/events/header_page", "");
    assert_eq!(Preflight::read(root.path()).tracefs.as_deref(), Some(Path::new("/sys/kernel/debug/tracing")));
}

#[test]
fn not_root() {
    let root = host();
    root.write("proc/self/status", status("0000000000000000"));
    let found = Preflight::read(root.path()).findings();
    assert_eq!((found[0].id, found[0].level), ("not_privileged", Level::Fatal));
    assert_eq!(found[0].says, "this process lacks CAP_BPF and CAP_PERFMON, without which nothing loads");
    assert_eq!(found[0].fix, "run it as root, or give the program its capabilities once");
    assert_eq!(
        found[0].run,
        [
            "sudo /usr/bin/trace502 doctor",
            "sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin,cap_syslog+ep \
             /usr/bin/trace502"
        ]
    );
    assert_eq!(found[1].id, "fewer_capabilities");
    root.write("proc/self/cmdline", "trace502\0live\0--path\0/it's\0--status=502,504\0");
    let found = Preflight::read(root.path()).findings();
    assert_eq!(found[0].run[0], r"sudo /usr/bin/trace502 live --path '/it'\''s' --status=502,504");
}

#[test]
fn some_capabilities() {
    let root = host();
    // CAP_BPF, CAP_PERFMON, CAP_SYSLOG, CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH.
    root.write("proc/self/status", status("000000c400200004"));
    let found = only(&root);
    assert_eq!((found.id, found.level), ("fewer_capabilities", Level::Degraded));
    assert!(found.says.starts_with("lost without CAP_SYS_PTRACE (to look at the processes of other users): exec"));
    let preflight = Preflight::read(root.path());
    assert!(preflight.holds("CAP_BPF") && !preflight.holds("CAP_SYS_PTRACE"));
    // CAP_SYS_ADMIN stands in for the first two.
    root.write("proc/self/status", status("0000000400280004"));
    assert!(Preflight::read(root.path()).findings().is_empty());
}

#[test]
fn kernel_too_old() {
    let root = host();
    root.write("proc/sys/kernel/osrelease", "5.10.0-32-amd64\n");
    root.write("sys/kernel/btf/vmlinux", functions(&["BPF_FUNC_ringbuf_output"]));
    let preflight = Preflight::read(root.path());
    assert!(preflight.counts_memlock());
    let found = only(&root);
    assert_eq!((found.id, found.level), ("kernel_too_old", Level::Fatal));
    assert_eq!(found.says, "kernel 5.10.0-32-amd64 is too old: it lacks helpers that came with 5.15");
    assert_eq!(found.fix, "boot a kernel 5.15 or newer; 6.1 and newer are tested");
    // What a distribution carried back counts, not the number.
    root.write("sys/kernel/btf/vmlinux", functions(&[HELPER]));
    assert!(Preflight::read(root.path()).findings().is_empty());
    // Without BTF the number is all there is.
    root.remove("sys/kernel/btf/vmlinux");
    let ids: Vec<&str> = Preflight::read(root.path()).findings().iter().map(|found| found.id).collect();
    assert_eq!(ids, ["kernel_too_old", "no_btf"]);
}

#[test]
fn memlock_is_raised_where_it_counts() {
    let root = host();
    root.write("proc/sys/kernel/osrelease", "5.10.0-32-amd64\n");
    let raised = raise_memlock(&Preflight::read(root.path()));
    let now = Preflight::read(Path::new("/")).memlock;
    match raised {
        Ok(()) => assert_eq!(now, None),
        Err(error) => assert!(error.to_string().contains("run with CAP_SYS_RESOURCE"), "{error}"),
    }
}

fn functions(names: &[&str]) -> Vec<u8> {
    let mut blob = Builder::new();
    blob.unsigned("bpf_func_id", names);
    blob.blob()
}

#[test]
fn old_kernels_ask_for_other_capabilities() {
    let root = host();
    root.write("proc/sys/kernel/osrelease", "4.18.0-553.el8.x86_64\n");
    root.write("proc/sys/kernel/cap_last_cap", "37\n");
    root.write("proc/self/status", status("0000000000000000"));
    let found = Preflight::read(root.path()).findings();
    assert_eq!(found[0].says, "this process lacks CAP_SYS_ADMIN, without which nothing loads");
    assert_eq!((found[0].fix.as_str(), found[0].run.len()), ("run it as root", 1));
    assert!(found[1].says.contains("CAP_SYS_RESOURCE (to raise RLIMIT_MEMLOCK before kernel 5.11)"));
}

#[test]
fn lockdown_confidentiality() {
    let root = host();
    root.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    let found = only(&root);
    assert_eq!((found.id, found.level), ("lockdown_confidentiality", Level::Fatal));
    assert_eq!(found.fix, "boot without lockdown=confidentiality; lockdown=integrity is fine");
    root.remove("sys/kernel/security/lockdown");
    assert_eq!(Preflight::read(root.path()).lockdown, Lockdown::Unknown);
}

#[test]
fn containers() {
    let root = host();
    root.remove("proc/self/ns/pid");
    root.link("proc/self/ns/pid", "pid:[4026532201]");
    let found = only(&root);
    assert_eq!((found.id, found.level), ("pid_namespace", Level::Degraded));
    assert!(found.fix.contains("hostPID: true"));
    root.write("proc/self/uid_map", "0 100000 65536\n");
    let found = &Preflight::read(root.path()).findings()[0];
    assert_eq!((found.id, found.level), ("user_namespace", Level::Fatal));
}

#[test]
fn no_jit() {
    let root = host();
    root.write("proc/sys/net/core/bpf_jit_enable", "0\n");
    let found = only(&root);
    assert_eq!((found.id, found.level), ("no_jit", Level::Degraded));
    assert_eq!(found.run, ["sudo sysctl net.core.bpf_jit_enable=1"]);
}

#[test]
fn an_empty_root_is_hopeless_and_no_panic() {
    let root = Root::new();
    let preflight = Preflight::read(root.path());
    assert!(preflight.hopeless());
    assert_eq!((preflight.memlock, preflight.uid), (None, None));
    assert_eq!(preflight.exe, "trace502");
}

#[test]
fn this_host() {
    let preflight = Preflight::read(Path::new("/"));
    assert!(preflight.version.is_some(), "{}", preflight.release);
    assert!(preflight.uid.is_some() && !preflight.exe.is_empty());
    if preflight.btf.is_ok() {
        assert_eq!(preflight.helpers, preflight.version.map(|version| version >= OLDEST));
    }
    println!("{preflight:#?}\n{:#?}", preflight.findings());
}
