//! Each cause with a story that has it and one that looks alike and has not; and the tables held together.

use std::collections::BTreeSet;

use super::*;
use crate::correlate::fixture::*;
use crate::host::{Activity, DescriptorFacts, ListenerFacts, MemoryFacts, PathFacts};
use crate::model::Confidence::{Certain, Likely, Unknown};
use crate::model::*;
use crate::text::{MILLI, SECOND};

const IDS: [&str; 37] = [
    "upstream_oom_killed",
    "upstream_crashed",
    "upstream_killed",
    "upstream_exited",
    "upstream_starting",
    "upstream_crash_loop",
    "no_listener",
    "wrong_interface",
    "firewall_reject",
    "firewall_drop",
    "syn_timeout",
    "accept_queue_full",
    "host_unreachable",
    "network_unreachable",
    "port_exhaustion",
    "permission_denied",
    "socket_missing",
    "refused_remote",
    "never_accepted",
    "request_not_read",
    "response_timeout",
    "send_timeout",
    "upstream_reset",
    "upstream_closed_early",
    "keepalive_race",
    "stale_connection",
    "response_truncated",
    "invalid_response",
    "header_too_big",
    "tls_mismatch",
    "h2_mismatch",
    "tls_handshake_failed",
    "upstream_error",
    "no_live_upstream",
    "dns_failure",
    "proxy_limit",
    "unattributed",
];

pub(super) fn here() -> Endpoint {
    Endpoint::Tcp(addr(UPSTREAM))
}

pub(super) fn nginx() -> World {
    let mut world = World::new("nginx");
    world.listening(here(), SERVER).pass(10 * SECOND);
    world
}

#[test]
fn the_table_and_the_public_ids_are_the_same() {
    let table: BTreeSet<&str> = CAUSES.iter().map(|c| c.id).collect();
    let public: BTreeSet<&str> = IDS.into_iter().collect();
    assert_eq!(table, public);
    assert_eq!(CAUSES.len(), table.len(), "an id stands twice");
    for cause in CATALOGUE {
        assert!(by_id(cause.id).is_some());
        for text in [cause.meaning, cause.proof, cause.remedy] {
            assert!(text.len() > 20 && text.ends_with('.'), "{}: {text}", cause.id);
        }
    }
}

// --- processes ---

#[test]
fn oom_kill_of_the_process_that_had_the_request() {
    let mut w = nginx();
    w.host.memory.insert(SERVER, MemoryFacts { limit: Some(64 << 20), ..MemoryFacts::default() });
    w.see(Fact::OomKill { victim: proc(SERVER, "uvicorn"), rss_bytes: Some(66_899_149) }).pass(MILLI);
    w.exit(SERVER, ExitStatus::Signal { signal: 9, core: false }).pass(MILLI);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 90_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(39 * MILLI + 210_000);
    w.answered(502);
    let i = w.expect("upstream_oom_killed", Certain);
    assert_eq!(i.summary, "uvicorn (pid 812) was OOM-killed 41 ms before: memory cgroup limit 64 MiB, RSS 63.8 MiB");
    assert_eq!(i.group, Group::Process);
    assert_eq!(i.upstream.unwrap().process.unwrap().unit.as_deref(), Some("shop.service"));
    assert!(i.fix[0].contains("shop.service"));
    assert!(i.evidence.iter().any(|e| e.kind == "oom_kill" && e.t_us == -41_210));
}

#[test]
fn refused_seconds_after_an_oom_kill_is_still_the_oom_kill() {
    let mut w = nginx();
    w.see(Fact::OomKill { victim: proc(SERVER, "uvicorn"), rss_bytes: None });
    w.exit(SERVER, ExitStatus::Signal { signal: 9, core: false });
    w.listener_closed(here(), SERVER).pass(3 * SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w.expect("upstream_oom_killed", Certain);
}

#[test]
fn oom_kill_of_somebody_else_is_no_cause() {
    let mut w = nginx();
    w.see(Fact::OomKill { victim: proc(77, "postgres"), rss_bytes: None });
    w.exit(77, ExitStatus::Signal { signal: 9, core: false }).pass(MILLI);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 90_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}

#[test]
fn crash_of_the_process_that_had_the_request() {
    let mut w = nginx();
    w.exit(SERVER, ExitStatus::Signal { signal: libc::SIGSEGV, core: true }).pass(200_000);
    let mut a = w.attempt();
    a.conn.reset = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_crashed", Certain);
    assert!(
        i.summary.contains("SIGSEGV (core dumped)") && i.summary.contains("while it had this request"),
        "{}",
        i.summary
    );
}

#[test]
fn a_crash_that_somebody_sent_is_a_kill() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGABRT, proc(60, "watchdog")).pass(MILLI);
    w.exit(SERVER, ExitStatus::Signal { signal: libc::SIGABRT, core: false }).pass(200_000);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_killed", Certain);
    assert!(i.summary.contains("SIGABRT by watchdog (pid 60)"), "{}", i.summary);
}

#[test]
fn a_graceful_stop_closes_first_and_exits_later() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGTERM, proc(1, "systemd")).pass(5 * MILLI);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    assert_eq!(w.notices.len(), 0, "its exit is to be waited for");
    w.pass(80 * MILLI).exit(SERVER, ExitStatus::Code(0));
    let i = w.expect("upstream_killed", Certain);
    assert!(i.fix[0].contains("journalctl -u shop.service"), "{:?}", i.fix);
}

#[test]
fn a_stop_whose_end_is_not_seen_is_likely() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGTERM, proc(1, "systemd")).pass(5 * MILLI);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_killed", Likely);
    assert!(i.evidence.iter().any(|e| e.kind == "missing" && e.text.contains("the end of the process")));
}

#[test]
fn the_exit_of_the_process_that_held_the_connection() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.pass(3 * MILLI).exit(SERVER, ExitStatus::Code(3));
    let i = w.expect("upstream_exited", Certain);
    assert!(i.summary.contains("exit status 3"), "{}", i.summary);
}

#[test]
fn an_exit_of_another_child_is_no_cause() {
    let mut w = nginx();
    w.see(Fact::Fork { parent: SERVER, child: proc(901, "uvicorn") });
    w.see(Fact::Fork { parent: SERVER, child: proc(902, "uvicorn") }).pass(SECOND);
    w.host.processes.insert(901, process(901, "uvicorn", "/usr/bin/python3.11"));
    w.exit(902, ExitStatus::Signal { signal: 11, core: false }).pass(100_000);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(901));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}

#[test]
fn a_killed_child_behind_a_unix_socket() {
    let mut w = World::new("nginx");
    let fpm = Endpoint::Unix("/run/php/fpm.sock".into());
    w.listening(fpm.clone(), 500);
    w.see(Fact::Fork { parent: 500, child: proc(501, "php-fpm") }).pass(SECOND);
    w.exit(501, ExitStatus::Signal { signal: 11, core: false }).pass(100_000);
    let mut a = w.attempt();
    a.endpoint = fpm;
    a.tcp = None;
    a.conn.flow = None;
    a.conn.errno = Some(libc::ECONNRESET);
    a.listener = ListenerSeen::Present { cookie: 1_400, pid: 500, queue: 0, limit: 128 };
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_crashed", Certain);
}

#[test]
fn a_successor_that_does_not_listen_yet() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGTERM, proc(1, "systemd")).exit(SERVER, ExitStatus::Code(0));
    w.listener_closed(here(), SERVER).pass(200 * MILLI);
    let mut next = process(813, "uvicorn", "/usr/bin/python3.11");
    next.unit = Some("shop.service".into());
    next.started = w.now;
    w.host.processes.insert(813, next);
    w.pass(800 * MILLI);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_starting", Certain);
    assert!(i.summary.starts_with("uvicorn (pid 813) was started 8"), "{}", i.summary);
}

#[test]
fn another_program_of_the_same_interpreter_is_no_successor() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGTERM, proc(60, "bash")).exit(SERVER, ExitStatus::Code(0));
    w.listener_closed(here(), SERVER).pass(200 * MILLI);
    let mut other = process(813, "python3", "/usr/bin/python3.11");
    other.cmdline = vec!["python3.11".into(), "backup.py".into()];
    other.started = w.now;
    w.host.processes.insert(813, other);
    w.pass(800 * MILLI);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w.expect("upstream_killed", Certain);
}

#[test]
fn three_ends_within_two_minutes_are_a_loop() {
    let mut w = World::new("nginx");
    for pid in [812, 813, 814] {
        w.host.processes.insert(pid, process(pid, "uvicorn", "/usr/bin/python3.11"));
        w.see(Fact::Fork { parent: 50, child: proc(pid, "uvicorn") });
        w.listening(here(), pid).pass(5 * SECOND);
        w.exit(pid, ExitStatus::Code(3)).listener_closed(here(), pid).pass(SECOND);
    }
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_crash_loop", Certain);
    assert!(i.summary.contains("died 3 times") && i.summary.contains("exited with status 3"), "{}", i.summary);
}

#[test]
fn two_ends_are_no_loop() {
    let mut w = World::new("nginx");
    for pid in [812, 813] {
        w.host.processes.insert(pid, process(pid, "uvicorn", "/usr/bin/python3.11"));
        w.see(Fact::Fork { parent: 50, child: proc(pid, "uvicorn") });
        w.listening(here(), pid).pass(5 * SECOND);
        w.exit(pid, ExitStatus::Code(3)).listener_closed(here(), pid).pass(SECOND);
    }
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w.expect("upstream_exited", Certain);
}

// --- connect ---

#[test]
fn nothing_listens_and_the_port_is_off_by_one() {
    let mut w = World::new("nginx");
    w.host.listeners.push(listener("127.0.0.1:8001", SERVER));
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("no_listener", Certain);
    assert_eq!(i.summary, "nothing listens on 127.0.0.1:8000");
    assert_eq!(i.fix[0], "did you mean 127.0.0.1:8001? uvicorn (pid 812) listens there");
    assert_eq!(i.time, "2026-11-21T03:16:40.000080Z");
    assert_eq!(i.attempts.len(), 1);
    assert_eq!(i.request.path.as_deref(), Some("/api/cart"));
}

fn listener(at: &str, pid: u32) -> ListenerFacts {
    let endpoint = Endpoint::Tcp(addr(at));
    ListenerFacts { endpoint, pid: Some(pid), name: None, queue: 0, limit: 128, dual: false }
}

#[test]
fn the_port_is_listened_on_elsewhere() {
    let mut w = World::new("nginx");
    w.host.listeners.push(listener("[::1]:8000", SERVER));
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("wrong_interface", Certain);
    assert!(i.summary.contains("uvicorn (pid 812) listens on [::1]:8000"), "{}", i.summary);
    assert!(i.fix[1].contains("proxy_pass"), "{:?}", i.fix);
}

#[test]
fn refused_although_somebody_listens_is_a_filter() {
    let mut w = nginx();
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

#[test]
fn refused_by_the_stack_just_before_somebody_listened_is_no_filter() {
    let mut w = World::new("nginx");
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("no_listener", Certain);
    assert!(i.summary.contains("yet"), "{}", i.summary);
}

#[test]
fn a_redirected_connection_that_is_refused_is_no_filter() {
    let mut w = nginx();
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    let flow = a.conn.flow.unwrap();
    let sender = Flow { local: addr("172.17.0.2:80"), remote: flow.local, netns: 9 };
    w.see(Fact::ResetSent(packet(sender, Some("NO_SOCKET"))));
    a.conn.opened = Some(w.now - 100_000);
    w.tell(a).pass(80_000).answered(502);
    w.expect("no_listener", Likely);
}

#[test]
fn icmp_from_a_filter_in_front_of_a_listener() {
    let mut w = nginx();
    let mut a = w.refused();
    a.conn.errno = Some(libc::EHOSTUNREACH);
    a.conn.reset = None;
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

#[test]
fn a_reject_rule_on_the_way_out_drops_the_syn() {
    let mut w = World::new("nginx");
    let mut a = elsewhere(w.refused());
    a.conn.reset = None;
    drop_of(&mut w, &a, "NETFILTER_DROP");
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

pub(super) fn elsewhere(mut a: Attempt) -> Attempt {
    let remote = addr("10.9.0.2:8000");
    a.endpoint = Endpoint::Tcp(remote);
    a.conn.flow = Some(Flow { local: addr("10.9.0.1:40001"), remote, netns: 7 });
    a.listener = ListenerSeen::Unknown;
    a
}

pub(super) fn drop_of(w: &mut World, a: &Attempt, reason: &str) {
    let mut p = packet(a.conn.flow.unwrap(), Some(reason));
    p.tcp_flags = 2;
    w.see_at(a.conn.opened.unwrap(), Some(PROXY), Fact::Dropped(p));
}

pub(super) fn unanswered(w: &mut World, waited: Nanos) -> Attempt {
    let mut a = elsewhere(w.refused());
    a.conn.errno = None;
    a.conn.reset = None;
    a.conn.closed_first = true;
    a.conn.opened = Some(w.now - waited);
    a.tcp.as_mut().unwrap().retransmits = 2;
    a
}

pub(super) fn error_after(w: &mut World, waited: Nanos, outcome: ClientOutcome) {
    let mut error = w.error(outcome);
    error.conn.asked = Some(w.now - waited - 3 * MILLI);
    w.see(Fact::Client(error));
}

#[test]
fn a_dropped_syn_is_the_filters() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    drop_of(&mut w, &a, "NETFILTER_DROP");
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("firewall_drop", Certain);
    assert!(i.summary.contains("NETFILTER_DROP in nf_hook_slow"), "{}", i.summary);
}

#[test]
fn a_syn_without_answer_or_drop_is_a_timeout() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("syn_timeout", Certain);
    assert_eq!(i.summary, "no answer to 3 SYNs to 10.9.0.2:8000 until nginx gave up after 5 s");
}

#[test]
fn what_was_lost_makes_a_timeout_likely() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    let lost = w.now - SECOND;
    w.engine.lost(lost, 3);
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    w.expect("syn_timeout", Likely);
}

#[test]
fn a_full_accept_queue() {
    let mut w = nginx();
    w.host.activity.insert(SERVER, Activity { states: "R".into(), ..Activity::default() });
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.conn.flow = Some(Flow { local: addr("127.0.0.1:40001"), remote: addr(UPSTREAM), netns: 7 });
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 129, limit: 128 };
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("accept_queue_full", Certain);
    assert!(i.summary.contains("129 waiting, room for 128; it is busy on CPU"), "{}", i.summary);
}

#[test]
fn a_queue_with_room_is_not_full() {
    let mut w = nginx();
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 128, limit: 128 };
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    w.expect("syn_timeout", Certain);
}

fn unix() -> Endpoint {
    Endpoint::Unix("/run/app.sock".into())
}

#[test]
fn errors_of_unix_sockets() {
    for (errno, cause) in [
        (libc::EAGAIN, "accept_queue_full"),
        (libc::ENOENT, "socket_missing"),
        (libc::EACCES, "permission_denied"),
        (libc::ECONNREFUSED, "no_listener"),
    ] {
        let mut w = World::new("nginx");
        w.host.paths.insert("/run/app.sock".into(), PathFacts { exists: true, mode: 0o600, ..PathFacts::default() });
        w.connect_failed(unix(), errno).pass(50_000).answered(502);
        let i = w.expect(cause, Certain);
        assert_eq!(i.upstream.unwrap().addr, "unix:/run/app.sock");
        if cause == "permission_denied" {
            assert!(i.summary.contains("mode 0600"), "{}", i.summary);
        }
    }
}

#[test]
fn a_socket_that_went_with_its_process() {
    let mut w = World::new("nginx");
    w.listening(unix(), SERVER).pass(SECOND);
    w.exit(SERVER, ExitStatus::Signal { signal: 11, core: false }).listener_closed(unix(), SERVER).pass(SECOND);
    w.connect_failed(unix(), libc::ENOENT).pass(50_000).answered(502);
    w.expect("upstream_crashed", Certain);
}

#[test]
fn errnos_of_tcp_connects() {
    for (errno, cause) in [
        (libc::ENETUNREACH, "network_unreachable"),
        (libc::EADDRNOTAVAIL, "port_exhaustion"),
        (libc::EPERM, "permission_denied"),
        (libc::EMFILE, "proxy_limit"),
    ] {
        let mut w = World::new("nginx");
        w.connect_failed(Endpoint::Tcp(addr("10.9.0.2:80")), errno).pass(50_000).answered(502);
        w.expect(cause, Certain);
    }
}

#[test]
fn a_neighbour_that_does_not_answer() {
    let mut w = World::new("nginx");
    let mut a = unanswered(&mut w, 3_100 * MILLI);
    a.conn.errno = Some(libc::EHOSTUNREACH);
    w.tell(a);
    error_after(&mut w, 3_100 * MILLI, ClientOutcome::Status(502));
    let i = w.expect("host_unreachable", Certain);
    assert!(i.summary.contains("neighbour"), "{}", i.summary);
}

#[test]
fn another_host_refused() {
    let mut w = World::new("nginx");
    let a = elsewhere(w.refused());
    w.tell(a).pass(50_000).answered(502);
    w.expect("refused_remote", Certain);
}

// --- connected ---

/// The proxy waited a minute for an answer.
fn waited(w: &mut World, change: impl FnOnce(&mut World, &mut Attempt)) {
    let mut a = w.attempt();
    a.conn.opened = Some(w.now - 60 * SECOND - MILLI);
    a.conn.established = Some(w.now - 60 * SECOND - MILLI + 90_000);
    a.conn.asked = Some(w.now - 60 * SECOND);
    a.conn.closed_first = true;
    a.peer = Some(w.peer());
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    change(w, &mut a);
    w.tell(a).pass(50_000);
    error_after(w, 60 * SECOND, ClientOutcome::Status(504));
}

#[test]
fn the_request_was_read_and_no_answer_came() {
    let mut w = nginx();
    w.host.activity.insert(SERVER, Activity { states: "DS".into(), ..Activity::default() });
    waited(&mut w, |_, _| {});
    let i = w.expect("response_timeout", Certain);
    assert!(
        i.summary.starts_with("uvicorn (pid 812) took the request and did not answer in 60 s; it is blocked"),
        "{}",
        i.summary
    );
    assert!(i.fix[1].contains("proxy_read_timeout"), "{:?}", i.fix);
}

#[test]
fn a_remote_upstream_that_does_not_answer_is_likely() {
    let mut w = World::new("nginx");
    waited(&mut w, |_, a| {
        *a = elsewhere(a.clone());
        a.peer = None;
    });
    w.expect("response_timeout", Likely);
}

#[test]
fn the_connection_was_never_accepted() {
    let mut w = nginx();
    waited(&mut w, |w, a| {
        a.peer = Some(Peer { accepted: false, unread: 47, ..w.peer() });
        a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 3, limit: 128 };
    });
    let i = w.expect("never_accepted", Certain);
    assert!(i.summary.contains("(3 waiting, room for 128)"), "{}", i.summary);
}

#[test]
fn the_request_was_never_read() {
    let mut w = nginx();
    w.host.activity.insert(SERVER, Activity { states: "T".into(), ..Activity::default() });
    waited(&mut w, |w, a| a.peer = Some(Peer { unread: 47, ..w.peer() }));
    let i = w.expect("request_not_read", Certain);
    assert!(i.summary.contains("stopped (SIGSTOP or a debugger)"), "{}", i.summary);
}

#[test]
fn a_request_that_was_read_in_part_was_not_unread() {
    let mut w = nginx();
    waited(&mut w, |w, a| a.peer = Some(Peer { unread: 20, ..w.peer() }));
    w.expect("response_timeout", Likely);
}

#[test]
fn the_upstream_stopped_reading() {
    let mut w = nginx();
    waited(&mut w, |w, a| {
        a.conn.request_bytes = 4 << 20;
        a.peer = Some(Peer { unread: 300_000, ..w.peer() });
        let tcp = a.tcp.as_mut().unwrap();
        (tcp.window, tcp.unacked) = (0, 2_000_000);
    });
    let i = w.expect("send_timeout", Certain);
    assert!(i.fix[1].contains("proxy_send_timeout"), "{:?}", i.fix);
}

#[test]
fn a_shut_window_with_nothing_to_send_is_no_send_timeout() {
    let mut w = nginx();
    waited(&mut w, |_, a| a.tcp.as_mut().unwrap().window = 0);
    w.expect("response_timeout", Certain);
}

#[test]
fn a_reset_with_its_reason() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.reset = Some(w.now - 50_000);
    a.peer = Some(Peer { unread: 47, reset_reason: Some("TCP_ABORT_ON_CLOSE".into()), ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_reset", Certain);
    assert!(i.summary.ends_with("it closed with 47 bytes unread"), "{}", i.summary);
}

#[test]
fn a_close_before_the_first_byte() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_closed_early", Certain);
    assert!(i.summary.starts_with("uvicorn (pid 812) closed the connection without an answer"), "{}", i.summary);
}

fn reused(w: &mut World) -> Attempt {
    let mut a = w.attempt();
    a.conn.reused = true;
    a.conn.request = 3;
    a.conn.opened = Some(w.now - 9 * SECOND);
    a.conn.asked_before = Some(w.now - 5 * SECOND - MILLI);
    a
}

#[test]
fn an_idle_connection_closed_as_the_request_went_out() {
    let mut w = nginx();
    let mut a = reused(&mut w);
    a.conn.fin = a.conn.asked.map(|at| at - 20_000);
    a.conn.reset = a.conn.asked;
    a.peer = Some(Peer { closed: a.conn.asked.map(|at| at - 30_000), ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("keepalive_race", Certain);
    assert!(i.summary.contains("after 5 s idle") && i.summary.contains("served 2 requests"), "{}", i.summary);
    assert!(i.fix[0].contains("keepalive_timeout"), "{:?}", i.fix);
}

#[test]
fn a_reused_connection_closed_after_the_request_was_read_is_no_race() {
    let mut w = nginx();
    let mut a = reused(&mut w);
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}

#[test]
fn a_remote_close_on_its_way_as_the_request_went_out() {
    let mut w = World::new("nginx");
    let mut a = elsewhere(reused(&mut w));
    a.conn.fin = a.conn.asked.map(|at| at - 20_000);
    w.tell(a).pass(50_000).answered(502);
    w.expect("keepalive_race", Certain);
}

#[test]
fn a_connection_that_the_stack_no_longer_knew() {
    let mut w = nginx();
    let mut a = reused(&mut w);
    a.conn.reset = Some(w.now - 50_000);
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w.expect("stale_connection", Certain);
}

#[test]
fn a_fresh_connection_that_is_reset_is_not_stale() {
    let mut w = World::new("nginx");
    let mut a = elsewhere(w.attempt());
    a.conn.reset = Some(w.now - 50_000);
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_reset", Certain);
}

fn asked(a: &mut Attempt, reply: &[u8], bytes: u64) {
    a.handover = Handover::Asked;
    a.conn.phase = Phase::Answered;
    a.conn.reply_head = reply.to_vec();
    a.conn.reply_bytes = bytes;
    a.conn.status = Some(200);
    a.conn.closed_first = true;
}

#[test]
fn a_header_that_breaks_off() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"HTTP/1.1 200 OK\r\nContent-Le", 27);
    a.conn.fin = Some(w.now - 10_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.answered(502).tell(a);
    let i = w.expect("response_truncated", Certain);
    assert!(i.summary.contains("after 27 bytes"), "{}", i.summary);
}

#[test]
fn an_answer_that_is_whole_proves_nothing() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 38);
    w.answered(502).tell(a);
    let i = w.expect("unattributed", Unknown);
    assert_eq!(i.why.as_deref(), Some("answered_well"));
}

#[test]
fn a_header_that_fills_the_buffer() {
    let mut w = nginx();
    let mut a = w.attempt();
    let head = [b"HTTP/1.1 200 OK\r\nX-Big: ".to_vec(), vec![b'a'; 232]].concat();
    asked(&mut a, &head, 4_096);
    a.tcp.as_mut().unwrap().unread = 60_000;
    w.answered(502).tell(a);
    let i = w.expect("header_too_big", Certain);
    assert!(i.fix[0].contains("proxy_buffer_size"), "{:?}", i.fix);
}

#[test]
fn a_big_answer_with_a_whole_header_is_no_big_header() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"HTTP/1.1 200 OK\r\n\r\nbody", 8_192);
    w.answered(502).tell(a);
    w.expect("unattributed", Unknown);
}

fn spoke(sent: &[u8], got: &[u8]) -> Incident {
    let mut w = nginx();
    let mut a = w.attempt();
    a.handover = Handover::Answered;
    a.conn.phase = Phase::Answered;
    a.conn.request_head = sent.to_vec();
    a.conn.reply_head = got.to_vec();
    a.conn.reply_bytes = got.len() as u64;
    w.tell(a).pass(50_000).answered(502);
    w.incident()
}

const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

#[test]
fn what_both_sides_speak() {
    let get = get("/api/cart");
    for (sent, got, cause) in [
        (&get[..], &b"SSH-2.0-OpenSSH_9\r\n"[..], "invalid_response"),
        (&get, ALERT, "tls_mismatch"),
        (HELLO, b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_mismatch"),
        (HELLO, b"<!DOCTYPE HTML>", "tls_mismatch"),
        (HELLO, ALERT, "tls_handshake_failed"),
        (&get, SETTINGS, "h2_mismatch"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", "h2_mismatch"),
        (&get, b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "upstream_error"),
        (b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\0\0\0\0\0\0", b"HTTP/1.1 400 x\r\n\r\n", "invalid_response"),
    ] {
        let i = spoke(sent, got);
        assert_eq!((i.cause.as_str(), i.confidence), (cause, Certain), "{i:#?}");
    }
}

#[test]
fn tls_on_both_sides_is_no_mismatch_and_fcgi_is_no_garbage() {
    let i = spoke(HELLO, b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c");
    assert_ne!(i.cause, "tls_mismatch");
    let fcgi = spoke(
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\0\0\0\0\0\0",
        b"\x01\x06\x00\x01\x00\x10\x00\x00Status: 502 X\r\n\r\n",
    );
    assert_eq!((fcgi.cause.as_str(), fcgi.confidence), ("upstream_error", Certain));
}

#[test]
fn a_certificate_that_the_proxy_refuses() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c", 2_400);
    a.conn.status = None;
    a.conn.request_head = HELLO.to_vec();
    a.conn.request_bytes = 517 + 30;
    w.answered(502).tell(a);
    w.expect("tls_handshake_failed", Certain);
}

#[test]
fn a_request_inside_tls_is_no_failed_handshake() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c", 2_400);
    a.conn.request_head = HELLO.to_vec();
    a.conn.request_bytes = 300;
    a.conn.application = true;
    w.answered(502).tell(a);
    let i = w.expect("unattributed", Unknown);
    assert_eq!(i.why.as_deref(), Some("wire_not_visible"));
}

#[test]
fn a_header_line_that_is_none() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"HTTP/1.1 200 OK\r\nBad\0: x\r\n\r\n", 30);
    w.answered(502).tell(a);
    w.expect("invalid_response", Likely);
}

// --- no attempt ---

#[test]
fn all_upstreams_were_marked_down() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    let all = w.all();
    assert_eq!((all[1].cause.as_str(), all[1].confidence), ("no_live_upstream", Likely), "{:#?}", all[1]);
    assert!(all[1].summary.contains("127.0.0.1:8000 had failed once"), "{}", all[1].summary);
    assert!(all[1].attempts.is_empty() && all[1].upstream.is_none());
}

#[test]
fn an_answer_that_the_proxy_made_by_itself() {
    let mut w = World::new("nginx");
    w.answered(502);
    let i = w.expect("unattributed", Unknown);
    assert_eq!(i.why.as_deref(), Some("no_attempt"));
}

#[test]
fn a_rate_limit_after_failures_is_not_blamed_on_them() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(503));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    let all = w.all();
    assert_eq!(all[1].why.as_deref(), Some("no_attempt"));
}

#[test]
fn an_error_of_another_route_is_not_blamed_on_failures_before() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    error.conn.request_head = get("/maintenance");
    w.see(Fact::Client(error));
    assert_eq!(w.all()[1].why.as_deref(), Some("no_attempt"));
}

#[test]
fn failed_health_checks_leave_no_upstream() {
    let mut w = World::new("haproxy");
    let mut check = w.refused();
    check.bound = None;
    w.stack_reset(&check, Some("NO_SOCKET")).tell(check).pass(SECOND).answered(503);
    w.expect("no_live_upstream", Likely);
}

pub(super) fn dns(w: &World, received: bool, rcode: u8, name: &str) -> Fact {
    let _ = w;
    Fact::Dns(Dns {
        server: addr("127.0.0.53:53"),
        local: addr("127.0.0.1:33333"),
        received,
        message: crate::wire::dns::tests::build(7, received, rcode, name, 1, u16::from(received && rcode == 0)),
    })
}

#[test]
fn a_name_that_does_not_resolve() {
    for (proxy, status) in [("nginx", 502), ("apache2", 500)] {
        let mut w = World::new(proxy);
        let (ask, answer) = (dns(&w, false, 0, "api.internal"), dns(&w, true, 3, "api.internal"));
        w.see(ask).pass(MILLI).see(answer).pass(MILLI).answered(status);
        let i = w.expect("dns_failure", Certain);
        assert!(i.summary.ends_with("could not resolve api.internal: NXDOMAIN from 127.0.0.53:53"), "{}", i.summary);
    }
}

#[test]
fn a_name_that_resolves_is_no_failure() {
    let mut w = World::new("nginx");
    let (ask, answer) = (dns(&w, false, 0, "api.internal"), dns(&w, true, 0, "api.internal"));
    w.see(ask).pass(MILLI).see(answer).pass(MILLI).answered(502);
    w.expect("unattributed", Unknown);
}

#[test]
fn no_descriptors_left() {
    let mut w = World::new("nginx");
    w.host.descriptors.insert(PROXY.pid, DescriptorFacts { open: 1_024, limit: 1_024 });
    w.answered(500);
    w.expect("proxy_limit", Certain);
}

#[test]
fn a_request_that_stood_in_the_proxys_own_queue() {
    let mut w = World::new("haproxy");
    error_after(&mut w, SECOND, ClientOutcome::Status(503));
    let i = w.expect("proxy_limit", Likely);
    assert!(i.summary.contains("held the request for 1 s"), "{}", i.summary);
}

#[test]
fn a_server_that_reads_the_head_of_a_tls_record_and_closes() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(Peer { unread: 47 - 5, ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    w.expect("tls_mismatch", Likely);
}

#[test]
fn a_goodbye_that_was_lost_makes_a_connection_stale() {
    let mut w = nginx();
    let mut a = reused(&mut w);
    a.conn.reset = Some(w.now - 50_000);
    a.peer = Some(Peer { closed: a.conn.asked.map(|at| at - 60 * MILLI), ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    w.expect("stale_connection", Certain);
}

#[test]
fn a_close_inside_tls_before_an_answer() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.request_head = HELLO.to_vec();
    a.conn.reply_head = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c".to_vec();
    a.conn.application = true;
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}
