//! FastCGI records: the parameters of a request, the status and the error text of an answer.

use crate::text;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

struct Record<'a> {
    kind: u8,
    /// As far as it is there.
    content: &'a [u8],
}

/// Records from the start of `bytes`, the last one perhaps cut.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let [1, kind, _, _, high, low, padding, _, rest @ ..] = bytes else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let content = &rest[..len.min(rest.len())];
        bytes = rest.get(len + usize::from(*padding)..).unwrap_or(&[]);
        Some(Record { kind: *kind, content })
    })
}

/// Whether a FastCGI request begins here.
pub fn is_request(bytes: &[u8]) -> bool {
    matches!(bytes, [1, BEGIN_REQUEST, _, _, 0, 8, ..])
}

/// Whether a FastCGI answer begins here.
pub fn is_response(bytes: &[u8]) -> bool {
    matches!(bytes, [1, END_REQUEST | STDOUT | STDERR, ..])
}

/// What the parameters at the start of a request say, as far as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: Option<String>,
    pub uri: Option<String>,
    pub host: Option<String>,
}

pub fn request(bytes: &[u8]) -> Option<Request> {
    if !is_request(bytes) {
        return None;
    }
    let mut request = Request::default();
    for record in records(bytes).filter(|r| r.kind == PARAMS) {
        for (name, value) in params(record.content) {
            let value = || Some(text::safe_bytes(value, 256));
            match name {
                b"REQUEST_METHOD" => request.method = value(),
                b"REQUEST_URI" => request.uri = value(),
                b"HTTP_HOST" => request.host = value(),
                _ => {}
            }
        }
    }
    Some(request)
}

/// Name and value pairs that are there to their end.
fn params(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (name, rest) = length(bytes)?;
        let (value, rest) = length(rest)?;
        let end = name.checked_add(value)?;
        let pair = (rest.get(..name)?, rest.get(name..end)?);
        bytes = &rest[end..];
        Some(pair)
    })
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [short @ 0..128, rest @ ..] => Some((usize::from(*short), rest)),
        [a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([a & 0x7f, *b, *c, *d]) as usize, rest)),
        _ => None,
    }
}

/// What the start of an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// From a `Status:` line; FastCGI means 200 where there is none.
    pub status: Option<u16>,
    /// The application wrote its head to the end.
    pub complete: bool,
    /// First text it wrote to its error stream.
    pub stderr: Option<String>,
}

pub fn response(bytes: &[u8]) -> Option<Response> {
    if !is_response(bytes) {
        return None;
    }
    let mut response = Response::default();
    for record in records(bytes) {
        match record.kind {
            STDERR if !record.content.is_empty() => {
                response.stderr.get_or_insert(text::safe_bytes(record.content, 160));
            }
            STDOUT => {
                for line in record.content.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
                    if line.is_empty() {
                        response.complete = true;
                        break;
                    }
                    if let Some(value) = line.strip_prefix(b"Status:") {
                        let digits = value.trim_ascii().get(..3).and_then(|d| str::from_utf8(d).ok());
                        response.status = digits.and_then(|d| d.parse().ok());
                    }
                }
            }
            _ => {}
        }
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let len = (content.len() as u16).to_be_bytes();
        let mut out = vec![1, kind, 0, 1, len[0], len[1], 0, 0];
        out.extend_from_slice(content);
        out
    }

    #[test]
    fn parameters_of_a_request_are_read_up_to_a_cut() {
        let mut bytes = record(BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let mut params = vec![14, 3];
        params.extend_from_slice(b"REQUEST_METHODGET");
        params.extend_from_slice(&[11, 6]);
        params.extend_from_slice(b"REQUEST_URI/x.php");
        params.extend_from_slice(&[9, 200]);
        params.extend_from_slice(b"HTTP_HOSTcut");
        bytes.extend_from_slice(&record(PARAMS, &params));
        let request = request(&bytes).unwrap();
        assert_eq!(request.method.as_deref(), Some("GET"));
        assert_eq!(request.uri.as_deref(), Some("/x.php"));
        assert_eq!(request.host, None);
        assert_eq!(super::request(b"GET / HTTP/1.1\r\n"), None);
    }

    #[test]
    fn status_and_error_text_of_an_answer_are_read() {
        let mut bytes = record(STDERR, b"PHP message: boom");
        bytes.extend_from_slice(&record(STDOUT, b"Status: 502 Bad Gateway\r\nContent-type: text/html\r\n\r\nx"));
        let response = response(&bytes).unwrap();
        assert_eq!((response.status, response.complete), (Some(502), true));
        assert_eq!(response.stderr.as_deref(), Some("PHP message: boom"));
        assert_eq!(super::response(b"HTTP/1.1 200 OK"), None);
    }
}
