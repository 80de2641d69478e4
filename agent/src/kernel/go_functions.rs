//! Where the functions of a Go executable are: from the table that Go's own runtime unwinds by, which stays when the
//! symbols are stripped (Go 1.18 and later).
//!
//! A return probe would break Go, whose stacks move: a function is hooked behind its check for room on the stack, which
//! may begin it a second time, and at each instruction that returns.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use object::read::ReadCache;
use object::{Architecture, Object as _, ObjectSection as _, ObjectSegment as _};

use super::go_code;

/// A function by offsets in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The first instruction that is run once a call, its arguments still where the caller put them.
    pub begins: u64,
    /// Each instruction that returns.
    pub returns: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum GoError {
    #[error("it was built by a Go before 1.18")]
    Old,
    #[error("its table of functions is of a kind that is not known yet")]
    Unknown,
    #[error("its table of functions is damaged: {0}")]
    Damaged(&'static str),
    #[error("the code of {0} is not as Go's compiler writes it")]
    Code(String),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Magic numbers of the table: Go 1.18, 1.20, and what came before.
const GO_1_18: u32 = 0xffff_fff0;
const GO_1_20: u32 = 0xffff_fff1;
const BEFORE: [u32; 2] = [0xffff_fffb, 0xffff_fffa];

/// Sections that hold it, the second in an executable that may lie anywhere.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// No program has more functions, or longer names of them.
const FUNCTIONS: u64 = 4 << 20;
const NAME: u64 = 1 << 16;
/// The functions that are asked for are short.
const CODE: u64 = 1 << 16;

/// The functions of these names, in their order; nothing at all where this is no Go executable.
pub fn find(file: &File, names: &[&str]) -> Result<Option<Vec<Option<Function>>>, GoError> {
    let cache = ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else { return Ok(None) };
    let Some(section) = SECTIONS.iter().find_map(|name| elf.section_by_name(name)) else { return Ok(None) };
    let Some((start, size)) = section.file_range() else { return Ok(None) };
    let mut table = Table::read(file, start, size)?;
    // Since 1.26 the linker leaves it to who reads the table.
    let text = match table.text {
        0 => elf.section_by_name(".text").map_or(0, |text| text.address()),
        text => text,
    };
    let places = table.places(names)?;
    let mut found = Vec::new();
    for (name, place) in names.iter().zip(places) {
        let place = place.map(|place| place.start.wrapping_add(text)..place.end.wrapping_add(text));
        found.push(match place {
            Some(place) => Some(function(file, &elf, name, place)?),
            None => None,
        });
    }
    Ok(Some(found))
}

fn function<'a>(
    mut file: &File,
    elf: &object::File<'a, &'a ReadCache<&File>>,
    name: &str,
    place: Range<u64>,
) -> Result<Function, GoError> {
    let odd = || GoError::Code(name.to_owned());
    let len = place.end.checked_sub(place.start).filter(|len| (1..=CODE).contains(len)).ok_or_else(odd)?;
    let at = elf.segments().find_map(|segment| {
        let (offset, size) = segment.file_range();
        let within = place.start.checked_sub(segment.address())?;
        (within < size && len <= size - within).then(|| offset.checked_add(within)).flatten()
    });
    let at = at.ok_or_else(odd)?;
    let mut code = vec![0; len as usize];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut code)?;
    let body = match elf.architecture() {
        Architecture::X86_64 => go_code::x86_64(&code),
        Architecture::Aarch64 => go_code::aarch64(&code),
        _ => None,
    };
    let (begins, returns) = body.ok_or_else(odd)?;
    Ok(Function { begins: at + begins as u64, returns: returns.into_iter().map(|back| at + back as u64).collect() })
}

/// The table, as far as it was read.
struct Table<T> {
    source: BufReader<T>,
    /// Where it lies in its source, and how long it is.
    start: u64,
    size: u64,
    /// Address that places are counted from; 0 where it does not say.
    text: u64,
    functions: u64,
    names: Range<u64>,
    index: u64,
}

impl<T: Read + Seek> Table<T> {
    /// Understands its head.
    fn read(source: T, start: u64, size: u64) -> Result<Self, GoError> {
        let mut source = BufReader::with_capacity(1 << 16, source);
        source.seek(SeekFrom::Start(start))?;
        let mut head = [0; 72];
        if size < head.len() as u64 {
            return Err(GoError::Damaged("it is too short"));
        }
        source.read_exact(&mut head)?;
        match u32::from_le_bytes([head[0], head[1], head[2], head[3]]) {
            GO_1_18 | GO_1_20 => {}
            magic if BEFORE.contains(&magic) => return Err(GoError::Old),
            _ => return Err(GoError::Unknown),
        }
        // Two zeroes, the least length of an instruction, that of a pointer.
        if head[4..6] != [0, 0] || !matches!(head[6], 1 | 4) || head[7] != 8 {
            return Err(GoError::Unknown);
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(head[8..].chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        let [functions, _, text, names, names_end, _, _, index] = words;
        let rows = functions.checked_mul(8).filter(|_| functions <= FUNCTIONS);
        if names > names_end || names_end > size || rows.is_none_or(|rows| index > size || rows + 4 > size - index) {
            return Err(GoError::Damaged("its parts lie outside of it"));
        }
        Ok(Table { source, start, size, text, functions, names: names..names_end, index })
    }

    /// Where these functions begin and end, counted from the text. Of several with one name none is the right one.
    fn places(&mut self, names: &[&str]) -> Result<Vec<Option<Range<u64>>>, GoError> {
        let offsets = self.offsets_of(names)?;
        let mut index = vec![0; self.functions as usize * 8 + 4];
        self.source.seek(SeekFrom::Start(self.start + self.index))?;
        self.source.read_exact(&mut index)?;
        let word = |at: usize| u32::from_le_bytes([index[at], index[at + 1], index[at + 2], index[at + 3]]);
        let mut places: Vec<Vec<Range<u64>>> = vec![Vec::new(); names.len()];
        let mut at = self.index + index.len() as u64;
        for row in 0..self.functions as usize {
            let (entry, about) = (word(row * 8), self.index + u64::from(word(row * 8 + 4)));
            if about + 8 > self.size {
                return Err(GoError::Damaged("a function lies outside of it"));
            }
            self.source.seek_relative(about.wrapping_sub(at) as i64)?;
            let mut head = [0; 8];
            self.source.read_exact(&mut head)?;
            at = about + 8;
            if head[..4] != entry.to_le_bytes() {
                return Err(GoError::Damaged("a function has two beginnings"));
            }
            let name = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            if let Some(which) = offsets.iter().position(|offset| *offset == Some(name)) {
                places[which].push(u64::from(entry)..u64::from(word(row * 8 + 8)));
            }
        }
        let only = |mut found: Vec<Range<u64>>| if found.len() == 1 { found.pop() } else { None };
        Ok(places.into_iter().map(only).collect())
    }

    /// Where the names stand among all names.
    fn offsets_of(&mut self, names: &[&str]) -> Result<Vec<Option<u32>>, GoError> {
        use std::io::BufRead as _;
        let mut found = vec![None; names.len()];
        self.source.seek(SeekFrom::Start(self.start + self.names.start))?;
        let (mut at, len) = (0, self.names.end - self.names.start);
        let mut name = Vec::new();
        while at < len {
            name.clear();
            let read = (&mut self.source).take(NAME.min(len - at)).read_until(0, &mut name)?;
            if read == 0 {
                return Err(GoError::Damaged("its names end early"));
            }
            if name.pop() == Some(0)
                && let Some(which) = names.iter().position(|wanted| wanted.as_bytes() == name)
            {
                found[which] = u32::try_from(at).ok();
            }
            at += read as u64;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A table of these functions, each with where it begins, and where the last one ends.
    fn table(magic: u32, text: u64, functions: &[(&str, u32)], end: u32) -> Vec<u8> {
        let mut names = vec![0];
        let offsets: Vec<u32> = functions
            .iter()
            .map(|(name, _)| {
                let at = names.len() as u32;
                names.extend_from_slice(name.as_bytes());
                names.push(0);
                at
            })
            .collect();
        let index = 72 + names.len() as u64;
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        for word in [functions.len() as u64, 0, text, 72, index, index, index, index] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&names);
        let rows = functions.len() as u32 * 8 + 4;
        for (place, (_, entry)) in functions.iter().enumerate() {
            bytes.extend(entry.to_le_bytes());
            bytes.extend((rows + place as u32 * 8).to_le_bytes());
        }
        bytes.extend(end.to_le_bytes());
        for ((_, entry), name) in functions.iter().zip(offsets) {
            bytes.extend(entry.to_le_bytes());
            bytes.extend(name.to_le_bytes());
        }
        bytes
    }

    const SOME: [(&str, u32); 3] = [("main.main", 0), ("crypto/tls.(*Conn).Read", 64), ("syscall.connect", 256)];

    fn places(bytes: &[u8], names: &[&str]) -> Result<Vec<Option<Range<u64>>>, GoError> {
        Table::read(Cursor::new(bytes), 0, bytes.len() as u64)?.places(names)
    }

    #[test]
    fn functions_are_found_by_name() {
        let names = ["syscall.connect", "crypto/tls.(*Conn).Write", "crypto/tls.(*Conn).Read", "connect"];
        for magic in [GO_1_18, GO_1_20] {
            let bytes = table(magic, 0x40_1000, &SOME, 300);
            assert_eq!(places(&bytes, &names).unwrap(), [Some(256..300), None, Some(64..256), None]);
            assert_eq!(Table::read(Cursor::new(&bytes), 0, bytes.len() as u64).unwrap().text, 0x40_1000);
        }
    }

    #[test]
    fn of_two_with_one_name_none_is_taken() {
        let mut bytes = table(GO_1_20, 0, &SOME, 300);
        let second = bytes.len() - 8;
        bytes.copy_within(second - 4..second, second + 4);
        assert_eq!(places(&bytes, &["crypto/tls.(*Conn).Read", "main.main"]).unwrap(), [None, Some(0..64)]);
    }

    #[test]
    fn other_tables_are_refused_with_a_reason() {
        let refused = |magic| places(&table(magic, 0, &SOME, 300), &["main.main"]).unwrap_err().to_string();
        assert_eq!(refused(0xffff_fffa), "it was built by a Go before 1.18");
        assert_eq!(refused(0xffff_fff2), "its table of functions is of a kind that is not known yet");
        let bytes = table(GO_1_20, 0, &SOME, 300);
        assert!(matches!(places(&bytes[..40], &[]), Err(GoError::Damaged(_))));
        assert!(matches!(places(&bytes[..bytes.len() - 1], &[]), Err(GoError::Damaged(_))));
        let mut moved = bytes.clone();
        let last = moved.len() - 8;
        moved[last] += 1;
        assert!(matches!(places(&moved, &[]), Err(GoError::Damaged(_))), "a function that begins elsewhere");
    }

    #[test]
    fn what_is_no_go_executable_has_no_functions() {
        for path in ["/proc/self/exe", "/proc/self/maps"] {
            assert!(find(&File::open(path).unwrap(), &["main.main"]).unwrap().is_none());
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_another_place(changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..8), cut in any::<u16>()) {
            let mut bytes = table(GO_1_20, 0, &SOME, 300);
            for (at, byte) in changes {
                let at = at as usize % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut as usize % 64);
            // Neither panics nor takes what the table says for how much memory there is.
            let _ = places(&bytes, &["main.main", "syscall.connect"]);
            let _ = Table::read(Cursor::new(&bytes), 0, u64::MAX).and_then(|mut table| table.places(&["main.main"]));
        }
    }
}
