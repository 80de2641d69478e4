//! The table and the JSON over reports that were made up.

use super::*;
use crate::kernel::capabilities;
use crate::kernel::tls_library::Visible;

fn host(effective: u64) -> Preflight {
    Preflight {
        release: "6.12.41+deb13-cloud-amd64".into(),
        version: Some((6, 12)),
        btf: Ok(4_685_889),
        helpers: Some(true),
        lockdown: Lockdown::Integrity,
        tracefs: Some("/sys/kernel/tracing".into()),
        jit: Some(true),
        trampolines: Trampolines::Available,
        unprivileged_bpf: Some(false),
        kernel_symbols: true,
        uid: Some(if effective == 0 { 1000 } else { 0 }),
        capabilities: capabilities::held(effective, 40, false),
        host_users: true,
        host_pids: true,
        memlock: Some(8 << 20),
        exe: "/usr/bin/trace502".into(),
        again: "doctor".into(),
    }
}

fn attached(name: &'static str, hook: &str, required: bool) -> ProbeReport {
    ProbeReport {
        name,
        hook: hook.into(),
        provider: Some("tp_btf".into()),
        required,
        attached: true,
        error: None,
        walked: Some(25_000),
        verifier: None,
        lost: "which process asked the upstream",
    }
}

fn refused(name: &'static str, hook: &str, required: bool) -> ProbeReport {
    ProbeReport {
        provider: None,
        attached: false,
        walked: None,
        error: Some("the kernel refused the program: Permission denied (os error 13)".into()),
        verifier: Some(
            (0..30).map(|line| format!("{line}: r{line} = 0\n")).collect::<String>() + "R1 \x1b[31minvalid\n",
        ),
        ..attached(name, hook, required)
    }
}

fn table(report: &Report, verbose: bool) -> (String, Verdict) {
    let mut out = Vec::new();
    let verdict = report.write(Doctor { json: false, verbose }, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), verdict)
}

const ALL: u64 = 0x1ff_ffff_ffff;

#[test]
fn ready() {
    let probes = [attached("state", "inet_sock_set_state", true), attached("reset_sent", "tcp_send_reset", false)];
    let (text, verdict) = table(
        &Report { preflight: &host(ALL), missing: &[], probes: &probes, proxies: &[], tells: None, refused: None },
        false,
    );
    assert_eq!(
        text,
        "\
Kernel        6.12.41+deb13-cloud-amd64
BTF           4576 KiB
Lockdown      integrity
Tracefs       /sys/kernel/tracing
Compiler      on (programs run as machine code)
Trampolines   available (fentry, fexit)
Symbols       readable
Privileges    uid 0; CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
              CAP_SYS_ADMIN CAP_SYSLOG CAP_SYS_RESOURCE
Verifier      2.5 % of its limit taken at most, by state

PROBE       PROVIDER    STATE     HOOK
state       tp_btf      attached  inet_sock_set_state
reset_sent  tp_btf      attached  tcp_send_reset

Ready: 2 probes attached.
"
    );
    assert_eq!((verdict, verdict.exit_code()), (Verdict::Ready, 0));
}

#[test]
fn degraded() {
    let probes = [attached("state", "inet_sock_set_state", true), refused("reset_sent", "tcp_send_reset", false)];
    let missing = [Missing { field: "mm_rss", strukt: "mm_struct", member: "rss_stat.count" }];
    let preflight = Preflight { tracefs: None, ..host(ALL) };
    let report =
        Report { preflight: &preflight, missing: &missing, probes: &probes, proxies: &[], tells: None, refused: None };
    let (text, verdict) = table(&report, false);
    let rest = text.split_once("\n\n").unwrap().1;
    assert!(text.contains("Not in BTF    mm_struct.rss_stat.count\n"));
    assert_eq!(
        rest,
        "\
PROBE       PROVIDER    STATE     HOOK
state       tp_btf      attached  inet_sock_set_state
reset_sent  -           missing   tcp_send_reset
    lost: which process asked the upstream (optional)
    why:  the kernel refused the program: Permission denied (os error 13)
    the verifier refused it: --verbose shows its log

NOTE      no tracefs is seen: nothing is lost, since no probe needs it
    to do: mount it where other tracing tools want it
           sudo mount -t tracefs tracefs /sys/kernel/tracing

Degraded: 1 of 2 probes missing; what is lost is named above.
"
    );
    assert_eq!((verdict, verdict.exit_code()), (Verdict::Degraded, 1));
}

#[test]
fn verbose_ends_with_the_verifiers_reason_and_no_raw_escape() {
    let probes = [refused("reset_sent", "tcp_send_reset", false)];
    let (text, _) = table(
        &Report { preflight: &host(ALL), missing: &[], probes: &probes, proxies: &[], tells: None, refused: None },
        true,
    );
    assert!(text.contains("    | (11 lines before)\n    | 11: r11 = 0\n"), "{text}");
    assert!(text.contains("    | R1 \\u{1b}[31minvalid\n"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains("--verbose"));
}

#[test]
fn a_required_probe_that_is_missing_cannot_run() {
    let probes = [refused("state", "inet_sock_set_state", true), attached("reset_sent", "tcp_send_reset", false)];
    let (text, verdict) = table(
        &Report { preflight: &host(ALL), missing: &[], probes: &probes, proxies: &[], tells: None, refused: None },
        false,
    );
    assert!(text.contains("state       -           MISSING   inet_sock_set_state\n"), "{text}");
    assert!(text.contains("which process asked the upstream (required)"));
    assert!(text.ends_with("\nCannot run: 1 required probe missing.\n"));
    assert_eq!((verdict, verdict.exit_code()), (Verdict::CannotRun, 2));
}

#[test]
fn nothing_attached_in_spite_of_every_privilege_points_to_the_container() {
    let probes = [refused("state", "inet_sock_set_state", true)];
    let (text, _) = table(
        &Report { preflight: &host(ALL), missing: &[], probes: &probes, proxies: &[], tells: None, refused: None },
        false,
    );
    assert!(text.contains("Cannot run: no probe attached. In a container, allow the bpf"), "{text}");
}

#[test]
fn without_privileges_it_says_what_to_run() {
    let (text, verdict) = table(
        &Report { preflight: &host(0), missing: &[], probes: &[], proxies: &[], tells: None, refused: None },
        false,
    );
    assert_eq!(
        text.split_once("Privileges").unwrap().1,
        "    uid 1000; no capability that is of use

No probe was tried.

FATAL     this process lacks CAP_BPF and CAP_PERFMON, without which nothing
          loads
    to do: run it as root, or give the program its capabilities once
           sudo /usr/bin/trace502 doctor
           sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin,cap_syslog+ep /usr/bin/trace502

DEGRADED  lost without CAP_SYS_PTRACE (to look at the processes of other users):
          executables, open sockets and network namespaces of other users'
          processes; without CAP_DAC_READ_SEARCH (to open files of other users):
          unix sockets, logs and libraries that only their owner may open;
          without CAP_SYS_ADMIN (to enter the network namespaces of containers):
          listeners and addresses inside containers; without CAP_SYSLOG (to read
          the addresses in /proc/kallsyms): the name of the kernel function that
          dropped a packet
    to do: run it as root, or give the program its capabilities once
           sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin,cap_syslog+ep /usr/bin/trace502

Cannot run: see what to do above.
"
    );
    assert_eq!(verdict.exit_code(), 2);
}

#[test]
fn what_cannot_be_loaded_at_all_is_never_ready() {
    let report = Report {
        preflight: &host(ALL),
        missing: &[],
        probes: &[],
        proxies: &[],
        tells: None,
        refused: Some("the kernel refused the maps"),
    };
    let (text, verdict) = table(&report, false);
    assert!(text.ends_with("\nCannot run: the kernel refused the maps.\n"), "{text}");
    assert_eq!(verdict.exit_code(), 2);
    let mut out = Vec::new();
    report.write(Doctor { json: true, verbose: false }, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&json["verdict"], &json["error"]), (&"cannot_run".into(), &"the kernel refused the maps".into()));
}

#[test]
fn json_says_the_same() {
    let probes = [attached("state", "inet_sock_set_state", true), refused("reset_sent", "tcp_send_reset", false)];
    let missing = [Missing { field: "mm_rss", strukt: "mm_struct", member: "rss_stat.count" }];
    let mut out = Vec::new();
    let report =
        Report { preflight: &host(ALL), missing: &missing, probes: &probes, proxies: &[], tells: None, refused: None };
    let verdict = report.write(Doctor { json: true, verbose: false }, &mut out).unwrap();
    assert_eq!(verdict, Verdict::Degraded);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["v"], 1);
    assert_eq!(json["verdict"], "degraded");
    assert_eq!(json["kernel"]["release"], "6.12.41+deb13-cloud-amd64");
    assert_eq!(json["kernel"]["lockdown"], "integrity");
    assert_eq!(json["kernel"]["btf"]["bytes"], 4_685_889);
    assert_eq!(json["kernel"]["trampolines"]["state"], "available");
    assert_eq!(json["kernel"]["capabilities"][0]["name"], "CAP_BPF");
    assert_eq!(json["kernel"]["capabilities"][0]["held"], true);
    assert_eq!(json["missing_members"][0], "mm_struct.rss_stat.count");
    assert_eq!(json["probes"][0]["provider"], "tp_btf");
    assert_eq!(json["probes"][1]["attached"], false);
    assert_eq!(json["probes"][1]["provider"], serde_json::Value::Null);
}

#[test]
fn nothing_but_commands_and_logs_is_wider_than_a_terminal() {
    let mut probe = refused("reset_sent", &"word ".repeat(60), false);
    probe.error = Some("long ".repeat(80));
    let preflight = Preflight { trampolines: Trampolines::Refused("no ".repeat(60)), ..host(0) };
    let (text, _) = table(
        &Report { preflight: &preflight, missing: &[], probes: &[probe], proxies: &[], tells: None, refused: None },
        false,
    );
    for line in text.lines().filter(|line| !line.contains("sudo ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn each_proxy_says_where_its_tls_is_read() {
    let proxies = [ProxyTls { name: "envoy".into(), pids: vec![7], tls: Visible::None }];
    let probes = [attached("state", "inet_sock_set_state", true)];
    let report =
        Report { preflight: &host(ALL), missing: &[], probes: &probes, proxies: &proxies, tells: None, refused: None };
    let (text, verdict) = table(&report, false);
    assert!(text.contains("TLS OF CLIENTS AND UPSTREAMS\nenvoy (pid 7): not read: no TLS library"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(verdict, Verdict::Ready, "what a proxy does not show is no fault of this host");
    let mut json = Vec::new();
    report.write(Doctor { json: true, verbose: false }, &mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["proxies"][0], serde_json::json!({ "name": "envoy", "pids": [7], "tls": "none" }));
}

#[test]
fn what_this_kernel_tells_is_told() {
    let tells = Tells {
        reset_reasons: 0,
        drop_reasons: 70,
        victims: true,
        many_hooks: false,
        mptcp: true,
        connections: 65_536,
    };
    let probes = [attached("state", "inet_sock_set_state", true)];
    let report = Report {
        preflight: &host(ALL),
        missing: &[],
        probes: &probes,
        proxies: &[],
        tells: Some(&tells),
        refused: None,
    };
    let (text, verdict) = table(&report, false);
    assert!(
        text.contains("\nReset reasons not told (Linux 6.10)") || text.contains("Reset reasons  not told"),
        "{text}"
    );
    assert!(text.contains("70 are told apart") && text.contains("room for 65536"), "{text}");
    // Nothing that could be here is missing.
    assert_eq!(verdict, Verdict::Ready);
}
