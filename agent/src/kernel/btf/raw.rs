//! The bytes of a BTF blob: header, type records, strings. Every read is checked; nothing here knows what a name means.

use super::BtfError;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Longest name that is looked at: `KSYM_NAME_LEN`. Keeps hostile strings cheap.
const NAME: usize = 512;

/// Kinds of `include/uapi/linux/btf.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn new(number: u32) -> Option<Kind> {
        const KINDS: [Kind; 19] = [
            Kind::Int,
            Kind::Ptr,
            Kind::Array,
            Kind::Struct,
            Kind::Union,
            Kind::Enum,
            Kind::Fwd,
            Kind::Typedef,
            Kind::Volatile,
            Kind::Const,
            Kind::Restrict,
            Kind::Func,
            Kind::FuncProto,
            Kind::Var,
            Kind::Datasec,
            Kind::Float,
            Kind::DeclTag,
            Kind::TypeTag,
            Kind::Enum64,
        ];
        KINDS.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    /// Bytes that follow the common 12 of a record with `count` elements.
    fn body(self, count: usize) -> usize {
        match self {
            Kind::Int | Kind::Var | Kind::DeclTag => 4,
            Kind::Array => 12,
            Kind::Struct | Kind::Union | Kind::Datasec | Kind::Enum64 => 12 * count,
            Kind::Enum | Kind::FuncProto => 8 * count,
            Kind::Ptr
            | Kind::Fwd
            | Kind::Typedef
            | Kind::Volatile
            | Kind::Const
            | Kind::Restrict
            | Kind::Func
            | Kind::Float
            | Kind::TypeTag => 0,
        }
    }
}

/// One type record.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub name: u32,
    pub kind: Kind,
    /// Bit 31 of `info`: bitfield sizes in member offsets, or signed enumerators.
    pub flag: bool,
    /// Size in bytes, or the id of the type referred to, by kind.
    pub size_or_type: u32,
    body: &'a [u8],
}

impl Type<'_> {
    /// The elements of the body, `N` words each: members, enumerators, parameters.
    pub fn elements<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> {
        self.body.chunks_exact(4 * N).map(|chunk| {
            let mut words = [0; N];
            for (word, bytes) in words.iter_mut().zip(chunk.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            words
        })
    }
}

pub(super) struct Raw<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where the record of type `id` starts, at `id - 1`.
    starts: Vec<u32>,
}

impl<'a> Raw<'a> {
    pub fn parse(blob: &'a [u8]) -> Result<Raw<'a>, BtfError> {
        let (Some(magic), Some(header)) = (blob.first_chunk::<2>(), blob.get(..HEADER)) else {
            return Err(BtfError::Short { bytes: blob.len() });
        };
        match u16::from_le_bytes(*magic) {
            MAGIC => {}
            swapped if swapped.swap_bytes() == MAGIC => return Err(BtfError::BigEndian),
            other => return Err(BtfError::Magic(other)),
        }
        if header[2] != 1 {
            return Err(BtfError::Version(header[2]));
        }
        let word = |at: usize| word_at(header, at).unwrap_or(0) as usize;
        let section = |what, offset: usize, length: usize| {
            let start = word(4).checked_add(offset);
            let end = start.and_then(|start| start.checked_add(length));
            match (start, end) {
                (Some(start), Some(end)) => blob.get(start..end).ok_or(BtfError::Section(what)),
                _ => Err(BtfError::Section(what)),
            }
        };
        let types = section("types", word(8), word(12))?;
        let strings = section("strings", word(16), word(20))?;
        Ok(Raw { types, strings, starts: starts(types)? })
    }

    /// Number of types; ids run from 1 to this. Id 0 is `void`.
    pub fn count(&self) -> u32 {
        self.starts.len() as u32
    }

    pub fn get(&self, id: u32) -> Option<Type<'a>> {
        let start = *self.starts.get(id.checked_sub(1)? as usize)? as usize;
        record(self.types, start).map(|(found, _)| found).ok()
    }

    /// The zero-terminated name at an offset; empty for an anonymous type, or for one too long to be a name.
    pub fn name(&self, offset: u32) -> &'a [u8] {
        let Some(rest) = self.strings.get(offset as usize..) else { return &[] };
        let window = &rest[..rest.len().min(NAME)];
        match window.iter().position(|&byte| byte == 0) {
            Some(end) => &window[..end],
            None => &[],
        }
    }

    pub fn name_is(&self, offset: u32, name: &[u8]) -> bool {
        let Some(rest) = self.strings.get(offset as usize..) else { return false };
        !name.is_empty() && rest.starts_with(name) && rest.get(name.len()) == Some(&0)
    }

    pub fn text(&self, offset: u32) -> String {
        String::from_utf8_lossy(self.name(offset)).into_owned()
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

enum Fault {
    Kind(u32),
    Truncated,
}

/// The record at `start`, and where the next one begins.
fn record(types: &[u8], start: usize) -> Result<(Type<'_>, usize), Fault> {
    let head = types.get(start..).and_then(|rest| rest.first_chunk::<12>()).ok_or(Fault::Truncated)?;
    let word = |at: usize| word_at(head, at).unwrap_or(0);
    let info = word(4);
    let number = (info >> 24) & 0x1f;
    let kind = Kind::new(number).ok_or(Fault::Kind(number))?;
    let body = start + 12;
    let end = body + kind.body((info & 0xffff) as usize);
    let body = types.get(body..end).ok_or(Fault::Truncated)?;
    Ok((Type { name: word(0), kind, flag: info >> 31 == 1, size_or_type: word(8), body }, end))
}

fn starts(types: &[u8]) -> Result<Vec<u32>, BtfError> {
    // A record of the kernel takes about 30 bytes on average.
    let mut starts = Vec::with_capacity(types.len() / 24);
    let mut at = 0;
    while at < types.len() {
        let id = starts.len() as u32 + 1;
        let (_, end) = record(types, at).map_err(|fault| match fault {
            Fault::Kind(kind) => BtfError::Kind { id, kind },
            Fault::Truncated => BtfError::Truncated { id },
        })?;
        starts.push(at as u32);
        at = end;
    }
    Ok(starts)
}
