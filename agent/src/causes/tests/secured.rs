//! What goes wrong with an upstream that speaks TLS.

use super::connected::{asked, waited};
use super::*;

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

/// A handshake that led to no request, and what the proxy's TLS library made of it.
fn shook(handshake: Handshake) -> World {
    shook_with(handshake, HELLO.to_vec())
}

fn shook_with(handshake: Handshake, hello: Vec<u8>) -> World {
    let mut w = nginx();
    let mut a = w.attempt();
    asked(&mut a, b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c", 2_400);
    a.conn.status = None;
    a.conn.request_head = hello;
    a.conn.request_bytes = 517 + 74;
    a.conn.secured = true;
    a.handshake = Some(handshake);
    w.answered(502).tell(a);
    w
}

fn says(handshake: Handshake, confidence: Confidence, words: &str) {
    let incident = shook(handshake).expect("tls_handshake_failed", confidence);
    assert!(incident.summary.contains(words), "{}", incident.summary);
}

#[test]
fn a_library_says_why_a_handshake_failed() {
    let failed = Some(Trouble::Library(134));
    let none = Handshake::default();
    says(
        Handshake { verified: 10, trouble: failed, ..none },
        Certain,
        "nginx refused the certificate of 127.0.0.1:8000: it has expired",
    );
    says(Handshake { trouble: failed, ..none }, Certain, "refused the certificate");
    // nginx lets the handshake come to its end, and asks then.
    says(Handshake { done: true, verified: 18, told: 18, ..none }, Certain, "it is self-signed");
    says(Handshake { done: true, other_name: true, ..none }, Certain, "it is for another name");
    says(
        Handshake { trouble: Some(Trouble::AlertReceived(70)), ..none },
        Certain,
        "uvicorn (pid 812) on 127.0.0.1:8000 refused nginx's TLS handshake: alert protocol_version",
    );
    says(
        Handshake { trouble: Some(Trouble::Library(258)), ..none },
        Certain,
        "the version of TLS that was offered is not allowed",
    );
    says(Handshake { trouble: Some(Trouble::AlertSent(42)), ..none }, Certain, "alert bad_certificate was sent");
}

/// A hello that asks for a name and offers HTTP/2.
fn hello(grpc: bool) -> Vec<u8> {
    let mut hello = b"\x16\x03\x01\x00\x60\x01\x00\x00\x5c\x03\x03".to_vec();
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0, 0, 29]);
    hello.extend_from_slice(b"\0\0\0\x10\0\x0e\0\0\x0bapi.example");
    hello.extend_from_slice(if grpc { b"\0\x10\0\x05\0\x03\x02h2" } else { b"\0\x17\0\0" });
    hello
}

#[test]
fn each_reason_has_its_remedy() {
    let none = Handshake::default();
    let verified = |code| Handshake { verified: code, trouble: Some(Trouble::Library(134)), ..none };
    let alert = |code| Handshake { trouble: Some(Trouble::AlertReceived(code)), ..none };
    for (handshake, grpc, wanted) in [
        (verified(10), false, "renew the certificate on 127.0.0.1:8000 (uvicorn (pid 812)) and reload it"),
        (verified(20), false, "nginx: proxy_ssl_trusted_certificate and proxy_ssl_verify"),
        (verified(18), true, "nginx: grpc_ssl_trusted_certificate and grpc_ssl_verify"),
        (
            Handshake { done: true, other_name: true, ..none },
            false,
            "nginx: proxy_ssl_name and proxy_ssl_server_name on",
        ),
        (verified(62), true, "nginx: grpc_ssl_name and grpc_ssl_server_name on"),
        // A function of the proxy's own that compares the name.
        (verified(1), false, "nginx: proxy_ssl_name and proxy_ssl_server_name on"),
        (Handshake { trouble: Some(Trouble::Library(333)), ..none }, false, "nginx: proxy_ssl_protocols"),
        (alert(70), false, "nginx: proxy_ssl_protocols"),
        (alert(40), false, "nginx: proxy_ssl_ciphers\nnginx: proxy_ssl_certificate and proxy_ssl_certificate_key"),
        (alert(116), true, "nginx: grpc_ssl_certificate and grpc_ssl_certificate_key"),
        (alert(120), true, "offers no HTTP/2 inside TLS"),
        (Handshake { trouble: Some(Trouble::Library(193)), ..none }, true, "nginx: grpc_ssl_ciphers"),
    ] {
        let i = shook_with(handshake, hello(grpc)).expect("tls_handshake_failed", Certain);
        let fixes = i.fix.join("\n");
        assert!(fixes.contains(wanted), "{wanted}: {fixes}");
        let lines: BTreeSet<&String> = i.fix.iter().collect();
        assert_eq!(lines.len(), i.fix.len(), "a line stands twice: {fixes}");
        assert_eq!(fixes.contains("trusted_certificate"), wanted.contains("trusted_certificate"), "{fixes}");
        assert_eq!(fixes.contains("ssl_name"), wanted.contains("ssl_name"), "{fixes}");
        if let Some(by_hand) = i.fix.iter().find(|fix| fix.contains("openssl")) {
            assert!(by_hand.contains("-connect 127.0.0.1:8000 -servername api.example </dev/null"), "{by_hand}");
        }
    }
}

#[test]
fn what_nobody_minded_is_no_reason() {
    // It is not verified here: the proxy closed for a reason of its own.
    says(Handshake { done: true, verified: 18, ..Handshake::default() }, Likely, "without a request, most often");
}

/// A request was sent inside TLS, and the upstream closed.
fn closed(change: impl FnOnce(&mut Attempt)) -> World {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.secured = true;
    a.conn.application = true;
    a.handshake = Some(Handshake { done: true, ..Handshake::default() });
    a.conn.fin = Some(w.now - 10_000);
    a.peer = Some(Peer { closed_first: true, closed: Some(w.now - 20_000), closed_by: Some(SERVER), ..w.peer() });
    change(&mut a);
    w.tell(a).answered(502);
    w
}

#[test]
fn inside_tls_a_close_is_as_certain_as_on_the_wire() {
    closed(|_| ()).expect("upstream_closed_early", Certain);
}

#[test]
fn a_server_that_wants_a_certificate_says_so_after_the_request() {
    let alert = |code| {
        move |a: &mut Attempt| {
            a.handshake =
                Some(Handshake { done: true, trouble: Some(Trouble::AlertReceived(code)), ..Handshake::default() });
        }
    };
    let incident = closed(alert(116)).expect("tls_handshake_failed", Certain);
    assert!(incident.summary.contains("it wants a certificate of it"), "{}", incident.summary);
    closed(alert(42)).expect("tls_handshake_failed", Likely);
    // A goodbye is no refusal.
    closed(alert(0)).expect("upstream_closed_early", Certain);
    closed(|a| {
        alert(116)(a);
        a.conn.reused = true;
    })
    .expect("upstream_closed_early", Certain);
}

#[test]
fn a_goodbye_that_nobody_read_is_no_unread_request() {
    let mut w = nginx();
    waited(&mut w, |w, a| {
        a.conn.secured = true;
        a.conn.application = true;
        a.peer = Some(Peer { unread: 24, ..w.peer() });
    });
    w.expect("response_timeout", Certain);
}

#[test]
fn how_much_of_a_long_request_was_read_inside_tls_is_not_known() {
    let unread = |bytes| {
        let mut w = nginx();
        waited(&mut w, |w, a| {
            a.conn.secured = true;
            a.conn.application = true;
            a.conn.request_bytes = bytes;
            a.peer = Some(Peer { unread: bytes as u32 + 400, ..w.peer() });
        });
        w
    };
    unread(500).expect("request_not_read", Certain);
    unread(100_000).expect("response_timeout", Likely);
}
