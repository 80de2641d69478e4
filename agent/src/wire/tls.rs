//! TLS records as they look from outside: a hello, an alert, a handshake under way.

/// What the records at the start of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    ClientHello,
    ServerHello,
    Handshake,
    Alert(Alert),
    /// Encrypted: application data, or a handshake message of TLS 1.3.
    Encrypted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    pub fatal: bool,
    /// `None`: the alert is encrypted.
    pub code: Option<u8>,
}

impl Alert {
    /// The name that RFC 8446 gives it.
    pub fn name(self) -> &'static str {
        match self.code {
            Some(0) => "close_notify",
            Some(10) => "unexpected_message",
            Some(20) => "bad_record_mac",
            Some(22) => "record_overflow",
            Some(40) => "handshake_failure",
            Some(42) => "bad_certificate",
            Some(43) => "unsupported_certificate",
            Some(44) => "certificate_revoked",
            Some(45) => "certificate_expired",
            Some(46) => "certificate_unknown",
            Some(47) => "illegal_parameter",
            Some(48) => "unknown_ca",
            Some(49) => "access_denied",
            Some(50) => "decode_error",
            Some(51) => "decrypt_error",
            Some(70) => "protocol_version",
            Some(71) => "insufficient_security",
            Some(80) => "internal_error",
            Some(86) => "inappropriate_fallback",
            Some(90) => "user_canceled",
            Some(109) => "missing_extension",
            Some(110) => "unsupported_extension",
            Some(112) => "unrecognized_name",
            Some(113) => "bad_certificate_status_response",
            Some(115) => "unknown_psk_identity",
            Some(116) => "certificate_required",
            Some(120) => "no_application_protocol",
            Some(_) => "unknown alert",
            None => "encrypted alert",
        }
    }
}

/// The records from the start of `bytes`; ends where it is no TLS or is cut.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record> {
    std::iter::from_fn(move || {
        let [kind @ 20..=23, 3, 0..=4, high, low, rest @ ..] = bytes else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len == 0 || len > 16_640 {
            return None;
        }
        let body = &rest[..len.min(rest.len())];
        let record = match (kind, body) {
            (21, [level @ (1 | 2), code]) if len == 2 => Record::Alert(Alert { fatal: *level == 2, code: Some(*code) }),
            (21, _) => Record::Alert(Alert { fatal: true, code: None }),
            (22, [1, ..]) => Record::ClientHello,
            (22, [2, ..]) => Record::ServerHello,
            (22, _) => Record::Handshake,
            // Change of cipher: says nothing.
            (20, _) => Record::Handshake,
            _ => Record::Encrypted,
        };
        bytes = rest.get(len..).unwrap_or(&[]);
        Some(record)
    })
}

pub fn is_tls(bytes: &[u8]) -> bool {
    records(bytes).next().is_some()
}

pub fn is_client_hello(bytes: &[u8]) -> bool {
    records(bytes).next() == Some(Record::ClientHello)
}

/// The first alert that is there in the clear or not.
pub fn alert(bytes: &[u8]) -> Option<Alert> {
    records(bytes).find_map(|record| match record {
        Record::Alert(alert) => Some(alert),
        _ => None,
    })
}

/// The server name that a client hello asks for.
pub fn server_name(bytes: &[u8]) -> Option<String> {
    let name = extension(bytes, 0)?;
    Some(crate::text::safe_bytes(name.get(5..)?, 120))
}

/// Whether a client hello offers to speak HTTP/2 before all else (ALPN).
pub fn offers_http2(bytes: &[u8]) -> bool {
    const ALPN: u16 = 16;
    extension(bytes, ALPN).is_some_and(|offered| offered.get(2..).is_some_and(|names| names.starts_with(b"\x02h2")))
}

/// The body of an extension of a client hello.
fn extension(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    if !is_client_hello(bytes) {
        return None;
    }
    // Record header 5, handshake header 4, version 2, random 32.
    let mut rest = bytes.get(43..)?;
    let session = usize::from(*rest.first()?);
    rest = rest.get(1 + session..)?;
    let ciphers = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
    rest = rest.get(2 + ciphers..)?;
    let compressions = usize::from(*rest.first()?);
    rest = rest.get(1 + compressions + 2..)?;
    while let [a, b, c, d, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        if u16::from_be_bytes([*a, *b]) == wanted {
            return after.get(..len);
        }
        rest = after.get(len..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_and_alerts_are_told_apart() {
        assert!(is_client_hello(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"));
        let alert = alert(b"\x15\x03\x03\x00\x02\x02\x28").unwrap();
        assert_eq!((alert.fatal, alert.name()), (true, "handshake_failure"));
        let both: Vec<_> = records(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00\x15\x03\x03\x00\x02\x02\x46").collect();
        assert_eq!(both[0], Record::ServerHello);
        assert!(matches!(both[1], Record::Alert(Alert { code: Some(70), .. })));
        assert!(!is_tls(b"HTTP/1.1 400 Bad Request"));
        assert!(!is_tls(b"\x16\x03"));
        assert!(!is_tls(b"\x00\x00\x12\x04\x00"));
    }

    #[test]
    fn the_server_name_is_read_and_a_cut_hello_has_none() {
        let mut hello = b"\x16\x03\x01\x00\x60\x01\x00\x00\x5c\x03\x03".to_vec();
        hello.extend_from_slice(&[7; 32]);
        hello.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0, 0, 20]);
        hello.extend_from_slice(&[0, 0, 0, 16, 0, 14, 0, 0, 11]);
        hello.extend_from_slice(b"api.example");
        assert_eq!(server_name(&hello).as_deref(), Some("api.example"));
        for cut in 0..hello.len() {
            server_name(&hello[..cut]);
        }
        assert_eq!(server_name(&hello[..70]), None);
        assert!(!offers_http2(&hello));
        hello.extend_from_slice(b"\0\x10\0\x05\0\x03\x02h2");
        assert!(offers_http2(&hello));
        assert_eq!(server_name(&hello).as_deref(), Some("api.example"));
    }
}
