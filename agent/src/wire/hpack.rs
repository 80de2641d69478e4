//! Header blocks of HTTP/2 (RFC 7541), one by one and out of order: what refers to entries of the connection's table
//! that were not seen stays unknown.
//!
//! A decoder for a live connection must see every block. Here only the block of a request that failed is at hand,
//! together with the connection's first one, and how many entries the table had been given in between: every entry
//! of the first block is known by its number, and that is where clients put what they repeat.

use httlib_huffman::DecoderSpeed;

/// Entries of the static table.
const STATIC: u64 = 61;
/// Longest value that is decoded.
const LONGEST: usize = 1_024;
/// Fields of one block that are looked at.
const FIELDS: usize = 256;

/// A name and a value; what could not be known is `None`.
type Field = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A header block as far as it was kept.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub bytes: &'a [u8],
    /// Entries that the table had been given before it; `None` where they were not counted.
    pub inserted: Option<u32>,
}

/// The request of a header block as the head of an HTTP/1 request would have it; empty where its method or path is
/// not known. `opening` is the first block of the same connection.
pub fn request_head(block: Block<'_>, opening: &[u8]) -> Vec<u8> {
    let table = Walk::new(Block { bytes: opening, inserted: Some(0) }, &[]).inserts();
    let (mut method, mut path, mut host, mut id) = (None, None, None, None);
    for (name, value) in Walk::new(block, &table).fields() {
        let (Some(name), Some(value)) = (name, value) else { continue };
        let place = match name.as_slice() {
            b":method" => &mut method,
            b":path" => &mut path,
            b":authority" | b"host" => &mut host,
            b"x-request-id" => &mut id,
            _ => continue,
        };
        place.get_or_insert(value);
    }
    let plain = |word: &Vec<u8>| !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
    let (Some(method), Some(path)) = (method.filter(plain), path.filter(plain)) else { return Vec::new() };
    let mut head = Vec::new();
    for piece in [&method[..], b" ", &path, b" HTTP/2\r\n"] {
        head.extend_from_slice(piece);
    }
    for (name, value) in [(&b"host: "[..], host), (b"x-request-id: ", id)] {
        if let Some(value) = value.filter(plain) {
            head.extend_from_slice(name);
            head.extend_from_slice(&value);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A walk over one block.
struct Walk<'a> {
    rest: &'a [u8],
    /// Number of the newest entry, from 1.
    newest: Option<u64>,
    /// Entries that are known from the connection's first block: the first has number 1.
    table: &'a [Field],
    /// Entries that this block added, and the number of the first.
    added: Vec<Field>,
    first: u64,
}

impl<'a> Walk<'a> {
    fn new(block: Block<'a>, table: &'a [Field]) -> Walk<'a> {
        let newest = block.inserted.map(u64::from);
        let first = newest.map_or(0, |newest| newest + 1);
        Walk { rest: block.bytes, newest, table, added: Vec::new(), first }
    }

    /// Every field up to where the block is cut.
    fn fields(mut self) -> Vec<Field> {
        let mut fields = Vec::new();
        while let Some(field) = self.field() {
            fields.extend(field);
            if fields.len() >= FIELDS {
                break;
            }
        }
        fields
    }

    /// What the block adds to the table.
    fn inserts(mut self) -> Vec<Field> {
        let mut fields = 0;
        while self.field().is_some() && fields < FIELDS {
            fields += 1;
        }
        self.added
    }

    /// The next field; `Some(None)` where it is no field but a change of the table's size.
    fn field(&mut self) -> Option<Option<Field>> {
        let first = *self.rest.first()?;
        if first & 0x80 != 0 {
            let index = self.number(0x7f)?;
            return Some(Some(self.entry(index)));
        }
        if first & 0xe0 == 0x20 {
            self.number(0x1f)?;
            return Some(None);
        }
        let inserts = first & 0x40 != 0;
        let index = self.number(if inserts { 0x3f } else { 0x0f })?;
        let name = if index == 0 { self.string()? } else { self.entry(index).0 };
        let field = (name, self.string()?);
        if inserts {
            self.added.push(field.clone());
            self.newest = self.newest.map(|newest| newest + 1);
        }
        Some(Some(field))
    }

    fn entry(&self, index: u64) -> Field {
        if index <= STATIC {
            return fixed(index);
        }
        let number = self.newest.and_then(|newest| (newest + STATIC + 1).checked_sub(index)).filter(|n| *n > 0);
        let Some(number) = number else { return (None, None) };
        let own = number.checked_sub(self.first).and_then(|place| self.added.get(usize::try_from(place).ok()?));
        let early = usize::try_from(number - 1).ok().and_then(|place| self.table.get(place));
        own.or(early).cloned().unwrap_or((None, None))
    }

    fn number(&mut self, mask: u8) -> Option<u64> {
        let (first, mut rest) = self.rest.split_first()?;
        let mut value = u64::from(first & mask);
        if first & mask == mask {
            for shift in [0, 7, 14, 21] {
                let (byte, after) = rest.split_first()?;
                rest = after;
                value += u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    self.rest = rest;
                    return Some(value);
                }
            }
            return None;
        }
        self.rest = rest;
        Some(value)
    }

    /// `Some(None)`: it is there to its end, and makes no sense or is too long.
    fn string(&mut self) -> Option<Option<Vec<u8>>> {
        let coded = self.rest.first()? & 0x80 != 0;
        let len = usize::try_from(self.number(0x7f)?).ok()?;
        let bytes = self.rest.get(..len)?;
        self.rest = &self.rest[len..];
        if len > LONGEST {
            return Some(None);
        }
        if !coded {
            return Some(Some(bytes.to_vec()));
        }
        let mut plain = Vec::new();
        let well = httlib_huffman::decode(bytes, &mut plain, DecoderSpeed::FourBits).is_ok();
        Some(well.then_some(plain))
    }
}

/// Entries of the static table that matter here; of the others neither name nor value is wanted.
fn fixed(index: u64) -> Field {
    let (name, value): (&str, &str) = match index {
        1 => (":authority", ""),
        2 => (":method", "GET"),
        3 => (":method", "POST"),
        4 => (":path", "/"),
        5 => (":path", "/index.html"),
        38 => ("host", ""),
        _ => return (None, None),
    };
    (Some(name.into()), Some(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8], inserted: u32, opening: &[u8]) -> String {
        String::from_utf8(request_head(Block { bytes, inserted: Some(inserted) }, opening)).unwrap()
    }

    /// The three requests of RFC 7541, appendix C.4, in Huffman's code.
    const FIRST: &[u8] = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    const SECOND: &[u8] = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    const THIRD: &[u8] =
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";

    #[test]
    fn the_examples_of_the_standard_are_read() {
        assert_eq!(head(FIRST, 0, FIRST), "GET / HTTP/2\r\nhost: www.example.com\r\n\r\n");
        // The second refers to what the first put into the table; so does the third, past an entry of the second.
        assert_eq!(head(SECOND, 1, FIRST), "GET / HTTP/2\r\nhost: www.example.com\r\n\r\n");
        assert_eq!(head(THIRD, 2, FIRST), "GET /index.html HTTP/2\r\nhost: www.example.com\r\n\r\n");
    }

    #[test]
    fn what_was_not_seen_stays_unknown() {
        // The number of entries is not known: the reference may mean anything.
        let unknown = request_head(Block { bytes: SECOND, inserted: None }, FIRST);
        assert_eq!(unknown, b"GET / HTTP/2\r\n\r\n");
        // An entry of a block between the first and this one.
        assert_eq!(head(b"\x82\x86\x84\xbe", 2, FIRST), "GET / HTTP/2\r\n\r\n");
        // Without a path there is no request.
        assert_eq!(head(b"\x82\x86\xbe", 9, FIRST), "");
    }

    #[test]
    fn entries_of_the_same_block_are_known() {
        // ":path: /a" is added and then referred to: the newest entry has index 62.
        assert_eq!(head(b"\x82\x44\x02/a\xbe", 5, b""), "GET /a HTTP/2\r\n\r\n");
        assert_eq!(
            head(b"\x20\x82\x04\x02/b\x00\x0cx-request-id\x03abc", 0, b""),
            "GET /b HTTP/2\r\nx-request-id: abc\r\n\r\n"
        );
    }

    #[test]
    fn cut_and_hostile_blocks_are_no_request_or_a_part_of_one() {
        for cut in 0..THIRD.len() {
            head(&THIRD[..cut], 2, FIRST);
            head(THIRD, 2, &FIRST[..cut.min(FIRST.len())]);
        }
        assert_eq!(head(b"\x82\x44\x06/a\r\nX:", 0, b""), "", "a line of its own must not get into the head");
        assert_eq!(head(b"\x82\x44\xff\xff\xff\xff\xff\xff", 0, b""), "");
        let mut noise = 1_u32;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 24) as u8
                })
                .collect();
            head(&bytes, noise >> 16, &bytes);
        }
    }
}
