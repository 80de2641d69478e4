//! What happened near a failure and did not cause it: ends of other processes, closes that came too late to matter.

use super::tests::{here, nginx};
use crate::correlate::fixture::*;
use crate::model::Confidence::*;
use crate::model::*;
use crate::text::{MILLI, SECOND};

#[test]
fn workers_that_are_replaced_are_no_loop() {
    let mut w = nginx();
    for pid in 901..905 {
        w.see(Fact::Fork { parent: SERVER, child: Proc { cgroup: 40, ..proc(pid, "uvicorn") } }).pass(SECOND);
        w.see(Fact::Exit {
            proc: Proc { cgroup: 40, ..proc(pid, "uvicorn") },
            status: ExitStatus::Code(0),
            parent: Some(SERVER),
        })
        .pass(SECOND);
    }
    w.signal(SERVER, libc::SIGTERM, proc(1, "systemd")).pass(MILLI);
    w.see(Fact::Exit {
        proc: Proc { cgroup: 40, ..proc(SERVER, "uvicorn") },
        status: ExitStatus::Code(0),
        parent: Some(1),
    });
    w.listener_closed(here(), SERVER).pass(SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w.expect("upstream_killed", Certain);
}

/// A request behind a unix socket that took ten seconds before its connection was closed without an answer.
fn slow_request(crash: impl FnOnce(&mut World)) -> Incident {
    let mut w = World::new("nginx");
    let fpm = Endpoint::Unix("/run/php/fpm.sock".into());
    w.listening(fpm.clone(), 500);
    w.see(Fact::Fork { parent: 500, child: proc(501, "php-fpm") }).pass(SECOND);
    let mut a = w.attempt();
    crash(&mut w);
    (a.endpoint, a.tcp, a.conn.flow) = (fpm, None, None);
    a.conn.fin = Some(w.now);
    a.listener = ListenerSeen::Present { cookie: 1_400, pid: 500, queue: 0, limit: 128 };
    w.tell(a).pass(50_000).answered(502);
    w.incident()
}

#[test]
fn a_worker_that_died_long_before_did_not_have_the_request() {
    let dies = |w: &mut World| {
        w.pass(2 * SECOND).exit(501, ExitStatus::Signal { signal: 11, core: false });
    };
    let early = slow_request(|w| {
        dies(w);
        w.pass(8 * SECOND);
    });
    assert_eq!(early.cause, "upstream_closed_early", "{early:#?}");
    let late = slow_request(|w| {
        w.pass(8 * SECOND);
        dies(w);
        w.pass(MILLI);
    });
    assert_eq!(late.cause, "upstream_crashed", "{late:#?}");
}

#[test]
fn a_close_that_the_request_may_have_reached_is_likely_a_race() {
    let mut w = nginx();
    let mut a = w.attempt();
    (a.conn.reused, a.conn.request) = (true, 3);
    a.conn.fin = a.conn.asked.map(|at| at - 20_000);
    a.peer = Some(Peer { closed: a.conn.asked.map(|at| at - 30_000), ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    w.expect("keepalive_race", Likely);
}

#[test]
fn a_reset_by_nobody_who_is_known_to_live_is_likely() {
    let mut w = nginx();
    w.host.processes.remove(&SERVER);
    let mut a = w.attempt();
    a.conn.reset = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_reset", Likely);
}

#[test]
fn a_thread_that_goes_last_does_not_rename_its_process() {
    let mut w = nginx();
    w.host.processes.remove(&SERVER);
    let last = Proc { comm: "grpc-worker-7".into(), ..proc(SERVER, "uvicorn") };
    w.see(Fact::Exit { proc: last, status: ExitStatus::Signal { signal: 11, core: false }, parent: Some(1) });
    w.listener_closed(here(), SERVER).pass(SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_crashed", Certain);
    assert!(i.summary.contains("uvicorn (pid 812)"), "{}", i.summary);
}
