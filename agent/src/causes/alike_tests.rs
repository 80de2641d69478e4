//! Stories that look like a cause and are another: what must hold in time, by thread and by proxy.

use super::tests::{drop_of, elsewhere, error_after, here, nginx, unanswered};
use crate::correlate::fixture::*;
use crate::host::DescriptorFacts;
use crate::model::Confidence::{Certain, Likely};
use crate::model::*;
use crate::text::{MILLI, SECOND};

const KILLED: ExitStatus = ExitStatus::Signal { signal: 9, core: false };

// --- whose 500 it is ---

#[test]
fn an_applications_own_500_is_not_blamed_on_an_earlier_refusal() {
    for proxy in ["caddy", "haproxy", "nginx", "envoy", "apache2"] {
        let mut w = World::new(proxy);
        let a = w.refused();
        w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(500);
        assert!(w.all().is_empty(), "{proxy}");
    }
}

#[test]
fn a_500_that_the_proxy_made_of_a_broken_upstream_counts() {
    for proxy in ["lighttpd", "traefik"] {
        let mut w = World::new(proxy);
        let mut a = w.attempt();
        a.conn.fin = Some(w.now - 50_000);
        a.peer = Some(w.closed_peer(SERVER));
        w.tell(a).pass(50_000).answered(500);
        w.expect("upstream_closed_early", Certain);
    }
}

// --- the order of a death and an end ---

/// The upstream closed before it answered, and what this does comes after.
fn closed_early_then(after: impl FnOnce(&mut World)) -> Incident {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502).pass(MILLI);
    after(&mut w);
    w.incident()
}

#[test]
fn a_kill_after_the_close_is_no_reason_for_it() {
    let i = closed_early_then(|w| {
        w.signal(SERVER, libc::SIGKILL, proc(60, "bash")).pass(MILLI).exit(SERVER, KILLED);
    });
    assert_eq!((i.cause.as_str(), i.confidence), ("upstream_closed_early", Certain), "{i:#?}");
}

#[test]
fn a_stop_that_was_asked_for_after_the_close_is_no_reason_for_it() {
    let i = closed_early_then(|w| {
        w.signal(SERVER, libc::SIGTERM, proc(1, "systemd")).pass(3 * MILLI).exit(SERVER, ExitStatus::Code(0));
    });
    assert_eq!(i.cause, "upstream_closed_early", "{i:#?}");
}

#[test]
fn a_process_that_closes_as_it_ends_by_itself_is_the_reason() {
    let i = closed_early_then(|w| {
        w.pass(2 * MILLI).exit(SERVER, ExitStatus::Code(1));
    });
    assert_eq!(i.cause, "upstream_exited", "{i:#?}");
}

#[test]
fn a_death_after_a_refusal_is_no_reason_for_it() {
    let mut w = nginx();
    w.listener_closed(here(), SERVER).pass(SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(MILLI);
    w.signal(SERVER, libc::SIGKILL, proc(60, "bash")).exit(SERVER, KILLED).answered(502);
    let i = w.expect("no_listener", Certain);
    assert!(i.summary.contains("stopped listening there 1 s before"), "{}", i.summary);
}

#[test]
fn a_child_that_dies_after_the_error_behind_a_unix_socket() {
    let mut w = World::new("nginx");
    let fpm = Endpoint::Unix("/run/php/fpm.sock".into());
    w.host.processes.insert(500, process(500, "php-fpm", "/usr/sbin/php-fpm"));
    w.listening(fpm.clone(), 500);
    w.see(Fact::Fork { parent: 500, child: proc(501, "php-fpm") }).pass(SECOND);
    let mut a = w.attempt();
    a.endpoint = fpm;
    a.tcp = None;
    a.conn.flow = None;
    a.conn.errno = Some(libc::ECONNRESET);
    a.listener = ListenerSeen::Present { cookie: 1_400, pid: 500, queue: 0, limit: 128 };
    w.tell(a).pass(50_000).answered(502).pass(MILLI);
    w.signal(501, libc::SIGKILL, proc(500, "php-fpm")).exit(501, KILLED);
    w.expect("upstream_reset", Certain);
}

// --- what a connect that ends without an error came to ---

#[test]
fn a_connect_that_ends_without_a_port_found_none_free() {
    let mut w = World::new("caddy");
    let mut a = unanswered(&mut w, 30_000);
    a.conn.flow = a.conn.flow.map(|flow| Flow { local: addr("10.9.0.1:0"), ..flow });
    w.tell(a).pass(80_000).answered(502);
    let i = w.incident();
    assert_eq!(i.cause, "port_exhaustion", "{i:#?}");
}

#[test]
fn a_connect_that_is_given_up_at_once_is_no_timeout() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 30_000);
    w.tell(a).pass(80_000).answered(502);
    let i = w.incident();
    assert_eq!(i.cause, "unattributed", "{i:#?}");
}

// --- filters that reject, and say so only so often ---

/// An attempt that is dropped some time after another one to the same place was rejected.
fn dropped_after_a_rejection(to: &str, later: Nanos) -> World {
    let mut w = World::new("nginx");
    let mut first = elsewhere(w.refused());
    first.conn.reset = None;
    drop_of(&mut w, &first, "NETFILTER_DROP");
    w.tell(first).pass(later);
    let mut second = unanswered(&mut w, SECOND);
    second.endpoint = Endpoint::Tcp(addr(to));
    second.conn.flow = second.conn.flow.map(|flow| Flow { remote: addr(to), ..flow });
    drop_of(&mut w, &second, "NETFILTER_DROP");
    w.tell(second);
    error_after(&mut w, 2 * SECOND, ClientOutcome::Status(504));
    w
}

#[test]
fn a_rejection_whose_error_was_not_sent_is_no_drop() {
    let i = dropped_after_a_rejection("10.9.0.2:8000", SECOND).expect("firewall_reject", Likely);
    assert!(i.evidence.iter().any(|e| e.text.contains("icmp_ratelimit")), "{i:#?}");
}

#[test]
fn a_drop_after_a_rejection_of_another_address_is_a_drop() {
    dropped_after_a_rejection("10.9.0.3:8000", SECOND).expect("firewall_drop", Certain);
}

/// The kernel would have said it again by then: the rule is another one now.
#[test]
fn a_drop_long_after_a_rejection_is_a_drop() {
    dropped_after_a_rejection("10.9.0.2:8000", 8 * SECOND).expect("firewall_drop", Certain);
}

// --- facts of another time ---

/// Descriptors that ran out once, and an error that the proxy's configuration makes a moment later.
fn own_answer_after_a_full_table(later: Nanos) -> Incident {
    let mut w = World::new("nginx");
    w.host.descriptors.insert(PROXY.pid, DescriptorFacts { open: 11, limit: 11 });
    w.answered(502);
    w.expect("proxy_limit", Certain);
    w.notices.clear();
    w.host.descriptors.insert(PROXY.pid, DescriptorFacts { open: 14, limit: 1_024 });
    w.pass(later);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    error.conn.asked = Some(w.now - 20_000);
    w.see(Fact::Client(error));
    w.incident()
}

#[test]
fn descriptors_that_ran_out_before_the_request_are_no_reason_for_it() {
    assert_eq!(own_answer_after_a_full_table(5 * MILLI).cause, "unattributed");
    assert_eq!(own_answer_after_a_full_table(100_000).cause, "unattributed");
}

/// Ended by itself, and refused a tenth of a second later.
fn restarted(next: &str, exe: &str) -> World {
    let mut w = nginx();
    w.host.processes.get_mut(&SERVER).unwrap().unit = None;
    w.exit(SERVER, ExitStatus::Code(0)).listener_closed(here(), SERVER).pass(58 * MILLI);
    w.see(Fact::Exec(proc(840, next)));
    let mut started = process(840, next, exe);
    started.cmdline = vec!["python3.11".into(), "uvicorn".into(), "shop:app".into()];
    // The host is busy: its own search finds nobody.
    started.alive = true;
    started.started = 0;
    w.host.processes.insert(840, started);
    w.pass(50 * MILLI);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502);
    w
}

#[test]
fn a_successor_that_was_seen_as_it_started_need_not_be_searched_for() {
    let i = restarted("uvicorn", "/usr/bin/python3.11").expect("upstream_starting", Certain);
    assert!(i.summary.starts_with("uvicorn (pid 840) was started 50"), "{}", i.summary);
}

#[test]
fn a_program_of_another_file_with_the_same_name_is_no_successor() {
    restarted("uvicorn", "/opt/other/uvicorn").expect("upstream_exited", Certain);
}

// --- who holds a unix connection ---

/// An attempt of nginx on PHP-FPM's socket that child 501 of master 500 has read.
fn fpm(w: &mut World) -> Attempt {
    let fpm = Endpoint::Unix("/run/php/fpm.sock".into());
    w.listening(fpm.clone(), 500);
    let mut a = w.attempt();
    a.endpoint = fpm;
    a.tcp = None;
    a.conn.flow = None;
    a.listener = ListenerSeen::Present { cookie: 1_400, pid: 500, queue: 0, limit: 128 };
    w.host.processes.insert(501, process(501, "php-fpm", "/usr/sbin/php-fpm"));
    a.peer = Some(Peer { netns: 0, read_by: Some(501), ..w.peer() });
    a
}

#[test]
fn the_child_that_read_a_unix_connection_is_the_one_that_counts() {
    for (dies, cause) in [(501, "upstream_killed"), (502, "upstream_reset")] {
        let mut w = World::new("nginx");
        let mut a = fpm(&mut w);
        w.signal(dies, libc::SIGKILL, proc(60, "bash")).exit(dies, KILLED).pass(100_000);
        a.conn.errno = Some(libc::ECONNRESET);
        w.tell(a).pass(50_000).answered(502);
        w.expect(cause, Certain);
    }
}

#[test]
fn a_child_that_was_born_before_we_looked_is_known_by_its_parent() {
    let mut w = World::new("nginx");
    let mut a = fpm(&mut w);
    let status = ExitStatus::Signal { signal: libc::SIGSEGV, core: false };
    w.see(Fact::Exit { proc: proc(501, "php-fpm"), parent: Some(500), status }).pass(100_000);
    a.peer = None;
    a.conn.errno = Some(libc::ECONNRESET);
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_crashed", Certain);
}

#[test]
fn the_rest_of_a_request_on_a_unix_socket_is_not_an_unread_one() {
    for (read_by, cause) in [(Some(501), "response_timeout"), (None, "request_not_read")] {
        let mut w = World::new("nginx");
        let mut a = fpm(&mut w);
        a.peer = Some(Peer { unread: 1, read_by, ..w.peer() });
        a.conn.asked = Some(w.now - SECOND);
        a.conn.closed_first = true;
        w.tell(a);
        error_after(&mut w, SECOND, ClientOutcome::Status(504));
        let i = w.incident();
        assert_eq!(i.cause, cause, "{i:#?}");
    }
}

// --- no attempt, and more than one thing that went wrong meanwhile ---

fn failing_name(w: &mut World) {
    let ask = super::tests::dns(w, false, 0, "api.internal");
    let answer = super::tests::dns(w, true, 3, "api.internal");
    w.see(ask).pass(MILLI).see(answer);
}

#[test]
fn a_name_that_fails_in_the_background_is_never_proof() {
    let mut w = World::new("envoy");
    failing_name(&mut w);
    w.pass(MILLI).answered(503);
    w.expect("dns_failure", Likely);
}

#[test]
fn an_error_long_after_the_answer_may_be_of_something_else() {
    for (later, confidence) in [(MILLI, Certain), (SECOND, Likely)] {
        let mut w = World::new("nginx");
        failing_name(&mut w);
        w.pass(later);
        error_after(&mut w, later, ClientOutcome::Status(502));
        w.expect("dns_failure", confidence);
    }
}

#[test]
fn what_the_proxy_says_in_its_own_answer_counts_before_what_goes_wrong_beside_it() {
    let mut w = World::new("envoy");
    failing_name(&mut w);
    w.pass(MILLI);
    let mut error = w.error(ClientOutcome::Status(503));
    error.conn.reply_head = b"HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\n\r\nupstream connect error or \
        disconnect/reset before headers. reset reason: overflow"
        .to_vec();
    w.see(Fact::Client(error));
    w.expect("proxy_limit", Certain);
}

#[test]
fn an_end_without_time_leaves_errors_open_and_says_how_many() {
    for (time, open) in [(false, 1), (true, 0)] {
        let mut w = World::new("nginx");
        w.answered(502);
        assert_eq!(w.engine.finish_while(&mut w.host, || time), open);
        assert_eq!(w.engine.next_deadline(), None);
    }
}
