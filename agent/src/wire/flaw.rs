//! What is wrong with an answer that begins like one of HTTP/1: lines of its head that are no headers, and headers that
//! say how long its body is in a way that proxies refuse. Each proxy forgives some of these, so a flaw explains an error
//! and never is one.

use super::http::first_line;
use crate::text;

/// As much of a line as is shown.
const SHOWN: usize = 60;

/// How the body of an answer is framed, by the headers seen so far.
#[derive(Default)]
struct Framing<'a> {
    length: Option<&'a [u8]>,
    chunked: bool,
}

/// The first flaw of an answer, of which this is what follows its status line.
pub fn of_answer(mut bytes: &[u8]) -> Option<String> {
    let mut framing = Framing::default();
    loop {
        let (line, rest, whole) = first_line(bytes);
        if !whole {
            return None;
        }
        if line.is_empty() {
            return if framing.chunked { of_chunk(rest) } else { None };
        }
        if let Some(flaw) = of_line(line).or_else(|| framing.refuses(line)) {
            return Some(flaw);
        }
        bytes = rest;
    }
}

/// No colon, a control byte, or a space in its name.
fn of_line(line: &[u8]) -> Option<String> {
    let folded = line.starts_with(b" ") || line.starts_with(b"\t");
    let name = line.iter().position(|&b| b == b':').map(|colon| &line[..colon]);
    let named = name.is_some_and(|n| !n.is_empty() && n.iter().all(|b| b.is_ascii_graphic()));
    let control = line.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f);
    (control || !(folded || named)).then(|| shown(line))
}

impl<'a> Framing<'a> {
    /// Another length than the one before, a length that is no number, or an encoding of the body that is not passed on.
    fn refuses(&mut self, line: &'a [u8]) -> Option<String> {
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Some(shown(line));
            }
            if self.length.replace(value).is_some_and(|first| first != value) {
                return Some(format!("a second {}", shown(line)));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked {
                return Some(format!("a second {}", shown(line)));
            }
            self.chunked =
                value.rsplit(|&b| b == b',').next().is_some_and(|l| l.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            return (!self.chunked).then(|| shown(line));
        }
        None
    }
}

/// The body begins with the size of its first chunk, in hexadecimal digits.
fn of_chunk(body: &[u8]) -> Option<String> {
    let (line, _, _) = first_line(body);
    let first = *line.first()?;
    (!first.is_ascii_hexdigit()).then(|| format!("its body is to come in chunks and begins with {}", shown(line)))
}

fn shown(line: &[u8]) -> String {
    text::safe_bytes(line, SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(head: &str) -> Option<String> {
        of_answer(head.as_bytes())
    }

    #[test]
    fn lines_that_are_no_headers() {
        assert_eq!(flaw("Bad\0Name: x\r\n\r\n").as_deref(), Some("Bad\\x00Name: x"));
        assert_eq!(flaw("Foo : bar\r\n\r\n").as_deref(), Some("Foo : bar"));
        assert_eq!(flaw("A: b\r\nno colon here\r\n").as_deref(), Some("no colon here"));
        for good in
            ["", "A: b\r\n folded\r\n\r\n", "A: b\r\nno end of the li", "A:\r\n\r\n\u{1}body", "A: b\n\nbo:dy\n"]
        {
            assert_eq!(flaw(good), None, "{good:?}");
        }
    }

    #[test]
    fn lengths_that_proxies_refuse() {
        assert_eq!(flaw("Content-Length: 2\r\ncontent-length: 3\r\n").as_deref(), Some("a second content-length: 3"));
        for bad in ["Content-Length: abc", "Content-Length: -1", "Content-Length:", "content-length: 1,1"] {
            assert_eq!(flaw(&format!("A: b\r\n{bad}\r\n\r\n")).as_deref(), Some(bad));
        }
        assert_eq!(
            flaw("Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
            None,
            "the same twice is forgiven by most"
        );
    }

    #[test]
    fn encodings_that_proxies_refuse() {
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(flaw(twice).as_deref(), Some("a second Transfer-Encoding: chunked"));
        assert_eq!(flaw("Transfer-Encoding: gzip\r\n\r\n").as_deref(), Some("Transfer-Encoding: gzip"));
        let chunks = "transfer-encoding: gzip, Chunked\r\n\r\n";
        assert_eq!(flaw(chunks), None);
        assert_eq!(flaw(&format!("{chunks}1F;name=value\r\n")), None);
        let broken = flaw(&format!("{chunks}zz\u{1b}\r\nok"));
        assert_eq!(broken.as_deref(), Some("its body is to come in chunks and begins with zz\\x1b"));
    }
}
