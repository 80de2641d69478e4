//! Ends of the process that had the request.

use super::*;

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

/// A helper of the unit runs while nobody listens: it stops what is left, or looks whether it is well.
#[test]
fn a_helper_of_the_same_unit_is_no_successor() {
    for (died, cause, confidence) in [(true, "upstream_killed", Certain), (false, "upstream_starting", Likely)] {
        let mut w = nginx();
        if died {
            w.signal(SERVER, libc::SIGTERM, proc(60, "bash")).exit(SERVER, ExitStatus::Code(0));
        }
        w.listener_closed(here(), SERVER).pass(200 * MILLI);
        let mut helper = process(813, "curl", "/usr/bin/curl");
        helper.unit = Some("shop.service".into());
        helper.started = w.now;
        w.host.processes.insert(813, helper);
        w.pass(800 * MILLI);
        let a = w.refused();
        w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
        let i = w.incident();
        assert_eq!((i.cause.as_str(), i.confidence), (cause, confidence), "{i:#?}");
    }
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

/// Why a listener went was to be seen when it went, long before the request that it cost.
#[test]
fn what_was_lost_as_the_listener_went_may_have_been_its_death() {
    for (lost, confidence) in [(false, Certain), (true, Likely)] {
        let mut w = nginx();
        w.listener_closed(here(), SERVER);
        if lost {
            let at = w.now;
            w.engine.lost(at, 1);
        }
        let a = w.pass(30 * SECOND).refused();
        w.tell(a).pass(50_000).answered(502);
        let i = w.incident();
        assert_eq!((i.cause.as_str(), i.confidence), ("no_listener", confidence), "{i:#?}");
    }
}
