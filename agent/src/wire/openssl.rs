//! The numbers of OpenSSL that say why a handshake failed, in words.

use std::borrow::Cow;

use crate::model::Trouble;
use crate::wire::tls::Alert;

/// `SSL_R_CERTIFICATE_VERIFY_FAILED`.
pub const VERIFY_FAILED: u16 = 134;

/// What verification found (`X509_V_ERR_*`).
pub fn verification(code: u8) -> Cow<'static, str> {
    Cow::Borrowed(match code {
        // What the library says where the proxy's own function refused: HAProxy compares the name in it.
        1 => "a check of the proxy's own refused it, most often of the name",
        2 | 20 => "it is not signed by an authority that is known",
        3 | 11 | 12 => "what its authority has revoked is not known",
        7 => "its signature is wrong",
        9 => "it is not valid yet",
        10 => "it has expired",
        18 => "it is self-signed",
        19 => "its chain ends in a self-signed certificate that is not trusted",
        21 => "its chain is incomplete: the intermediate certificate is missing",
        22 => "its chain is too long",
        23 => "it was revoked",
        79 => "a certificate of its chain may not sign others",
        26 => "it is not meant for servers",
        62 => "it is for another name",
        64 => "it is for another address",
        66 => "its key is too weak",
        67 => "the key of its authority is too weak",
        68 => "its signature is of a kind that is too weak",
        other => return Cow::Owned(format!("error {other} of its verification")),
    })
}

/// An error of the library's own (`SSL_R_*`).
pub fn error(code: u16) -> Cow<'static, str> {
    Cow::Borrowed(match code {
        VERIFY_FAILED => "the certificate was not accepted",
        155 | 156 => "plain HTTP came where TLS was expected",
        191 => "there is no version of TLS that both allow",
        181 | 185 | 193 => "there is no cipher that both allow",
        252 | 258 | 266 => "the version of TLS that was offered is not allowed",
        261 => "a cipher was chosen that was not offered",
        333 => "a version before TLS 1.2 was chosen, whose signatures are not allowed",
        394 => "the key of the key exchange is too small",
        267 => "what came is no TLS, or a version of it that is not known",
        294 => "the connection ended where more was expected",
        other => return Cow::Owned(format!("error {other} of the TLS library")),
    })
}

/// An error of BoringSSL's, by the number that OpenSSL has for the same.
pub fn of_boring(code: u16) -> Trouble {
    Trouble::Library(match code {
        125 => VERIFY_FAILED,
        155 | 156 => code,
        177 | 184 => 193,
        240 => 258,
        242 => 261,
        247 => 267,
        246 => 266,
        other => return Trouble::Boring(other),
    })
}

pub fn trouble(trouble: Trouble) -> Cow<'static, str> {
    let name = |code| Alert { fatal: true, code: Some(code) }.name();
    match trouble {
        Trouble::Library(code) => error(code),
        Trouble::Boring(code) => Cow::Owned(format!("error {code} of BoringSSL")),
        Trouble::AlertReceived(code) => Cow::Owned(format!("alert {} was received", name(code))),
        Trouble::AlertSent(code) => Cow::Owned(format!("alert {} was sent", name(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_known_are_told_as_numbers() {
        assert_eq!(verification(10), "it has expired");
        assert_eq!(verification(200), "error 200 of its verification");
        assert_eq!(error(9999), "error 9999 of the TLS library");
        assert_eq!(trouble(of_boring(200)), "error 200 of BoringSSL");
        assert_eq!(of_boring(240), Trouble::Library(258));
        assert_eq!(trouble(Trouble::AlertReceived(116)), "alert certificate_required was received");
        assert_eq!(trouble(Trouble::AlertSent(42)), "alert bad_certificate was sent");
    }
}
