//! What the first bytes of a stream look like, for the sentence about bytes that are no HTTP.

use std::fmt;

use super::{fastcgi, h2, http, tls};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    Nothing,
    HttpRequest,
    HttpResponse,
    Http2,
    Tls,
    FastCgi,
    Named(&'static str),
    Text,
    Binary,
}

impl Looks {
    /// First bytes that a server sent.
    pub fn of_answer(bytes: &[u8]) -> Looks {
        const STARTS: &[(&[u8], &str)] = &[
            (b"SSH-", "an SSH server"),
            (b"+PONG", "a Redis server"),
            (b"+OK", "a Redis or POP3 server"),
            (b"-ERR", "a Redis server"),
            (b"-DENIED", "a Redis server in protected mode"),
            (b"-NOAUTH", "a Redis server that wants a password"),
            (b"* OK", "an IMAP server"),
            (b"RFB ", "a VNC server"),
            (b"ERROR\r\n", "a Memcached server"),
            (b"AMQP", "an AMQP broker"),
            (b"INFO {", "a NATS server"),
            (b"PRI * HTTP/2", "an HTTP/2 client"),
            (b"\x00\x00\x00\x00", "zeros"),
            (b"GET ", "an HTTP request"),
            (b"{", "bare JSON without an HTTP head"),
            (b"<", "bare HTML or XML without an HTTP head"),
            (b"Status:", "a CGI head without a status line"),
            (b"Content-Type:", "a header without a status line"),
            (b"Content-type:", "a header without a status line"),
            (b"ICY ", "a Shoutcast server"),
            (b"RTSP/", "an RTSP server"),
            (b"SIP/", "a SIP server"),
        ];
        if bytes.is_empty() {
            return Looks::Nothing;
        }
        if http::may_be_response(bytes) {
            return Looks::HttpResponse;
        }
        if tls::is_tls(bytes) {
            return Looks::Tls;
        }
        if h2::is_server_start(bytes) {
            return Looks::Http2;
        }
        if fastcgi::is_response(bytes) {
            return Looks::FastCgi;
        }
        if let Some((_, name)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
            return Looks::Named(name);
        }
        if bytes.starts_with(b"220") && bytes.get(3).is_some_and(|b| b" -".contains(b)) {
            return Looks::Named(if contains(bytes, b"FTP") { "an FTP server" } else { "an SMTP server" });
        }
        if bytes.starts_with(b"HTTP/") {
            return Looks::Named("a broken HTTP status line");
        }
        // Length, sequence 0, protocol 10: the greeting of MySQL.
        if matches!(bytes, [_, _, 0, 0, 10, ..]) {
            return Looks::Named("a MySQL server");
        }
        if matches!(bytes, [b'E' | b'R', 0, 0, _, _, ..] | [b'N']) {
            return Looks::Named("a PostgreSQL server");
        }
        match bytes.iter().all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
            true => Looks::Text,
            false => Looks::Binary,
        }
    }

    /// First bytes that a proxy sent to its upstream.
    pub fn of_request(bytes: &[u8]) -> Looks {
        let bytes = http::after_proxy_header(bytes);
        if bytes.is_empty() {
            Looks::Nothing
        } else if h2::is_preface(bytes) {
            Looks::Http2
        } else if tls::is_tls(bytes) {
            Looks::Tls
        } else if fastcgi::is_request(bytes) {
            Looks::FastCgi
        } else if http::request(bytes).is_some_and(|r| r.is_http()) {
            Looks::HttpRequest
        } else {
            Looks::Binary
        }
    }
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Looks::Nothing => "nothing",
            Looks::HttpRequest => "an HTTP/1 request",
            Looks::HttpResponse => "an HTTP/1 answer",
            Looks::Http2 => "HTTP/2",
            Looks::Tls => "TLS",
            Looks::FastCgi => "FastCGI",
            Looks::Named(name) => name,
            Looks::Text => "plain text",
            Looks::Binary => "binary data",
        })
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised_by_their_greeting() {
        let cases: [(&[u8], &str); 9] = [
            (b"SSH-2.0-x\r\n", "an SSH server"),
            (b"220 mail ESMTP\r\n", "an SMTP server"),
            (b"220 ready FTP\r\n", "an FTP server"),
            (b"-ERR wrong number\r\n", "a Redis server"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
            (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", "HTTP/2"),
            (b"\x4a\x00\x00\x00\x0a8.0.36", "a MySQL server"),
            (b"hello there", "plain text"),
            (b"\x01\x06\x00\x01", "FastCGI"),
        ];
        for (bytes, name) in cases {
            assert_eq!(Looks::of_answer(bytes).to_string(), name);
        }
        assert_eq!(Looks::of_answer(b"HTTP/1.1 200 OK"), Looks::HttpResponse);
        assert_eq!(Looks::of_answer(b"HTTP/9.9 zzz\r\n").to_string(), "a broken HTTP status line");
        assert_eq!(Looks::of_request(b"GET / HTTP/1.1\r\n\r\n"), Looks::HttpRequest);
        assert_eq!(Looks::of_request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Looks::Http2);
        assert_eq!(Looks::of_request(b"\x16\x03\x01\x02\x00\x01"), Looks::Tls);
    }
}
