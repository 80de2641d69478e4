//! The calls of a BoringSSL that was linked into an executable and has lost its names, as Envoy has it.
//!
//! What is left are the errors. Each function puts its own into a queue with the name of the source file and a number
//! that is part of the library's interface, and no two of those that are wanted put the same ones. Where a function
//! begins stands in the table by which exceptions are unwound, which no `strip` takes away. What is found twice, or not
//! as a whole, is not hooked at all.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use object::read::ReadCache;
use object::{Object as _, ObjectSection as _};
use trace502_ebpf::{TLS_BORING, TLS_THIRD};

use super::boring_code::{self, Puts};
use super::tls_calls::{Call, Doing};

/// The source file of the library whose functions are wanted: as a compiler was given it.
const SOURCE: &[u8] = b"/ssl/ssl_lib.cc\0";

/// Longest path of a source file.
const PATH: usize = 1024;

/// The numbers of errors (`ERR_R_*`, `SSL_R_*`).
const MISUSED: u32 = 66;
const BAD_LENGTH: u32 = 111;
const TYPE_NOT_SET: u32 = 134;
const HANDSHAKE_FAILED: u32 = 215;
const UNINITIALIZED: u32 = 226;
const DATA_ON_SHUTDOWN: u32 = 291;

/// Bytes that are looked through at a time.
const CHUNK: usize = 1 << 20;

/// No table of functions is larger.
const LARGEST_TABLE: u64 = 64 << 20;

/// The calls, and those that tell why a handshake failed.
pub type Found = (Vec<Call>, Vec<Call>);

/// `None` where there is no such library, or another machine's.
pub fn of(file: &File) -> Option<Found> {
    if cfg!(not(target_arch = "x86_64")) {
        return None;
    }
    let parts = Parts::of(file)?;
    let paths = paths(file, &parts.constants)?;
    let functions = Functions::of(file, &parts.functions)?;
    let mut starts: Vec<(u64, u64)> = Vec::new();
    for at in references(file, &parts.code, &paths)? {
        let bounds = functions.around(at)?;
        if !starts.contains(&bounds) {
            starts.push(bounds);
        }
    }
    let mut puts = Vec::new();
    for (begin, end) in starts {
        let code = parts.code.bytes(file, begin, end.min(begin + boring_code::LONGEST))?;
        puts.extend(boring_code::puts(&code, begin, &|at| paths.contains(at)));
    }
    calls(&puts, &parts.code)
}

/// Which function is which, by the errors that it puts.
fn calls(functions: &[Puts], code: &Part) -> Option<Found> {
    let with = |wanted: &[u32], without: &[u32]| {
        let is = |it: &&Puts| {
            wanted.iter().all(|code| it.errors.contains(code)) && !without.iter().any(|code| it.errors.contains(code))
        };
        functions.iter().filter(|it| it.saves).filter(is).collect::<Vec<_>>()
    };
    let one = |found: Vec<&Puts>| match found[..] {
        [it] => Some(it.at),
        _ => None,
    };
    let write = one(with(&[MISUSED, UNINITIALIZED, HANDSHAKE_FAILED, BAD_LENGTH], &[]))?;
    let shake = one(with(&[TYPE_NOT_SET], &[UNINITIALIZED, MISUSED]))?;
    let part = one(with(&[UNINITIALIZED, DATA_ON_SHUTDOWN], &[MISUSED]))?;
    // What reads for all, or a part of each of those.
    let reads: Vec<u64> = match with(&[UNINITIALIZED, HANDSHAKE_FAILED], &[MISUSED, BAD_LENGTH])[..] {
        [inner] => {
            let callers = with(&[MISUSED], &[UNINITIALIZED]).into_iter().filter(|it| it.calls.contains(&inner.at));
            callers.map(|it| it.at).collect()
        }
        [] => with(&[MISUSED, UNINITIALIZED, HANDSHAKE_FAILED], &[BAD_LENGTH]).iter().map(|it| it.at).collect(),
        _ => return None,
    };
    // To look at what is next is a function of its own, which may be a part of it.
    if !(1..=2).contains(&reads.len()) {
        return None;
    }
    let call = |doing, at, answers| Some(Call { doing, at: code.offset(at)?, answers });
    let mut found = vec![call(Doing::Handshake, shake, 0)?, call(Doing::Write, write, 0)?, call(Doing::Part, part, 0)?];
    for read in reads {
        found.push(call(Doing::Read, read, 0)?);
    }
    let mut errors = functions.iter().map(|it| it.through);
    let through = errors.next()?;
    let reasons = if errors.all(|it| it == through) {
        vec![call(Doing::Error, through, TLS_THIRD | TLS_BORING)?]
    } else {
        Vec::new()
    };
    Some((found, reasons))
}

/// A part of the file.
#[derive(Clone, Copy, Debug)]
struct Part {
    address: u64,
    offset: u64,
    size: u64,
}

impl Part {
    fn offset(&self, address: u64) -> Option<u64> {
        let within = address.checked_sub(self.address)?;
        (within < self.size).then_some(self.offset + within)
    }

    fn bytes(&self, file: &File, begin: u64, end: u64) -> Option<Vec<u8>> {
        let len = end.min(self.address + self.size).checked_sub(begin)?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, self.offset(begin)?).ok()?;
        Some(bytes)
    }

    /// Gives the part piece by piece, each with its address and the last bytes of the one before.
    fn pieces(&self, file: &File, overlap: usize, mut with: impl FnMut(u64, &[u8])) -> Option<()> {
        let mut bytes = vec![0; CHUNK];
        let mut at = 0;
        while at < self.size {
            let len = (self.size - at).min(CHUNK as u64) as usize;
            file.read_exact_at(&mut bytes[..len], self.offset + at).ok()?;
            with(self.address + at, &bytes[..len]);
            let last = at + len as u64 >= self.size;
            at += if last { len } else { len.saturating_sub(overlap).max(1) } as u64;
        }
        Some(())
    }
}

struct Parts {
    constants: Part,
    code: Part,
    /// Where each function begins, in order.
    functions: Part,
}

impl Parts {
    fn of(file: &File) -> Option<Parts> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).ok()?;
        if elf.architecture() != object::Architecture::X86_64 {
            return None;
        }
        let part = |name| {
            let section = elf.section_by_name(name)?;
            let (offset, size) = section.file_range()?;
            Some(Part { address: section.address(), offset, size })
        };
        Some(Parts { constants: part(".rodata")?, code: part(".text")?, functions: part(".eh_frame_hdr")? })
    }
}

/// Addresses that a path of the source file lies at: from its beginning to where the end is that others may share.
#[derive(Debug, Default)]
struct Paths(Vec<(u64, u64)>);

impl Paths {
    fn contains(&self, at: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&at))
    }
}

fn paths(file: &File, constants: &Part) -> Option<Paths> {
    let mut found = Paths::default();
    constants.pieces(file, PATH + SOURCE.len(), |address, bytes| {
        for at in places(bytes, SOURCE) {
            let path = bytes[at.saturating_sub(PATH)..at].iter().rev().take_while(|byte| byte.is_ascii_graphic());
            let (first, last) = (address + (at - path.count()) as u64, address + at as u64 + 1);
            if !found.0.iter().any(|known| known.1 == last) {
                found.0.push((first, last));
            }
        }
    })?;
    (!found.0.is_empty()).then_some(found)
}

/// Where code loads the address of such a path as an argument.
fn references(file: &File, code: &Part, paths: &Paths) -> Option<Vec<u64>> {
    /// lea x(%rip), %rcx
    const LOAD: &[u8] = &[0x48, 0x8d, 0x0d];
    let mut found = Vec::new();
    code.pieces(file, LOAD.len() + 4, |address, bytes| {
        for at in places(bytes, LOAD) {
            let Some(&[a, b, c, d]) = bytes.get(at + 3..at + 7) else { continue };
            let next = address + at as u64 + 7;
            if paths.contains(next.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into())) {
                found.push(next - 7);
            }
        }
    })?;
    Some(found)
}

/// Each place where these bytes stand. By the C library: a hundred megabytes are looked through, also in a build that
/// is not optimised.
fn places<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(from..)?;
        // SAFETY: both are slices of these lengths, which are only read.
        let at = unsafe { libc::memmem(rest.as_ptr().cast(), rest.len(), wanted.as_ptr().cast(), wanted.len()) };
        if at.is_null() {
            return None;
        }
        let place = from + (at as usize - rest.as_ptr() as usize);
        from = place + 1;
        Some(place)
    })
}

/// The table of functions by which exceptions are unwound (`.eh_frame_hdr`).
struct Functions {
    address: u64,
    entries: Vec<u8>,
}

impl Functions {
    fn of(file: &File, part: &Part) -> Option<Functions> {
        /// Version 1; a pointer and the table are of four bytes with sign, the table counts from here.
        const HEAD: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
        if part.size > LARGEST_TABLE {
            return None;
        }
        let bytes = part.bytes(file, part.address, part.address + part.size)?;
        let count = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize;
        let entries = bytes.get(12..12 + count.checked_mul(8)?)?.to_vec();
        (bytes.starts_with(&HEAD) && !entries.is_empty()).then_some(Functions { address: part.address, entries })
    }

    fn start(&self, n: usize) -> Option<u64> {
        let bytes = self.entries.get(n * 8..n * 8 + 4)?.try_into().ok()?;
        Some(self.address.wrapping_add_signed(i32::from_le_bytes(bytes).into()))
    }

    /// Where the function begins that this instruction belongs to, and the next one.
    fn around(&self, at: u64) -> Option<(u64, u64)> {
        let (mut low, mut high) = (0, self.entries.len() / 8);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.start(middle)? <= at { low = middle + 1 } else { high = middle }
        }
        Some((self.start(low.checked_sub(1)?)?, self.start(low).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Part = Part { address: 0x1000, offset: 0, size: 0x1000 };

    fn puts(at: u64, errors: &[u32], calls: &[u64]) -> Puts {
        Puts { at, errors: errors.to_vec(), through: 0x1800, calls: calls.to_vec(), saves: true }
    }

    /// As they stand in Envoy 1.40, in that order, with others between them.
    fn envoy() -> Vec<Puts> {
        vec![
            puts(0x1100, &[MISUSED, 299, 150], &[]),
            puts(0x1200, &[TYPE_NOT_SET], &[]),
            puts(0x1300, &[182, 110], &[0x1200]),
            puts(0x1400, &[UNINITIALIZED, HANDSHAKE_FAILED], &[0x1200]),
            puts(0x1500, &[MISUSED], &[0x1400]),
            puts(0x1600, &[MISUSED, UNINITIALIZED, BAD_LENGTH, HANDSHAKE_FAILED], &[0x1200]),
            puts(0x1700, &[UNINITIALIZED, DATA_ON_SHUTDOWN], &[0x1400]),
        ]
    }

    fn at(doing: Doing, functions: &[Puts]) -> Option<Vec<u64>> {
        let (found, _) = calls(functions, &CODE)?;
        Some(found.iter().filter(|call| call.doing == doing).map(|call| call.at + CODE.address).collect())
    }

    #[test]
    fn functions_are_told_apart_by_their_errors() {
        let of = |doing| at(doing, &envoy()).unwrap();
        assert_eq!(of(Doing::Handshake), [0x1200]);
        assert_eq!(of(Doing::Read), [0x1500]);
        assert_eq!(of(Doing::Write), [0x1600]);
        assert_eq!(of(Doing::Part), [0x1700]);
        let (_, reasons) = calls(&envoy(), &CODE).unwrap();
        assert_eq!(reasons, [Call { doing: Doing::Error, at: 0x800, answers: TLS_THIRD | TLS_BORING }]);
    }

    #[test]
    fn a_compiler_may_have_put_what_reads_into_those_that_call_it() {
        let mut functions = envoy();
        functions[3].at = 0x1480;
        functions[3].errors.push(MISUSED);
        functions[4].calls.clear();
        assert_eq!(at(Doing::Read, &functions), Some(vec![0x1480]));
    }

    #[test]
    fn what_is_found_twice_or_not_at_all_is_not_hooked() {
        for gone in [1, 4, 5, 6] {
            let mut functions = envoy();
            functions.remove(gone);
            assert_eq!(calls(&functions, &CODE), None, "without {gone}");
        }
        for twice in [1, 3, 5, 6] {
            let mut functions = envoy();
            functions.push(Puts { at: 0x1780, ..functions[twice].clone() });
            assert_eq!(calls(&functions, &CODE), None, "{twice} twice");
        }
        // A part that a compiler put elsewhere has its own line in the table, and no place for a return.
        for part in [1, 4, 5, 6] {
            let mut functions = envoy();
            functions[part].saves = false;
            assert_eq!(calls(&functions, &CODE), None, "of {part} only a part");
        }
    }

    #[test]
    fn without_one_way_for_errors_only_the_reasons_are_unknown() {
        let mut functions = envoy();
        functions[0].through = 0x1900;
        let (found, reasons) = calls(&functions, &CODE).unwrap();
        assert_eq!((found.len(), reasons.len()), (4, 0));
    }

    #[test]
    fn pieces_are_looked_through_across_their_ends() {
        let file = tempfile::tempfile().unwrap();
        let size = 2 * CHUNK as u64 + 100;
        file.set_len(size).unwrap();
        let part = Part { address: 0x40_0000, offset: 0, size };
        for at in [10, CHUNK as u64 - 5, 2 * CHUNK as u64 - 20, size - 30] {
            file.write_all_at(b"../ssl/ssl_lib.cc\0", at).unwrap();
        }
        let found = paths(&file, &part).unwrap();
        assert_eq!(found.0.len(), 4);
        for at in [10, CHUNK as u64 - 5, 2 * CHUNK as u64 - 20, size - 30] {
            assert!(found.contains(part.address + at) && found.contains(part.address + at + 3));
            assert!(!found.contains(part.address + at - 1) && !found.contains(part.address + at + 4));
        }
    }

    #[test]
    fn this_program_has_no_such_library() {
        assert_eq!(of(&File::open("/proc/self/exe").unwrap()), None);
        assert_eq!(of(&File::open("/proc/self/maps").unwrap()), None);
    }
}
