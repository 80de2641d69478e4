//! Writes BTF for tests: from a description, or a reduced copy of a kernel's own that is small enough to keep.

use super::raw::{Kind, Type};
use super::{Btf, DEPTH};
use std::collections::{BTreeSet, HashMap};

/// Reduced copies of real kernels, with what `reduce` keeps.
pub const DEBIAN_6_1: &[u8] = include_bytes!("../../../tests/fixtures/btf/debian-6.1.192-amd64.btf");
pub const DEBIAN_6_12: &[u8] = include_bytes!("../../../tests/fixtures/btf/debian-6.12.117-amd64.btf");
pub const UPSTREAM_6_18: &[u8] = include_bytes!("../../../tests/fixtures/btf/upstream-6.18.44-amd64.btf");

/// A member, an enumerator or a parameter: name, type or value, place in bits.
pub type Element<'a> = (&'a str, u32, u32);

pub struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    count: u32,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { types: Vec::new(), strings: vec![0], known: HashMap::new(), count: 0 }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let end = self.strings.len() as u32;
        let at = *self.known.entry(text.into()).or_insert(end);
        if at == end {
            self.strings.extend_from_slice(text.as_bytes());
            self.strings.push(0);
        }
        at
    }

    /// One record; `info` without the kind.
    pub fn record(&mut self, kind: Kind, name: &str, info: u32, size_or_type: u32, body: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info | (kind as u32 + 1) << 24, size_or_type].iter().chain(body) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        self.record(Kind::Int, name, 0, size, &[size * 8])
    }

    pub fn to(&mut self, kind: Kind, name: &str, id: u32) -> u32 {
        self.record(kind, name, 0, id, &[])
    }

    pub fn array(&mut self, element: u32, length: u32) -> u32 {
        self.record(Kind::Array, "", 0, 0, &[element, element, length])
    }

    /// A struct or union; `bitfields` says that places carry a width in their upper byte.
    pub fn group(&mut self, kind: Kind, name: &str, size: u32, bitfields: bool, members: &[Element]) -> u32 {
        let mut body = Vec::new();
        for (name, id, place) in members {
            body.extend([self.string(name), *id, *place]);
        }
        self.record(kind, name, members.len() as u32 | u32::from(bitfields) << 31, size, &body)
    }

    pub fn structure(&mut self, name: &str, size: u32, members: &[Element]) -> u32 {
        self.group(Kind::Struct, name, size, false, members)
    }

    /// An enumeration of four or eight bytes.
    pub fn enumeration(&mut self, kind: Kind, name: &str, signed: bool, values: &[(&str, i64)]) -> u32 {
        let mut body = Vec::new();
        for (name, value) in values {
            body.extend([self.string(name), *value as u32]);
            if kind == Kind::Enum64 {
                body.push((*value >> 32) as u32);
            }
        }
        let size = if kind == Kind::Enum64 { 8 } else { 4 };
        self.record(kind, name, values.len() as u32 | u32::from(signed) << 31, size, &body)
    }

    /// An enumeration that counts from zero.
    pub fn unsigned(&mut self, name: &str, names: &[&str]) -> u32 {
        let values: Vec<(&str, i64)> = names.iter().copied().zip(0..).collect();
        self.enumeration(Kind::Enum, name, false, &values)
    }

    pub fn prototype(&mut self, parameters: &[u32]) -> u32 {
        let body: Vec<u32> = parameters.iter().flat_map(|&id| [0, id]).collect();
        self.record(Kind::FuncProto, "", parameters.len() as u32, 0, &body)
    }

    /// A tracepoint whose programs get `parameters`.
    pub fn tracepoint(&mut self, name: &str, parameters: &[u32]) -> u32 {
        let data = self.to(Kind::Ptr, "", 0);
        let all: Vec<u32> = std::iter::once(data).chain(parameters.iter().copied()).collect();
        let prototype = self.prototype(&all);
        let pointer = self.to(Kind::Ptr, "", prototype);
        self.to(Kind::Typedef, &format!("btf_trace_{name}"), pointer)
    }

    pub fn blob(&self) -> Vec<u8> {
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            blob.extend_from_slice(&u32::to_le_bytes(word));
        }
        blob.extend_from_slice(&self.types);
        blob.extend_from_slice(&self.strings);
        blob
    }
}

/// What a reduced copy keeps of a kernel.
pub struct Keep<'a> {
    /// Structures that are kept, and the paths that are kept below their own members.
    pub members: &'a [(&'a str, &'a str)],
    pub tracepoints: &'a [&'a str],
    pub functions: &'a [&'a str],
    /// Enumerations, and which of their names (all when empty).
    pub enums: &'a [(&'a str, &'a [&'a str])],
}

/// A copy of `btf` with only the types that `keep` names: everything else shrinks to a name, or to nothing.
pub fn reduce(btf: &Btf, keep: &Keep) -> Vec<u8> {
    let mut copy = Copy { btf, keep, builder: Builder::new(), done: HashMap::new(), numbers: HashMap::new() };
    // First: a prototype's copy of an enumeration has a name only.
    for (name, wanted) in keep.enums {
        let values = btf.enum_values(name);
        let values: Vec<(&str, i64)> = values
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .filter(|(name, _)| wanted.is_empty() || wanted.contains(name))
            .collect();
        if !values.is_empty() {
            copy.builder.enumeration(Kind::Enum, name, false, &values);
        }
    }
    let structs: BTreeSet<&str> = keep.members.iter().map(|(strukt, _)| *strukt).collect();
    for strukt in structs {
        if let Some(id) = btf.named(strukt, &[Kind::Struct, Kind::Union]).next() {
            copy.group(id, &[strukt]);
        }
    }
    for name in keep.tracepoints {
        if let Some(id) = btf.named(&format!("btf_trace_{name}"), &[Kind::Typedef]).next() {
            copy.shape(id, DEPTH);
        }
    }
    for name in keep.functions {
        if let Some(id) = btf.named(name, &[Kind::Func]).next() {
            copy.shape(id, DEPTH);
        }
    }
    copy.builder.blob()
}

struct Copy<'a> {
    btf: &'a Btf<'a>,
    keep: &'a Keep<'a>,
    builder: Builder,
    done: HashMap<u32, u32>,
    /// What stands for everything that is not entered, by size.
    numbers: HashMap<u32, u32>,
}

impl Copy<'_> {
    fn get(&self, id: u32) -> Option<Type<'_>> {
        self.btf.raw.get(id)
    }

    /// Every member of a structure itself, so that the fixtures outlive a table that grows; below it, what is asked.
    fn wanted(&self, owner: &[&str], name: &str) -> bool {
        let asked = |(strukt, path): &(&str, &str)| {
            let mut whole = std::iter::once(*strukt).chain(path.split('.'));
            owner.iter().all(|part| whole.next() == Some(part)) && whole.next() == Some(name)
        };
        owner.len() == 1 || self.keep.members.iter().any(asked)
    }

    /// Whether something inside of `owner` is asked.
    fn entered(&self, owner: &[&str]) -> bool {
        self.keep.members.iter().any(|(strukt, path)| {
            let mut whole = std::iter::once(*strukt).chain(path.split('.'));
            owner.iter().all(|part| whole.next() == Some(part)) && whole.next().is_some()
        })
    }

    /// A struct or union with the members on the wanted paths below `owner`, and its anonymous groups.
    fn group(&mut self, id: u32, owner: &[&str]) -> u32 {
        let Some(found) = self.btf.raw.get(id) else { return 0 };
        let mut kept = Vec::new();
        for [name, kind, place] in found.elements::<3>() {
            let name = self.btf.raw.text(name);
            let target = self.btf.strip(kind);
            let group = self.get(target).is_some_and(|found| matches!(found.kind, Kind::Struct | Kind::Union));
            if name.is_empty() && group {
                let before = self.builder.types.len();
                let copied = self.group(target, owner);
                // Nothing wanted inside: the few bytes of the empty group stay, the member does not.
                if self.builder.types.len() > before + 12 {
                    kept.push((name, copied, place));
                }
            } else if self.wanted(owner, &name) {
                let below: Vec<&str> = owner.iter().copied().chain([name.as_str()]).collect();
                let copied = self.member(kind, &below);
                kept.push((name, copied, place));
            }
        }
        let members: Vec<Element> = kept.iter().map(|(name, id, place)| (name.as_str(), *id, *place)).collect();
        let name = self.btf.raw.text(found.name);
        self.builder.group(found.kind, &name, found.size_or_type, found.flag, &members)
    }

    fn member(&mut self, kind: u32, owner: &[&str]) -> u32 {
        let target = self.btf.strip(kind);
        match self.btf.raw.get(target) {
            Some(found) if matches!(found.kind, Kind::Struct | Kind::Union) && self.entered(owner) => {
                self.group(target, owner)
            }
            Some(found) if found.kind == Kind::Array => {
                let Some([element, _, length]) = found.elements::<3>().next() else { return 0 };
                let element = self.member(element, owner);
                self.builder.array(element, length)
            }
            _ => {
                let size = self.btf.size(target, DEPTH).unwrap_or(0);
                let builder = &mut self.builder;
                *self.numbers.entry(size).or_insert_with(|| builder.int("number", size))
            }
        }
    }

    /// A prototype's types as far as they are spelled: a structure shrinks to its name.
    fn shape(&mut self, id: u32, depth: u32) -> u32 {
        let Some(found) = self.btf.raw.get(id).filter(|_| depth > 0) else { return 0 };
        if let Some(&copied) = self.done.get(&id) {
            return copied;
        }
        let name = self.btf.raw.text(found.name);
        let copied = match found.kind {
            Kind::Struct => self.builder.record(Kind::Fwd, &name, 0, 0, &[]),
            Kind::Union => self.builder.record(Kind::Fwd, &name, 1 << 31, 0, &[]),
            Kind::Enum | Kind::Enum64 => self.builder.enumeration(Kind::Enum, &name, false, &[]),
            Kind::FuncProto => {
                let parameters: Vec<u32> = found.elements::<2>().map(|[_, kind]| self.shape(kind, depth - 1)).collect();
                self.builder.prototype(&parameters)
            }
            Kind::Int => self.builder.int(&name, found.size_or_type),
            Kind::Typedef if !name.starts_with("btf_trace_") => self.builder.to(Kind::Typedef, &name, 0),
            kind => {
                let target = self.shape(found.size_or_type, depth - 1);
                self.builder.to(kind, &name, target)
            }
        };
        self.done.insert(id, copied);
        copied
    }
}
