//! HTTP/2 from outside: the client's preface and the frame that a server begins with.

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Length of the largest frame that everybody takes.
const LARGEST: u32 = 16_384;

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

/// Whether a frame begins here, as those are that every server knows.
pub fn is_frame(bytes: &[u8]) -> bool {
    let [high, mid, low, kind, _, stream, ..] = bytes else { return false };
    u32::from_be_bytes([0, *high, *mid, *low]) <= LARGEST && *kind <= CONTINUATION && *stream < 0x80
}

/// Whether a client's request begins here, on a connection that had others before.
pub fn begins_request(bytes: &[u8]) -> bool {
    let [_, _, _, HEADERS, flags, stream @ .., _] = &bytes[..bytes.len().min(10)] else { return false };
    is_frame(bytes) && flags & !0x2d == 0 && stream.last().is_some_and(|low| low % 2 == 1)
}

/// What frames say of the streams that they may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// One of them belongs to a stream, or ends the connection.
    Streams,
    /// Settings, windows and pings, to the end.
    Control,
    /// The same, as far as it was kept.
    Unknown,
}

/// What these frames carry, of `total` bytes of which the first were kept.
pub fn carries(bytes: &[u8], total: u64) -> Carries {
    let kept = bytes.len() as u64 >= total;
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let [high, mid, low, kind, _, _, _, _, _, body @ ..] = rest {
        match *kind {
            SETTINGS | PING | WINDOW_UPDATE => {}
            PRIORITY if is_frame(rest) => {}
            _ => return Carries::Streams,
        }
        let len = u32::from_be_bytes([0, *high, *mid, *low]) as usize;
        match body.get(len..) {
            Some(after) => rest = after,
            None => return Carries::Unknown,
        }
    }
    if rest.is_empty() && kept { Carries::Control } else { Carries::Unknown }
}

/// What a server says of a request that it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// RST_STREAM of its stream.
    Stream(&'static str),
    /// GOAWAY, by which the connection ends.
    Connection(&'static str),
}

/// How a request was refused, where that is the first that its server says of any stream since.
pub fn refusal(request: &[u8], reply: &[u8]) -> Option<Refusal> {
    let begun = request.strip_prefix(PREFACE).or_else(|| begins_request(request).then_some(request))?;
    let asked = frames(begun).find(|frame| frame.kind == HEADERS)?.stream;
    let told = frames(reply).find(|frame| !matches!(frame.kind, SETTINGS | PING | WINDOW_UPDATE | PRIORITY))?;
    let number = |at: usize| told.body.get(at..at + 4).map(|it| u32::from_be_bytes([it[0], it[1], it[2], it[3]]));
    match told.kind {
        RST_STREAM if told.stream == asked => Some(Refusal::Stream(error_name(number(0)?))),
        // Streams up to this one may still be answered.
        GOAWAY if number(0)? < asked || number(4)? != 0 => Some(Refusal::Connection(error_name(number(4)?))),
        _ => None,
    }
}

/// The header block of this request of a connection among these frames, as far as it was kept, and whether nothing was
/// asked on the connection before. Everybody who asks numbers streams from 1, by odd numbers.
pub fn request_block(bytes: &[u8], request: u32) -> Option<(&[u8], bool)> {
    const PADDED: u8 = 8;
    const PRIORITIZED: u8 = 32;
    let begun = bytes.strip_prefix(PREFACE);
    let stream = request.checked_mul(2)?.checked_sub(1)?;
    let asked = frames(begun.unwrap_or(bytes)).find(|frame| frame.kind == HEADERS && frame.stream == stream)?;
    let (padding, rest) = match asked.flags & PADDED {
        0 => (0, asked.body),
        _ => asked.body.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?,
    };
    let block = rest.get(if asked.flags & PRIORITIZED == 0 { 0 } else { 5 }..)?;
    // Where the end was kept, the padding was.
    let cut = if asked.whole { padding } else { 0 };
    Some((block.get(..block.len().checked_sub(cut)?)?, begun.is_some() && request == 1))
}

/// A header block as it was sent for this request of a connection.
pub fn request_frame(block: &[u8], request: u32) -> Vec<u8> {
    let (len, stream) = ((block.len() as u32).to_be_bytes(), request.wrapping_mul(2).wrapping_sub(1).to_be_bytes());
    let head = [&[len[1], len[2], len[3], HEADERS, 5][..], &stream].concat();
    [if request == 1 { PREFACE } else { &[] }, &head, block].concat()
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    whole: bool,
    /// As much of it as was kept.
    body: &'a [u8],
}

fn frames(mut rest: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let [high, mid, low, kind, flags, a, b, c, d, body @ ..] = rest else { return None };
        let len = u32::from_be_bytes([0, *high, *mid, *low]) as usize;
        rest = body.get(len..).unwrap_or_default();
        let stream = u32::from_be_bytes([*a & 0x7f, *b, *c, *d]);
        let whole = body.len() >= len;
        Some(Frame { kind: *kind, flags: *flags, stream, whole, body: &body[..len.min(body.len())] })
    })
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
    fn settings_windows_and_pings_answer_nothing() {
        let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec();
        let window = b"\0\0\x04\x08\0\0\0\0\0\0\0\x40\0".to_vec();
        let headers = b"\0\0\x01\x01\x05\0\0\0\x01\x88".to_vec();
        let control = [settings.clone(), window, b"\0\0\0\x04\x01\0\0\0\0".to_vec()].concat();
        let all = |bytes: &[u8]| carries(bytes, bytes.len() as u64);
        assert_eq!(all(&control), Carries::Control);
        assert_eq!(carries(&control, 4_000), Carries::Unknown);
        assert_eq!(all(&control[..20]), Carries::Unknown);
        assert_eq!(all(&[control.clone(), headers.clone()].concat()), Carries::Streams);
        assert_eq!(all(&[PREFACE, &settings, &headers].concat()), Carries::Streams);
        assert_eq!(all(&[PREFACE, &settings].concat()), Carries::Control);
        assert_eq!(all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01"), Carries::Streams);
        assert!(begins_request(&headers) && is_frame(&control) && !begins_request(&control));
        for no in [&b"\x10\0\0\0\x03SELECT"[..], b"\0\0\x01\x01\x05\0\0\0\x02\x88", b"GET / HTTP/1.1\r\n", b""] {
            assert!(!begins_request(no), "{no:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_first_word_on_the_stream_that_asked() {
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let request = [PREFACE, settings, b"\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x44"].concat();
        let said = |reply: &[u8]| refusal(&request, &[settings, reply].concat());
        let reset = |stream| [b"\0\0\x04\x03\0\0\0\0", &[stream, 0, 0, 0, 2][..]].concat();
        assert_eq!(said(&reset(1)), Some(Refusal::Stream("INTERNAL_ERROR")));
        assert_eq!(said(&reset(3)), None, "another stream");
        let goaway = |last, code| [b"\0\0\x08\x07\0\0\0\0\0", &[0, 0, 0, last, 0, 0, 0, code][..]].concat();
        assert_eq!(said(&goaway(0, 0)), Some(Refusal::Connection("NO_ERROR")));
        assert_eq!(said(&goaway(1, 11)), Some(Refusal::Connection("ENHANCE_YOUR_CALM")));
        assert_eq!(said(&goaway(1, 0)), None, "it will still be answered");
        assert_eq!(said(&[b"\0\0\x01\x01\x04\0\0\0\x01\x88", &reset(1)[..]].concat()), None, "an answer had begun");
        assert_eq!(said(&reset(1)[..10]), None, "cut off");
        assert_eq!(refusal(&request[33..], &reset(1)), Some(Refusal::Stream("INTERNAL_ERROR")), "behind the greetings");
        assert_eq!(refusal(&request[24..], &reset(1)), None, "nothing that begins a request");
    }

    #[test]
    fn the_block_of_a_request_is_found_by_its_number() {
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let block = |stream| [b"\0\0\x03\x01\x05\0\0\0", &[stream][..], b"\x83\x86\x44"].concat();
        let first = [PREFACE, settings, &block(1)].concat();
        assert_eq!(request_block(&first, 1), Some((&b"\x83\x86\x44"[..], true)));
        assert_eq!(request_block(&first, 2), None);
        let two = [block(3), block(5)].concat();
        for request in [1, 2, 900] {
            let framed = request_frame(b"\x83\x86\x44", request);
            assert_eq!(request_block(&framed, request), Some((&b"\x83\x86\x44"[..], request == 1)));
            assert!(is_preface(&framed) || begins_request(&framed));
        }
        assert_eq!(request_block(&two, 3), Some((&b"\x83\x86\x44"[..], false)));
        assert_eq!(request_block(&two[..11], 2), Some((&b"\x83\x86\x44"[..2], false)), "cut off");
        let padded = b"\0\0\x0a\x01\x2d\0\0\0\x03\x02\0\0\0\0\x10\x83\x86\0\0";
        assert_eq!(request_block(padded, 2), Some((&b"\x83\x86"[..], false)));
        assert_eq!(request_block(&padded[..10], 2), None);
        assert_eq!((request_block(&two, 0), request_block(&two, u32::MAX), request_block(b"", 1)), (None, None, None));
    }

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
