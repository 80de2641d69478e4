//! What goes wrong once it is.

use super::*;

const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

/// The proxy waited a minute for an answer.
pub(super) fn waited(w: &mut World, change: impl FnOnce(&mut World, &mut Attempt)) {
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
fn a_process_that_was_only_woken_is_not_called_busy() {
    for busy in [false, true] {
        let mut w = nginx();
        w.host.activity.insert(SERVER, Activity { states: "R".into(), busy, ..Activity::default() });
        waited(&mut w, |w, a| a.peer = Some(w.peer()));
        let i = w.expect("response_timeout", Certain);
        assert_eq!(i.summary.contains("; it is busy on CPU"), busy, "{}", i.summary);
    }
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
fn a_host_without_room_may_leave_its_window_open() {
    let cases = [
        (8_000, 40, "send_timeout", Likely),
        (8_000, 0, "response_timeout", Likely),
        (0, 40, "response_timeout", Likely),
    ];
    for (unread, in_flight, cause, confidence) in cases {
        let mut w = nginx();
        waited(&mut w, |w, a| {
            a.conn.request_bytes = 4 << 20;
            a.peer = Some(Peer { unread, ..w.peer() });
            let tcp = a.tcp.as_mut().unwrap();
            (tcp.window, tcp.unacked, tcp.in_flight) = (60_000, 2_000_000, in_flight);
        });
        w.expect(cause, confidence);
    }
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
    // Whether its process lives cannot be seen from here.
    w.expect("upstream_reset", Likely);
}

pub(super) fn asked(a: &mut Attempt, reply: &[u8], bytes: u64) {
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

const GRPC: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x44";

/// It was asked by gRPC, sent this, and the proxy gave up.
fn greeted(sent: &[u8], got: &[u8], bytes: u64) -> World {
    let mut w = nginx();
    waited(&mut w, |_, a| {
        a.handover = Handover::Asked;
        a.conn.phase = Phase::Answered;
        a.conn.request_head = sent.to_vec();
        a.conn.request_bytes = sent.len() as u64;
        a.conn.reply_head = got.to_vec();
        a.conn.reply_bytes = bytes;
        a.conn.status = Some(1);
    });
    w
}

#[test]
fn an_http2_server_that_only_greets_did_not_answer() {
    let all = SETTINGS.len() as u64;
    let i = greeted(GRPC, SETTINGS, all).expect("response_timeout", Certain);
    assert!(i.summary.contains("took the request and did not answer in 60 s"), "{}", i.summary);
    assert!(i.fix[1].contains("grpc_read_timeout"), "{:?}", i.fix);
    greeted(GRPC, SETTINGS, 900).expect("response_timeout", Likely);
    // Later requests have no preface, and the window is all that comes.
    let mut w = nginx();
    waited(&mut w, |_, a| {
        a.conn.reused = true;
        a.conn.request_head = GRPC[33..].to_vec();
        a.conn.reply_head = b"\0\0\x04\x08\0\0\0\0\0\0\0\x40\0".to_vec();
        a.conn.reply_bytes = 13;
    });
    let i = w.expect("response_timeout", Certain);
    assert!(i.fix[1].contains("grpc_read_timeout"), "{:?}", i.fix);
}

#[test]
fn a_call_of_grpc_that_was_only_greeted_failed() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.handover = Handover::Asked;
    a.conn.phase = Phase::Answered;
    (a.conn.request_head, a.conn.request_bytes) = (GRPC.to_vec(), GRPC.len() as u64);
    (a.conn.reply_head, a.conn.reply_bytes) = (SETTINGS.to_vec(), SETTINGS.len() as u64);
    a.conn.asked = Some(w.now - 2 * SECOND);
    a.conn.closed_first = true;
    a.peer = Some(w.peer());
    w.tell(a);
    let mut error = w.error(ClientOutcome::Status(503));
    error.conn.asked = Some(w.now - 2 * SECOND - 3 * MILLI);
    error.conn.grpc = Some(14);
    w.see(Fact::Client(error));
    w.expect("response_timeout", Certain);
}

#[test]
fn an_http2_server_that_answered_or_was_not_asked_did_not_time_out() {
    let headers = [SETTINGS, b"\0\0\x01\x01\x04\0\0\0\x01\x88"].concat();
    let i = greeted(GRPC, &headers, headers.len() as u64).incident();
    assert_eq!(i.cause, "unattributed", "{i:#?}");
    let i = greeted(&GRPC[..33], SETTINGS, SETTINGS.len() as u64).incident();
    assert_eq!(i.cause, "unattributed", "{i:#?}");
}

/// It was asked by gRPC, sent this, and ended the connection.
fn greeted_and_ended(got: &[u8], bytes: u64, reset: bool) -> World {
    let mut w = nginx();
    let mut a = w.attempt();
    a.handover = Handover::Answered;
    a.conn.phase = Phase::Answered;
    (a.conn.request_head, a.conn.request_bytes) = (GRPC.to_vec(), GRPC.len() as u64);
    (a.conn.reply_head, a.conn.reply_bytes) = (got.to_vec(), bytes);
    if reset {
        a.conn.reset = Some(w.now);
    } else {
        a.conn.fin = Some(w.now);
    }
    a.peer = Some(w.peer());
    w.tell(a).pass(50_000).answered(502);
    w
}

#[test]
fn an_http2_server_that_only_greets_and_ends_gave_no_answer() {
    let all = SETTINGS.len() as u64;
    for (reset, cause) in [(false, "upstream_closed_early"), (true, "upstream_reset")] {
        greeted_and_ended(SETTINGS, all, reset).expect(cause, Certain);
        greeted_and_ended(SETTINGS, 900, reset).expect(cause, Likely);
        let headers = [SETTINGS, b"\0\0\x01\x01\x04\0\0\0\x01\x88"].concat();
        let i = greeted_and_ended(&headers, headers.len() as u64, reset).incident();
        assert_ne!(i.cause, cause, "an answer had begun: {i:#?}");
    }
}

#[test]
fn an_http2_server_says_itself_that_it_will_not_answer() {
    let reset = [SETTINGS, b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02"].concat();
    let i = greeted(GRPC, &reset, reset.len() as u64).expect("upstream_reset", Certain);
    assert!(i.summary.contains("RST_STREAM INTERNAL_ERROR"), "{}", i.summary);
    let goaway = [SETTINGS, b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b"].concat();
    for w in [&mut greeted(GRPC, &goaway, goaway.len() as u64), &mut greeted_and_ended(&goaway, 26, false)] {
        let i = w.expect("upstream_closed_early", Certain);
        assert!(i.summary.contains("GOAWAY ENHANCE_YOUR_CALM"), "{}", i.summary);
    }
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
fn who_asked_no_http_was_answered_in_what_it_asked() {
    const FRAMES: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\0\0\x40\0";
    for (sent, got) in [
        (&b"SELECT 1\n"[..], &b"1\n"[..]),
        (b"SELECT 1", b"1"),
        (b"EHLO shop\r\n", b"220 mail ESMTP\r\n"),
        (b"GET key\r\n", b"{}"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", ALERT),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", SETTINGS),
        (b"\x10\0\0\0\x03SELECT", FRAMES),
        (b"\x17\x03\x03\x00\x40\0\0\0\0", b"what?"),
        (b"", b"SSH-2.0-OpenSSH_9\r\n"),
        (b"", ALERT),
        (b"SELECT 1\n", b"HTTP/1.1 200 OK\r\nBad\0: x\r\n\r\n"),
    ] {
        let i = spoke(sent, got);
        assert_eq!(i.cause, "unattributed", "{sent:?} {i:#?}");
    }
    // A long target, of which only the beginning was kept.
    let i = spoke(b"GET /a/long/path/that/was/cu", b"SSH-2.0-OpenSSH_9\r\n");
    assert_eq!(i.cause, "invalid_response", "{i:#?}");
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
    let fcgi = spoke(
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\0\0\0\0\0\0",
        b"\x01\x07\x00\x01\x00\x0b\x05\x00no database\0\0\0\0\0\x01\x06\x00\x01\x00\x10\x00\x00Status: 503 X\r\n\r\n",
    );
    assert_eq!((fcgi.cause.as_str(), fcgi.confidence), ("upstream_error", Certain));
    assert!(fcgi.evidence.iter().any(|e| e.kind == "stderr" && e.text.ends_with("error stream: no database")));
    assert!(fcgi.evidence.iter().any(|e| e.kind == "response" && e.text.ends_with("Status: 503")));
}

#[test]
fn a_header_line_that_is_none() {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"HTTP/1.1 200 OK\r\nBad\0: x\r\n\r\n", 30);
    w.answered(502).tell(a);
    w.expect("invalid_response", Likely);
}
