//! DNS messages: which name was asked, and how it was answered.

use crate::text;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: u16,
    pub response: bool,
    pub rcode: u8,
    /// First question: name without its last dot, and type.
    pub name: String,
    pub kind: u16,
    pub answers: u16,
}

impl Message {
    /// `A`, `AAAA`, `SRV`, `type 65`.
    pub fn kind_name(&self) -> String {
        match self.kind {
            1 => "A".into(),
            5 => "CNAME".into(),
            28 => "AAAA".into(),
            33 => "SRV".into(),
            n => format!("type {n}"),
        }
    }
}

/// The name of a response code.
pub fn rcode(code: u8) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "an error",
    }
}

pub fn message(bytes: &[u8]) -> Option<Message> {
    let [id1, id2, flags1, flags2, q1, q2, a1, a2, _, _, _, _, rest @ ..] = bytes else { return None };
    let mut rest = rest;
    if u16::from_be_bytes([*q1, *q2]) == 0 {
        return None;
    }
    let mut name = String::new();
    loop {
        let (&len, after) = rest.split_first()?;
        // A pointer makes no sense in the first name of a message.
        if len >= 64 {
            return None;
        }
        if len == 0 {
            rest = after;
            break;
        }
        let label = after.get(..usize::from(len))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&text::safe_bytes(label, 63));
        rest = &after[usize::from(len)..];
    }
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    Some(Message {
        id: u16::from_be_bytes([*id1, *id2]),
        response: flags1 & 0x80 != 0,
        rcode: flags2 & 0x0f,
        name,
        kind,
        answers: u16::from_be_bytes([*a1, *a2]),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A message as a resolver would send it.
    pub fn build(id: u16, response: bool, rcode: u8, name: &str, kind: u16, answers: u16) -> Vec<u8> {
        let mut out = id.to_be_bytes().to_vec();
        out.push(if response { 0x81 } else { 0x01 });
        out.push(rcode);
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&answers.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out
    }

    #[test]
    fn names_and_codes_are_read() {
        let bytes = build(7, true, 3, "api.internal", 28, 0);
        let read = message(&bytes).unwrap();
        assert_eq!((read.name.as_str(), rcode(read.rcode), read.response), ("api.internal", "NXDOMAIN", true));
        assert_eq!(read.kind_name(), "AAAA");
        for cut in 0..bytes.len() - 2 {
            assert_eq!(message(&bytes[..cut]), None);
        }
    }

    #[test]
    fn a_pointer_loop_is_refused() {
        assert_eq!(message(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), None);
    }
}
