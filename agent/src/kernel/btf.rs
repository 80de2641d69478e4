//! A small reader of BTF, the kernel's description of its own types: where a member lives, what a tracepoint hands over,
//! what an enumerator is called.
//!
//! It answers questions and judges nothing. A blob is not trusted: a broken one is an error or a `None`, never a panic,
//! and every walk is bounded.

mod index;
mod raw;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use index::Index;
use raw::{Kind, Raw, Type};
use std::io;
use std::path::{Path, PathBuf};

/// Typedefs and qualifiers followed in a row, and anonymous groups inside each other.
const DEPTH: u32 = 32;
/// Members looked at for one name: more than any structure of the kernel has.
const BUDGET: u32 = 200_000;

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("{path} does not exist: this kernel was built without CONFIG_DEBUG_INFO_BTF")]
    Absent { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the BTF of this kernel is cut short: {bytes} bytes hold no header")]
    Short { bytes: usize },
    #[error("this is no BTF: it begins with {0:#06x}")]
    Magic(u16),
    #[error("the BTF is big-endian; trace502 supports little-endian kernels only")]
    BigEndian,
    #[error("BTF version {0} is unknown; a newer trace502 may know it")]
    Version(u8),
    #[error("the BTF is damaged: its {0} lie outside of it")]
    Section(&'static str),
    #[error("BTF type {id} is of kind {kind}, which is unknown; a newer trace502 may know it")]
    Kind { id: u32, kind: u32 },
    #[error("the BTF is damaged: type {id} is cut short")]
    Truncated { id: u32 },
}

/// Where a member lives, from the start of the structure that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub offset: u32,
    pub size: u32,
    /// Bytes from one element to the next of the first array on the path.
    pub stride: Option<u32>,
}

pub struct Btf<'a> {
    raw: Raw<'a>,
    index: Index,
}

/// The blob of the running kernel below `root`.
pub fn read(root: &Path) -> Result<Vec<u8>, BtfError> {
    let path = root.join("sys/kernel/btf/vmlinux");
    std::fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BtfError::Absent { path },
        _ => BtfError::Read { path, source },
    })
}

/// Whether an enumeration of a blob lists a name; `None` where there is no such enumeration. One question is not worth
/// the index that many are.
pub fn lists(blob: &[u8], enumeration: &str, name: &str) -> Result<Option<bool>, BtfError> {
    let raw = Raw::parse(blob)?;
    let types = (1..=raw.count()).filter_map(|id| raw.get(id));
    let mut found = types.filter(|found| raw.name_is(found.name, enumeration.as_bytes()));
    let listed = |value: u32| raw.name_is(value, name.as_bytes());
    Ok(found.find_map(|found| match found.kind {
        Kind::Enum => any(found.elements::<2>().map(|[value, _]| listed(value))),
        Kind::Enum64 => any(found.elements::<3>().map(|[value, _, _]| listed(value))),
        _ => None,
    }))
}

/// Whether any of them holds; `None` where there are none.
fn any(holds: impl Iterator<Item = bool>) -> Option<bool> {
    holds.reduce(|one, other| one || other)
}

impl<'a> Btf<'a> {
    pub fn parse(blob: &'a [u8]) -> Result<Btf<'a>, BtfError> {
        let raw = Raw::parse(blob)?;
        let index = Index::new(&raw);
        Ok(Btf { raw, index })
    }

    /// A member by its path: `packets_out`, `ns.inum`. Members of anonymous structs and unions are found by their own
    /// name; an array on the way is entered at its first element. `None` for a bitfield.
    pub fn member(&self, strukt: &str, path: &str) -> Option<Member> {
        self.named(strukt, &[Kind::Struct, Kind::Union]).find_map(|id| self.walk(id, path))
    }

    pub fn member_offset(&self, strukt: &str, path: &str) -> Option<u32> {
        self.member(strukt, path).map(|member| member.offset)
    }

    pub fn member_size(&self, strukt: &str, path: &str) -> Option<u32> {
        self.member(strukt, path).map(|member| member.size)
    }

    /// Where a member of one struct is, in bits from its start: the way to a flag of a single bit.
    pub fn bit_offset(&self, strukt: &str, name: &str) -> Option<u32> {
        let of = |id| {
            let group = self.raw.get(id)?;
            let mut members = group.elements::<3>();
            let [_, _, place] = members.find(|[member, _, _]| self.raw.name_is(*member, name.as_bytes()))?;
            Some(if group.flag { place & 0xff_ffff } else { place })
        };
        self.named(strukt, &[Kind::Struct]).find_map(of)
    }

    /// Names and values of an enumeration, in the kernel's order; empty when the kernel has none of that name.
    pub fn enum_values(&self, name: &str) -> Vec<(String, i64)> {
        let Some(found) = self.named(name, &[Kind::Enum, Kind::Enum64]).find_map(|id| self.raw.get(id)) else {
            return Vec::new();
        };
        match found.kind {
            Kind::Enum64 => found
                .elements::<3>()
                .map(|[name, low, high]| (self.raw.text(name), (u64::from(high) << 32 | u64::from(low)) as i64))
                .collect(),
            _ => found
                .elements::<2>()
                .map(|[name, value]| {
                    let value = if found.flag { i64::from(value as i32) } else { i64::from(value) };
                    (self.raw.text(name), value)
                })
                .collect(),
        }
    }

    /// The types of what a tracepoint hands to a `tp_btf` program, written as in C; `None` when there is no such
    /// tracepoint. The registration cookie that comes first is left out.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let prototype = self.named(&format!("btf_trace_{name}"), &[Kind::Typedef]).find_map(|id| {
            let pointer = self.raw.get(self.strip(id)).filter(|found| found.kind == Kind::Ptr)?;
            self.prototype(pointer.size_or_type)
        })?;
        Some(prototype.into_iter().skip(1).collect())
    }

    /// How many arguments a tracepoint has.
    pub fn func_arg_count(&self, tracepoint: &str) -> Option<usize> {
        self.tracepoint(tracepoint).map(|arguments| arguments.len())
    }

    /// The types of a kernel function's parameters; `None` when BTF knows no such function.
    pub fn func(&self, name: &str) -> Option<Vec<String>> {
        let found = self.named(name, &[Kind::Func]).find_map(|id| self.raw.get(id))?;
        self.prototype(found.size_or_type)
    }

    fn named(&self, name: &str, kinds: &[Kind]) -> impl Iterator<Item = u32> {
        let name = name.as_bytes();
        self.index.candidates(name).filter(move |&id| {
            self.raw.get(id).is_some_and(|found| kinds.contains(&found.kind) && self.raw.name_is(found.name, name))
        })
    }

    /// Past typedefs and qualifiers. A chain too long to be honest ends where it stands.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..DEPTH {
            match self.raw.get(id) {
                Some(Type {
                    kind: Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag,
                    size_or_type,
                    ..
                }) => id = size_or_type,
                _ => break,
            }
        }
        id
    }

    fn walk(&self, strukt: u32, path: &str) -> Option<Member> {
        let mut member = Member { offset: 0, size: 0, stride: None };
        let mut budget = BUDGET;
        let mut id = strukt;
        for name in path.split('.') {
            id = self.enter(id, &mut member)?;
            let (offset, found) = self.find(id, name.as_bytes(), DEPTH, &mut budget)?;
            member.offset = member.offset.checked_add(offset)?;
            id = found;
        }
        member.size = self.size(id, DEPTH)?;
        if let Some(element) = self.element(id) {
            member.stride = member.stride.or(self.size(element, DEPTH));
        }
        Some(member)
    }

    /// The struct or union that `id` is, or that its first element is.
    fn enter(&self, id: u32, member: &mut Member) -> Option<u32> {
        let mut id = self.strip(id);
        for _ in 0..DEPTH {
            let Some(element) = self.element(id) else { break };
            member.stride = member.stride.or(self.size(element, DEPTH));
            id = self.strip(element);
        }
        Some(id)
    }

    fn element(&self, id: u32) -> Option<u32> {
        let found = self.raw.get(self.strip(id)).filter(|found| found.kind == Kind::Array)?;
        found.elements::<3>().next().map(|[element, _, _]| element)
    }

    /// Byte offset and type of a member of one struct or union, its anonymous groups included.
    fn find(&self, id: u32, name: &[u8], depth: u32, budget: &mut u32) -> Option<(u32, u32)> {
        let group = self.raw.get(id).filter(|found| matches!(found.kind, Kind::Struct | Kind::Union))?;
        let depth = depth.checked_sub(1)?;
        for [member, kind, place] in group.elements::<3>() {
            *budget = budget.checked_sub(1)?;
            let (bits, width) = if group.flag { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            if self.raw.name_is(member, name) {
                return (width == 0 && bits % 8 == 0).then_some((bits / 8, kind));
            }
            if self.raw.name(member).is_empty()
                && let Some((offset, found)) = self.find(self.strip(kind), name, depth, budget)
            {
                return Some(((bits / 8).checked_add(offset)?, found));
            }
        }
        None
    }

    fn size(&self, id: u32, depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let found = self.raw.get(self.strip(id))?;
        match found.kind {
            Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                Some(found.size_or_type)
            }
            Kind::Ptr => Some(8),
            Kind::Array => {
                let [element, _, length] = found.elements::<3>().next()?;
                self.size(element, depth)?.checked_mul(length)
            }
            _ => None,
        }
    }

    fn prototype(&self, id: u32) -> Option<Vec<String>> {
        let found = self.raw.get(id).filter(|found| found.kind == Kind::FuncProto)?;
        Some(found.elements::<2>().map(|[_, kind]| self.spell(kind, DEPTH)).collect())
    }

    /// A type as C would write it, near enough to compare and to show.
    fn spell(&self, id: u32, depth: u32) -> String {
        let (Some(found), Some(depth)) = (self.raw.get(id), depth.checked_sub(1)) else { return "void".into() };
        let inner = |prefix: &str| format!("{prefix} {}", self.spell(found.size_or_type, depth));
        match found.kind {
            Kind::Ptr => match self.spell(found.size_or_type, depth) {
                pointee if pointee.ends_with('*') => format!("{pointee}*"),
                pointee => format!("{pointee} *"),
            },
            Kind::Const => inner("const"),
            Kind::Volatile => inner("volatile"),
            Kind::Restrict | Kind::TypeTag => self.spell(found.size_or_type, depth),
            Kind::Struct => format!("struct {}", self.raw.text(found.name)),
            Kind::Union => format!("union {}", self.raw.text(found.name)),
            Kind::Fwd if found.flag => format!("union {}", self.raw.text(found.name)),
            Kind::Fwd => format!("struct {}", self.raw.text(found.name)),
            Kind::Enum | Kind::Enum64 => format!("enum {}", self.raw.text(found.name)),
            Kind::FuncProto => "function".into(),
            Kind::Array => "array".into(),
            _ => self.raw.text(found.name),
        }
    }
}
