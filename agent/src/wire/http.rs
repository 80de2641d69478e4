//! Heads of HTTP/1 requests and answers, as far as their first bytes were kept.

use super::flaw;
use crate::text;

/// Longest method that is taken for one.
const METHOD: usize = 20;
/// Longest target, host or header value that is kept.
const LONGEST: usize = 256;

/// The head of a request, perhaps cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As sent, in origin or absolute form.
    pub target: String,
    /// The request line was there to its end.
    pub whole_line: bool,
    /// The empty line that ends the head was there.
    pub complete: bool,
    pub host: Option<String>,
    pub request_id: Option<String>,
    pub x_varnish: Option<u64>,
}

impl Request {
    /// Not only two words: the line ends as one of HTTP, or was cut after a target as HTTP has them.
    pub fn is_http(&self) -> bool {
        self.whole_line || self.target.starts_with('/') || self.target.contains("://")
    }

    /// The path of the target, without query or fragment.
    pub fn path(&self) -> &str {
        let rest = match self.target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => match rest.find('/') {
                Some(slash) => &rest[slash..],
                None => "/",
            },
            _ => &self.target,
        };
        rest.split(['?', '#']).next().unwrap_or(rest)
    }
}

/// The request that begins here; a PROXY protocol header in front is skipped.
pub fn request(bytes: &[u8]) -> Option<Request> {
    let bytes = after_proxy_header(bytes);
    let (line, rest, whole_line) = first_line(bytes);
    let mut words = line.splitn(3, |&b| b == b' ');
    let method = words.next()?;
    if method.is_empty() || method.len() > METHOD || !method.iter().all(|&b| is_token(b)) {
        return None;
    }
    let target = words.next()?;
    let version = words.next();
    if whole_line && !version.is_some_and(|v| v.starts_with(b"HTTP/")) {
        return None;
    }
    if target.is_empty() && whole_line {
        return None;
    }
    let mut request = Request {
        method: text::safe_bytes(method, METHOD),
        target: text::safe_bytes(target, LONGEST),
        whole_line,
        ..Request::default()
    };
    let (headers, complete) = headers(rest);
    request.complete = whole_line && complete;
    for (name, value) in headers {
        let value = || text::safe_bytes(value, LONGEST);
        if name.eq_ignore_ascii_case(b"host") {
            request.host.get_or_insert_with(value);
        } else if name.eq_ignore_ascii_case(b"x-request-id") {
            request.request_id.get_or_insert_with(value);
        } else if name.eq_ignore_ascii_case(b"x-varnish") {
            request.x_varnish = value().split(' ').next().and_then(|v| v.parse().ok());
        }
    }
    Some(request)
}

/// The head of an answer, perhaps cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub complete: bool,
    /// What proxies refuse an answer for, see [`flaw`].
    pub bad_line: Option<String>,
    pub server: Option<String>,
    pub x_varnish: Option<u64>,
}

/// The answer that begins here; `None` where it is no HTTP/1 status line.
pub fn response(bytes: &[u8]) -> Option<Response> {
    let (line, rest, whole_line) = first_line(bytes);
    let version = line.strip_prefix(b"HTTP/1.")?;
    let digits = match version {
        [b'0' | b'1', b' ', digits @ ..] => digits.get(..3)?,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits.iter().fold(0_u16, |n, d| n * 10 + u16::from(d - b'0'));
    let (headers, complete) = headers(rest);
    let mut response = Response { status, complete: whole_line && complete, ..Response::default() };
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(b"server") {
            response.server.get_or_insert(text::safe_bytes(value, 40));
        } else if name.eq_ignore_ascii_case(b"x-varnish") {
            response.x_varnish = text::safe_bytes(value, 40).split(' ').next().and_then(|v| v.parse().ok());
        }
    }
    if whole_line {
        response.bad_line = flaw::of_answer(rest);
    }
    Some(response)
}

/// Whether these could be the first bytes of an HTTP/1 answer: `HT` may still become one.
pub fn may_be_response(bytes: &[u8]) -> bool {
    let start = b"HTTP/1.";
    let n = bytes.len().min(start.len());
    bytes[..n] == start[..n] && (bytes.len() < 12 || response(bytes).is_some())
}

/// Skips a PROXY protocol header of version 1 or 2.
pub fn after_proxy_header(bytes: &[u8]) -> &[u8] {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if bytes.starts_with(b"PROXY ") {
        return match bytes.iter().take(108).position(|&b| b == b'\n') {
            Some(end) => &bytes[end + 1..],
            None => &[],
        };
    }
    if bytes.starts_with(V2) {
        let Some(len) = bytes.get(14..16) else { return &[] };
        let end = 16 + usize::from(u16::from_be_bytes([len[0], len[1]]));
        return bytes.get(end..).unwrap_or(&[]);
    }
    bytes
}

fn is_token(b: u8) -> bool {
    b.is_ascii_uppercase() || b == b'-' || b == b'_'
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The first line, what follows it, and whether its end was there.
pub(super) fn first_line(bytes: &[u8]) -> (&[u8], &[u8], bool) {
    match bytes.iter().position(|&b| b == b'\n') {
        Some(end) => (trim_cr(&bytes[..end]), &bytes[end + 1..], true),
        None => (bytes, &[], false),
    }
}

/// Name and value of a header line.
type Header<'a> = (&'a [u8], &'a [u8]);

/// The header lines that are there to their end, and whether the head ends.
fn headers(mut bytes: &[u8]) -> (Vec<Header<'_>>, bool) {
    let mut found = Vec::new();
    loop {
        let (line, rest, whole) = first_line(bytes);
        if !whole {
            return (found, false);
        }
        if line.is_empty() {
            return (found, true);
        }
        if let Some(colon) = line.iter().position(|&b| b == b':') {
            found.push((&line[..colon], line[colon + 1..].trim_ascii()));
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_head_tells_method_target_host_and_ids() {
        let head =
            b"POST /api/cart?id=1 HTTP/1.1\r\nHost: shop.example\r\nX-Request-ID: abc\r\nX-Varnish: 32771\r\n\r\n";
        let request = request(head).unwrap();
        assert_eq!((request.method.as_str(), request.path()), ("POST", "/api/cart"));
        assert_eq!(request.host.as_deref(), Some("shop.example"));
        assert_eq!(request.request_id.as_deref(), Some("abc"));
        assert_eq!(request.x_varnish, Some(32771));
        assert!(request.complete && request.whole_line);
    }

    #[test]
    fn a_cut_head_keeps_only_whole_headers() {
        let request = request(b"GET /a HTTP/1.1\r\nHost: shop.exa").unwrap();
        assert_eq!(request.host, None);
        assert!(request.whole_line && !request.complete);
        let cut = super::request(b"GET /very/lon").unwrap();
        assert!(!cut.whole_line);
        assert_eq!(cut.path(), "/very/lon");
    }

    #[test]
    fn absolute_targets_and_proxy_headers_are_understood() {
        let request = request(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET http://h/x?y HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(request.path(), "/x");
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02ab".to_vec();
        v2.extend_from_slice(b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(super::request(&v2).unwrap().path(), "/");
        assert_eq!(super::request(b"GET /redirect?to=http://x/y HTTP/1.1\r\n\r\n").unwrap().path(), "/redirect");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [&b""[..], b"\x16\x03\x01\x02\x00", b"get / HTTP/1.1\r\n", b"GET /\r\n", b"\x01\x01\x00\x01"] {
            assert_eq!(request(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_head_tells_status_end_and_bad_lines() {
        let good = response(b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\n\r\nbody").unwrap();
        assert_eq!((good.status, good.complete, good.bad_line), (502, true, None));
        let cut = response(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap();
        assert!(!cut.complete);
        assert_eq!(cut.bad_line, None);
        let bad = response(b"HTTP/1.1 200 OK\r\nBad\0Name: x\r\n\r\n").unwrap();
        assert_eq!(bad.bad_line.as_deref(), Some("Bad\\x00Name: x"));
        assert!(response(b"HTTP/1.1 200 OK\r\nno colon here\r\n").unwrap().bad_line.is_some());
        let twice = response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 3\r\n\r\n").unwrap();
        assert_eq!(twice.bad_line.as_deref(), Some("a second content-length: 3"));
        let same = response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n").unwrap();
        assert_eq!(same.bad_line, None);
        assert_eq!(response(b"SSH-2.0-x\r\n"), None);
        assert_eq!(response(b"HTTP/1.1 2x0 OK\r\n"), None);
        assert!(may_be_response(b"HT") && may_be_response(b"HTTP/1.1 2") && !may_be_response(b"HTTPS"));
        assert!(!may_be_response(b"SSH-"));
    }
}
