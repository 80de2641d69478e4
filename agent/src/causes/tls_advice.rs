//! What to do about a TLS handshake that failed, by what it failed of.

use super::{Case, Finding};
use crate::model::{Endpoint, Handshake, Trouble};
use crate::proxies::Setting;
use crate::wire::{openssl, tls};

/// What a handshake failed of, as far as somebody can mend it in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The certificate is no longer valid.
    Expired,
    /// Who signed it is not known to the proxy.
    Authority,
    /// It is for another name, or the upstream knows no such name.
    Name,
    /// The certificate itself: revoked, weak, not meant for this.
    Certificate,
    Version,
    Cipher,
    /// No common parameters: a cipher, or the client certificate that was not there.
    Parameters,
    /// The upstream wants another certificate of the proxy, or one at all.
    Client,
    /// The upstream offers no HTTP/2 inside TLS.
    Protocol,
    /// It was not said.
    Unknown,
}

impl Reason {
    /// Of an alert that the upstream sent.
    pub fn of_alert(code: Option<u8>) -> Reason {
        match code {
            Some(40) => Reason::Parameters,
            Some(42..=49 | 116) => Reason::Client,
            Some(70 | 86) => Reason::Version,
            Some(71) => Reason::Cipher,
            Some(112) => Reason::Name,
            Some(120) => Reason::Protocol,
            _ => Reason::Unknown,
        }
    }

    /// Of what the proxy's library says.
    pub fn of(made: &Handshake) -> Reason {
        let failed = made.trouble == Some(Trouble::Library(openssl::VERIFY_FAILED));
        match (made.told, made.verified) {
            (code @ 1.., _) => Reason::of_verification(code),
            _ if made.other_name => Reason::Name,
            (_, code @ 1..) if failed => Reason::of_verification(code),
            _ => made.trouble.map_or(Reason::Unknown, Reason::of_trouble),
        }
    }

    fn of_verification(code: u8) -> Reason {
        match code {
            10 => Reason::Expired,
            2 | 18 | 19 | 20 | 21 => Reason::Authority,
            1 | 62 | 64 => Reason::Name,
            _ => Reason::Certificate,
        }
    }

    fn of_trouble(trouble: Trouble) -> Reason {
        match trouble {
            Trouble::AlertReceived(code) => Reason::of_alert(Some(code)),
            Trouble::Library(181 | 185 | 193 | 261) => Reason::Cipher,
            Trouble::Library(191 | 252 | 258 | 266 | 267 | 333) | Trouble::AlertSent(70) => Reason::Version,
            Trouble::AlertSent(40 | 71) => Reason::Cipher,
            Trouble::AlertSent(45) => Reason::Expired,
            Trouble::AlertSent(48) => Reason::Authority,
            Trouble::AlertSent(44) => Reason::Certificate,
            Trouble::Library(_) | Trouble::Boring(_) | Trouble::AlertSent(_) => Reason::Unknown,
        }
    }
}

pub fn advised(case: &Case<'_>, finding: Finding, reason: Reason) -> Finding {
    let place = case.place();
    let who = case.server().map_or_else(String::new, |pid| format!(" ({})", case.who(pid)));
    let set = |settings: &[Setting]| {
        settings.iter().filter_map(|setting| case.advise(*setting, "{}")).collect::<Vec<String>>()
    };
    let look = format!("look at its certificate: `{}`", by_hand(case));
    let tried = format!("try it by hand: `{}`", by_hand(case));
    match reason {
        Reason::Expired => finding.fix(format!("renew the certificate on {place}{who} and reload it")).fix(look),
        Reason::Certificate => finding.fix(format!("replace the certificate on {place}{who}")).fix(look),
        Reason::Authority => finding.fix(look).fixes(set(&[Setting::TlsVerify])),
        Reason::Name => finding.fix(look).fixes(set(&[Setting::TlsName])),
        Reason::Version => finding.fix(tried).fixes(set(&[Setting::TlsVersion])),
        Reason::Cipher => finding.fix(tried).fixes(set(&[Setting::TlsCiphers])),
        Reason::Parameters => finding.fix(tried).fixes(set(&[Setting::TlsCiphers, Setting::ClientCertificate])),
        Reason::Client => finding
            .fix(format!(
                "give {} a client certificate that {place}{who} accepts, or let it ask for none",
                case.owner.name
            ))
            .fixes(set(&[Setting::ClientCertificate])),
        Reason::Protocol => finding
            .fix(format!("{place}{who} offers no HTTP/2 inside TLS (h2 in ALPN): let it, or ask for HTTP/1"))
            .fixes(set(&[Setting::UpstreamHttp2])),
        Reason::Unknown => finding.fix(look).fixes(set(&[Setting::TlsVerify, Setting::TlsName])),
    }
}

/// The same handshake without the proxy.
fn by_hand(case: &Case<'_>) -> String {
    let place = case.place();
    let to = match case.endpoint() {
        Some(Endpoint::Unix(_)) => format!("-unix {}", place.trim_start_matches("unix:")),
        _ => format!("-connect {place}"),
    };
    // What goes into a shell is what names are made of.
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let name = case.conn().and_then(|conn| tls::server_name(&conn.request_head)).filter(plain);
    let name = name.map_or_else(String::new, |name| format!(" -servername {name}"));
    format!("openssl s_client {to}{name} </dev/null")
}
