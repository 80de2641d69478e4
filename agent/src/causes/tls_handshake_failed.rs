//! `tls_handshake_failed`: the TLS handshake failed.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::logs::Hint;
use crate::model::{Connection, Group};
use crate::proxies::Setting;
use crate::text::SECOND;
use crate::wire::{Looks, tls};

/// Bytes that follow the hello when the proxy ends the handshake with an alert: plain, encrypted, each with or
/// without a change of cipher before it.
const ALERT_SIZES: [u64; 4] = [7, 13, 24, 30];

pub static CAUSE: Cause = Cause {
    id: "tls_handshake_failed",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Both sides speak TLS and could not agree: certificate, name, version or cipher.",
    proof: "An alert of either side before the request, or the end of the connection inside the handshake.",
    remedy: "Check the upstream's certificate (expiry, issuer, name) and what the proxy verifies.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    if case.sent() != Looks::Tls || case.answered() != Looks::Tls || conn.application {
        return Verdict::No;
    }
    let place = case.place();
    let name = tls::server_name(&conn.request_head);
    let asked = name.map_or_else(String::new, |n| format!(" (asked for {n})"));
    if let Some(alert) = tls::alert(case.reply()) {
        return advised(case, Finding::new(format!("{place} ended the TLS handshake{asked}: alert {}", alert.name())))
            .yes();
    }
    let after = after_hello(conn).unwrap_or(0);
    if ALERT_SIZES.contains(&after) && !case.broken() {
        let proxy = &case.owner.name;
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
        )
        .yes();
    }
    if case.waited() > 10 * SECOND {
        return Verdict::No;
    }
    let who = if case.broken() { place.clone() } else { case.owner.name.clone() };
    advised(
        case,
        Finding::new(format!("{who} ended the TLS handshake with {place}{asked} before the request was sent")).note(
            case.at,
            "handshake",
            "the alert that says why is encrypted or was not sent",
        ),
    )
    .yes()
}

/// Bytes sent after the client hello.
fn after_hello(conn: &Connection) -> Option<u64> {
    let len = conn.request_head.get(3..5)?;
    let hello = 5 + u64::from(u16::from_be_bytes([len[0], len[1]]));
    conn.request_bytes.checked_sub(hello)
}

fn advised(case: &Case<'_>, finding: Finding) -> Finding {
    finding
        .fix(format!("look at its certificate: `openssl s_client -connect {} </dev/null`", case.place()))
        .fixes(case.advise(Setting::TlsVerify, "{}"))
        .fixes(case.advise(Setting::TlsName, "{}"))
}
