//! `tls_handshake_failed`: the TLS handshake failed.

use std::borrow::Cow;

use super::tls_advice::{Reason, advised};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::logs::Hint;
use crate::model::{Connection, Group, Handshake, Trouble};
use crate::text::SECOND;
use crate::wire::{Looks, openssl, tls};

/// Bytes that follow the hello when the proxy ends the handshake with an alert: plain, encrypted, each with or
/// without a change of cipher before it.
const ALERT_SIZES: [u64; 4] = [7, 13, 24, 30];

pub static CAUSE: Cause = Cause {
    id: "tls_handshake_failed",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Both sides speak TLS and could not agree: certificate, name, version or cipher.",
    proof: "What the proxy's TLS library found (its first error, what it made of the certificate), an alert of either side \
            in place of an answer, or the end of the connection inside the handshake.",
    remedy: "Check the upstream's certificate (expiry, issuer, name) and what the proxy verifies.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    if conn.application {
        return after_the_request(case, conn).map_or(Verdict::No, Finding::yes);
    }
    if case.sent() != Looks::Tls || case.answered() != Looks::Tls {
        return Verdict::No;
    }
    let place = case.place();
    let name = tls::server_name(&conn.request_head);
    let asked = name.as_ref().map_or_else(String::new, |n| format!(" (asked for {n})"));
    if let Some(finding) = case.handshake().and_then(|made| told(case, &made, &asked)) {
        return finding.yes();
    }
    if let Some(alert) = tls::alert(case.reply()) {
        let why =
            format!("{} refused {}'s TLS handshake{asked}: alert {}", server(case), case.owner.name, alert.name());
        return advised(case, Finding::new(why), Reason::of_alert(alert.code)).yes();
    }
    let proxy = &case.owner.name;
    let done = case.handshake().is_some_and(|made| made.done);
    let after = after_hello(conn).unwrap_or(0);
    if !done && ALERT_SIZES.contains(&after) && !case.broken() {
        let refused = case.said() == Some(&Hint::TlsVerify);
        let why =
            if refused { ": it refused the certificate, says its log" } else { ", most often about the certificate" };
        return advised(
            case,
            Finding::new(format!("{proxy} ended the TLS handshake with {place}{asked} by an alert{why}")).note(
                case.at,
                "alert_sent",
                format!("{after} bytes after the hello: an alert"),
            ),
            Reason::Unknown,
        )
        .yes();
    }
    if case.waited() > 10 * SECOND {
        return Verdict::No;
    }
    if done {
        return after_the_handshake(case, &asked);
    }
    let who = if case.broken() { place.clone() } else { proxy.clone() };
    advised(
        case,
        Finding::new(format!("{who} ended the TLS handshake with {place}{asked} before the request was sent")).note(
            case.at,
            "handshake",
            "the alert that says why is encrypted or was not sent",
        ),
        Reason::Unknown,
    )
    .yes()
}

/// What the proxy's TLS library made of it.
fn told(case: &Case<'_>, made: &Handshake, asked: &str) -> Option<Finding> {
    let (proxy, place) = (&case.owner.name, case.place());
    let noted = |finding: Finding, what: String| finding.note(case.at, "tls_library", what);
    if let Some(why) = refused(made) {
        let finding = Finding::new(format!("{proxy} refused the certificate of {place}{asked}: {why}"));
        let finding = noted(finding, format!("{proxy} found of the certificate: {why}"));
        return Some(advised(case, finding, Reason::of(made)));
    }
    let trouble = made.trouble?;
    let why = openssl::trouble(trouble);
    let finding = match trouble {
        Trouble::AlertReceived(code) => {
            let alert = tls::Alert { fatal: true, code: Some(code) }.name();
            Finding::new(format!("{} refused {proxy}'s TLS handshake{asked}: alert {alert}", server(case)))
        }
        _ => Finding::new(format!("{proxy} ended its TLS handshake with {}{asked}: {why}", server(case))),
    };
    let finding = noted(finding, format!("{proxy}'s TLS library: {why}"));
    Some(advised(case, finding, Reason::of(made)))
}

/// `node (pid 812) on 127.0.0.1:8443`, or only the address.
fn server(case: &Case<'_>) -> String {
    case.server().map_or_else(|| case.place(), |pid| format!("{} on {}", case.who(pid), case.place()))
}

/// Why the proxy did not accept the certificate, if it did not.
fn refused(made: &Handshake) -> Option<Cow<'static, str>> {
    let failed = made.trouble == Some(Trouble::Library(openssl::VERIFY_FAILED));
    match (made.told, made.verified) {
        (1.., _) => Some(openssl::verification(made.told)),
        _ if made.other_name => Some("it is for another name".into()),
        (_, 1..) if failed => Some(openssl::verification(made.verified)),
        _ if failed => Some("it was verified, and not accepted".into()),
        _ => None,
    }
}

/// It came to its end, and no request followed.
fn after_the_handshake(case: &Case<'_>, asked: &str) -> Verdict {
    let (proxy, place) = (&case.owner.name, case.place());
    // Who ended it is told by the causes for those that end.
    if case.broken() {
        return Verdict::No;
    }
    let refused = case.said() == Some(&Hint::TlsVerify);
    let why = if refused { ": it refused the certificate, says its log" } else { ", most often about its certificate" };
    let finding = Finding::new(format!("{proxy} closed the TLS connection to {place}{asked} without a request{why}"));
    let finding = finding.note(case.at, "handshake", "the TLS library had brought the handshake to its end");
    advised(case, finding, Reason::Unknown).proven_if(refused, "what the proxy found to be wrong").yes()
}

/// With TLS 1.3 a server that wants a certificate of the proxy says so when the request is under way.
fn after_the_request(case: &Case<'_>, conn: &Connection) -> Option<Finding> {
    const GOODBYES: [u8; 2] = [0, 90];
    let Some(Trouble::AlertReceived(code)) = case.handshake()?.trouble else { return None };
    if GOODBYES.contains(&code) || conn.reused || !case.no_answer() {
        return None;
    }
    let proxy = &case.owner.name;
    let alert = tls::Alert { fatal: true, code: Some(code) }.name();
    let wants = matches!(code, 40..=49 | 116);
    let what = if wants { " in place of an answer: it wants a certificate of it" } else { " in place of an answer" };
    let finding = Finding::new(format!("{} ended {proxy}'s TLS connection: alert {alert}{what}", server(case)));
    let finding = finding.note(case.at, "tls_library", format!("alert {alert} was received"));
    let finding = if wants { advised(case, finding, Reason::Client) } else { finding };
    Some(finding.proven_if(code == 116, "what it refused, in its own words"))
}

/// Bytes sent after the client hello.
fn after_hello(conn: &Connection) -> Option<u64> {
    let len = conn.request_head.get(3..5)?;
    let hello = 5 + u64::from(u16::from_be_bytes([len[0], len[1]]));
    conn.request_bytes.checked_sub(hello)
}
