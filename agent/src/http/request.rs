//! One request head from bytes. Pure.

/// Longest head that is read.
pub const LONGEST_HEAD: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;

/// What of a request matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub head_only: bool,
    /// Without its query string.
    pub path: String,
    pub accept: String,
    pub host: Option<String>,
    pub bearer: Option<String>,
    pub keep_alive: bool,
    /// Bytes of the head.
    pub length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes are needed.
    Partial,
    Whole(T),
    /// Status and reason to refuse it with.
    Refused(u16, &'static str),
}

/// Parses the head at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<Request> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut raw = httparse::Request::new(&mut headers);
    let length = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431, "request head too long"),
        Err(_) => return Parsed::Refused(400, "not an HTTP request"),
    };
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Parsed::Refused(400, "not an HTTP request");
    };
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Parsed::Refused(405, "only GET and HEAD are answered"),
    };
    let path = target.split(['?', '#']).next().unwrap_or("/").to_owned();
    let mut request =
        Request { head_only, path, accept: String::new(), host: None, bearer: None, keep_alive: minor == 1, length };
    for header in raw.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        match header.name.to_ascii_lowercase().as_str() {
            "accept" => request.accept = value.to_owned(),
            "host" => request.host = Some(value.to_owned()),
            "authorization" => request.bearer = bearer(value),
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.keep_alive = true,
            // A body would be taken for the next request.
            "content-length" if value != "0" => return Parsed::Refused(413, "no body is taken"),
            "transfer-encoding" => return Parsed::Refused(413, "no body is taken"),
            _ => {}
        }
    }
    Parsed::Whole(request)
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
