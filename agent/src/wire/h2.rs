//! HTTP/2 from outside: the client's preface and the frame that a server begins with.

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Whether an HTTP/2 client begins here.
pub fn is_preface(bytes: &[u8]) -> bool {
    bytes.len() >= 14 && PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())])
}

/// Whether an HTTP/2 server begins here: with SETTINGS, or with GOAWAY, on stream 0.
pub fn is_server_start(bytes: &[u8]) -> bool {
    let [high, mid, low, kind, flags, 0, 0, 0, 0, ..] = bytes else { return false };
    let len = u32::from_be_bytes([0, *high, *mid, *low]);
    match *kind {
        SETTINGS => *flags <= 1 && len.is_multiple_of(6) && len <= 600,
        GOAWAY => *flags == 0 && (8..=16_384).contains(&len),
        _ => false,
    }
}

/// The name of the error that a GOAWAY at the start gives.
pub fn goaway(bytes: &[u8]) -> Option<&'static str> {
    if !is_server_start(bytes) {
        return None;
    }
    let mut rest = bytes;
    while let [high, mid, low, kind, _, _, _, _, _, body @ ..] = rest {
        let len = u32::from_be_bytes([0, *high, *mid, *low]) as usize;
        if *kind == GOAWAY {
            return body.get(4..8).map(|code| error_name(u32::from_be_bytes([code[0], code[1], code[2], code[3]])));
        }
        rest = body.get(len..)?;
    }
    None
}

fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("an unknown error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preface_settings_and_goaway_are_known() {
        assert!(is_preface(PREFACE));
        assert!(is_preface(b"PRI * HTTP/2.0\r\n"));
        assert!(!is_preface(b"PUT / HTTP/1.1\r\n"));
        assert!(is_server_start(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"));
        assert!(!is_server_start(b"HTTP/1.1 200 OK\r\n"));
        let both = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        assert_eq!(goaway(both), Some("PROTOCOL_ERROR"));
        assert_eq!(goaway(b"\0\0\0\x04\0\0\0\0\0"), None);
    }
}
