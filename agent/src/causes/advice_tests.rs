//! What an incident tells whoever was woken by it: whom it names, and what it sends them to look at.

use super::tests::{error_after, here, nginx};
use crate::correlate::fixture::*;
use crate::host::Activity;
use crate::logs::{Format, Hint, LogError};
use crate::model::Confidence::{Certain, Likely};
use crate::model::*;
use crate::text::{MILLI, SECOND};

fn fixes(incident: &Incident) -> String {
    incident.fix.join("\n")
}

#[test]
fn this_hosts_own_routes_say_no() {
    let errors = [
        (libc::EINVAL, "network_unreachable", Likely, "blackhole"),
        (libc::EHOSTUNREACH, "host_unreachable", Certain, "at once: this host's own routes"),
    ];
    for (errno, cause, confidence, word) in errors {
        let mut w = World::new("nginx");
        w.connect_failed(Endpoint::Tcp(addr("10.9.0.2:80")), errno).pass(50_000).answered(502);
        let i = w.expect(cause, confidence);
        assert!(i.summary.contains(word) && fixes(&i).contains("ip route get 10.9.0.2"), "{i:#?}");
    }
    let mut w = World::new("nginx");
    w.connect_failed(Endpoint::Tcp(addr("10.9.0.2:80")), libc::EACCES).pass(50_000).answered(502);
    assert!(fixes(&w.expect("permission_denied", Certain)).contains("ip route get 10.9.0.2"));
}

#[test]
fn who_listened_a_moment_ago_is_started_again() {
    let mut w = nginx();
    w.listening(Endpoint::Tcp(addr("127.0.0.1:8001")), 900);
    w.listener_closed(here(), SERVER).pass(SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("no_listener", Certain);
    assert!(fixes(&i).contains("start shop.service again") && !fixes(&i).contains("did you mean"), "{i:#?}");
}

#[test]
fn a_master_that_ends_its_worker() {
    let mut w = nginx();
    w.see(Fact::Fork { parent: 700, child: proc(SERVER, "uvicorn") });
    // It catches the signal, and dies of one that it sends to itself.
    w.signal(SERVER, libc::SIGTERM, proc(700, "uvicorn")).pass(10_000);
    w.signal(SERVER, libc::SIGTERM, proc(SERVER, "uvicorn")).pass(10_000);
    w.exit(SERVER, ExitStatus::Signal { signal: libc::SIGTERM, core: false }).pass(200_000);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("upstream_killed", Certain);
    assert!(i.summary.contains("SIGTERM by uvicorn (pid 700)"), "{}", i.summary);
    assert!(fixes(&i).contains("its own master uvicorn ended it"), "{i:#?}");
}

#[test]
fn a_worker_that_is_aborted_and_ends_in_good_order_was_killed() {
    let mut w = nginx();
    w.signal(SERVER, libc::SIGABRT, proc(700, "gunicorn")).pass(10 * MILLI);
    w.exit(SERVER, ExitStatus::Code(1)).pass(200_000);
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_killed", Certain);
}

/// The proxy gave up on it two seconds after its request.
fn hung(w: &World, a: &mut Attempt) {
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 2 * SECOND);
    a.conn.opened = a.conn.asked;
    a.conn.established = a.conn.asked;
    a.peer = Some(w.peer());
}

#[test]
fn a_hello_without_an_answer_is_no_matter_of_patience() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.request_head = vec![0x16, 3, 1, 2, 0, 1];
    hung(&w, &mut a);
    w.tell(a);
    error_after(&mut w, 2 * SECOND, ClientOutcome::Status(504));
    let i = w.incident();
    assert_eq!(i.cause, "response_timeout");
    assert!(i.summary.contains("accepted the connection and did not answer nginx's TLS hello in 2 s"), "{}", i.summary);
    assert!(!i.summary.contains("request"), "{}", i.summary);
    assert!(fixes(&i).contains("proxy_connect_timeout") && !fixes(&i).contains("read_timeout"), "{i:#?}");
    assert!(i.evidence.iter().any(|e| e.text == "TLS hello sent (47 bytes so far)"), "{i:#?}");
    assert!(fixes(&i).contains("https://") && !fixes(&i).contains("raise"), "{i:#?}");
}

#[test]
fn a_hello_that_nobody_read_is_no_request() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.request_head = vec![0x16, 3, 1, 2, 0, 1];
    hung(&w, &mut a);
    a.peer = Some(Peer { unread: 47, ..w.peer() });
    w.tell(a);
    error_after(&mut w, 2 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("request_not_read", Certain);
    assert!(i.summary.contains("never read nginx's TLS hello (47 bytes unread)"), "{}", i.summary);
    assert!(fixes(&i).contains("proxy_connect_timeout"), "{i:#?}");
}

/// HAProxy writes its error first, and closes later.
#[test]
fn a_wait_ends_with_the_error() {
    let mut w = World::new("haproxy");
    w.listening(here(), SERVER).pass(10 * SECOND);
    error_after(&mut w, SECOND, ClientOutcome::Status(504));
    w.pass(200 * MILLI);
    let mut a = w.attempt();
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 1_200 * MILLI);
    a.conn.opened = a.conn.asked;
    a.conn.established = a.conn.asked;
    a.peer = Some(w.peer());
    w.tell(a);
    let i = w.expect("response_timeout", Certain);
    assert!(i.summary.contains("did not answer in 1 s"), "{}", i.summary);
    let gave_up = i.evidence.iter().find(|e| e.kind == "gave_up").unwrap();
    assert_eq!((gave_up.t_us, gave_up.text.as_str()), (0, "haproxy stopped waiting after 1 s"));
}

#[test]
fn only_the_main_thread_of_many_was_asked() {
    for (states, words) in [("S", "sleeping in do_wait"), ("SS", "sleeping, its main thread in do_wait")] {
        let mut w = nginx();
        let mut a = w.attempt();
        hung(&w, &mut a);
        let waits_in = Some("do_wait".into());
        w.host.activity.insert(SERVER, Activity { states: states.into(), waits_in, ..Activity::default() });
        w.tell(a);
        error_after(&mut w, 2 * SECOND, ClientOutcome::Status(504));
        let i = w.incident();
        assert!(i.summary.contains(words), "{}", i.summary);
    }
}

#[test]
fn a_paused_container_is_said_to_be_frozen() {
    let mut w = nginx();
    let mut a = w.attempt();
    hung(&w, &mut a);
    let waits_in = Some("get_signal".into());
    w.host.activity.insert(SERVER, Activity { states: "S".into(), waits_in, frozen: true, ..Activity::default() });
    w.tell(a);
    error_after(&mut w, 2 * SECOND, ClientOutcome::Status(504));
    let i = w.incident();
    assert!(i.summary.contains("frozen with its cgroup") && !i.summary.contains("get_signal"), "{}", i.summary);
    assert!(fixes(&i).contains("docker unpause") && !fixes(&i).contains("slow query"), "{i:#?}");
}

#[test]
fn a_wrong_header_sends_nobody_to_another_port() {
    let mut w = nginx();
    let mut a = w.attempt();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n";
    a.conn.reply_head = head.to_vec();
    a.conn.reply_bytes = head.len() as u64;
    a.conn.status = Some(200);
    a.handover = Handover::Asked;
    a.peer = Some(w.peer());
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("invalid_response", Likely);
    assert!(i.summary.contains("a second Content-Length: 3"), "{}", i.summary);
    assert!(fixes(&i).starts_with("mend shop.service") && !fixes(&i).contains("what listens"), "{i:#?}");
}

/// A request that waited a second for a name stood in no queue.
#[test]
fn what_the_log_says_is_no_limit_is_none() {
    let mut w = World::new("nginx");
    w.pass(2 * SECOND);
    error_after(&mut w, SECOND, ClientOutcome::Status(502));
    let wall = 1_795_230_000_000_000 + (w.now / 1_000) as i64;
    let line = LogError {
        format: Format::Nginx,
        time_micros: Some(wall - wall % 1_000_000),
        coarse_micros: 1_000_000,
        pid: Some(PROXY.pid),
        tid: Some(PROXY.tid),
        connection: Some(1),
        client: Some("127.0.0.1".parse().unwrap()),
        client_port: None,
        method: Some("GET".into()),
        host: Some("shop.example".into()),
        path: Some("/api/cart".into()),
        upstream: None,
        upstream_local_port: None,
        status: Some(502),
        hint: Hint::Unresolved { name: "nohost.invalid".into() },
    };
    w.engine.log(w.now, &line, &mut w.host);
    let i = w.incident();
    assert_eq!((i.cause.as_str(), i.confidence), ("dns_failure", Likely), "{i:#?}");
}
