//! Where the calls of a TLS library begin in its file.
//!
//! A probe replaces an instruction. What the kernel cannot carry out itself it has to step through: on a virtual
//! machine that costs twenty times the probe. The public calls of OpenSSL begin with such an instruction; the function
//! that both forms of a call share, and do nothing beside calling it, saves a register first, which is carried out.

use std::fs::File;

use object::read::ReadCache;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use trace502_ebpf::{TLS_FIFTH, TLS_SUCCESS, TLS_THIRD, TLS_VAGUE};

/// What happens in a call, and so which programs stand there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    Handshake,
    Read,
    Write,
    /// The owner says goodbye.
    Part,
    /// An error is noted.
    Error,
    /// What the verification of a certificate came to is asked by the library, by its owner.
    Verified,
    Asked,
    /// A certificate is compared with a name.
    Named,
}

/// A call of the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub doing: Doing,
    /// Offset in the file.
    pub at: u64,
    /// How it answers: `TLS_*`.
    pub answers: u64,
}

/// The public calls, and how they answer.
const CALLS: [(&str, Doing, u64); 6] = [
    ("SSL_do_handshake", Doing::Handshake, 0),
    ("SSL_read", Doing::Read, 0),
    ("SSL_read_ex", Doing::Read, TLS_SUCCESS | TLS_VAGUE),
    ("SSL_write", Doing::Write, 0),
    ("SSL_write_ex", Doing::Write, TLS_SUCCESS | TLS_VAGUE),
    ("SSL_shutdown", Doing::Part, 0),
];

/// The calls that tell why a handshake failed, and how. Some are in a library of their own.
const REASONS: [(&str, Doing, u64); 5] = [
    ("ERR_vset_error", Doing::Error, 0),
    ("ERR_put_error", Doing::Error, TLS_THIRD),
    ("X509_STORE_CTX_get_error", Doing::Verified, 0),
    ("SSL_get_verify_result", Doing::Asked, 0),
    ("X509_check_host", Doing::Named, 0),
];

/// A library without these is of no use.
const NEEDED: [&str; 2] = ["SSL_read", "SSL_write"];

/// Bytes of a call that are looked at.
const REACH: u64 = 96;

/// The file as it is read.
type Elf<'a> = object::File<'a, &'a ReadCache<&'a File>>;

/// The calls in an ELF file; `None` where it is no TLS library.
pub fn of(file: &File) -> Option<Vec<Call>> {
    let cache = ReadCache::new(file);
    let file = object::File::parse(&cache).ok()?;
    let found = addresses(&file, &CALLS);
    let has = |call: &&str| CALLS.iter().zip(&found).any(|((name, _, _), at)| name == call && at.is_some());
    if !NEEDED.iter().all(has) {
        return None;
    }
    let named = |name| CALLS.iter().zip(found).find(|((call, _, _), _)| *call == name).and_then(|(_, at)| at);
    let reads = shared(&file, Doing::Read, named("SSL_read"), named("SSL_read_ex"));
    let writes = shared(&file, Doing::Write, named("SSL_write"), named("SSL_write_ex"));
    let mut calls: Vec<Call> = reads.into_iter().chain(writes).collect();
    let known: Vec<Doing> = calls.iter().map(|call| call.doing).collect();
    for ((_, doing, answers), at) in CALLS.into_iter().zip(found) {
        if let Some(at) = at
            && !known.contains(&doing)
        {
            calls.extend(offset_of(&file, at).map(|at| Call { doing, at, answers }));
        }
    }
    Some(calls)
}

/// The calls in an ELF file that tell why a handshake failed.
pub fn reasons(file: &File) -> Vec<Call> {
    let cache = ReadCache::new(file);
    let Ok(file) = object::File::parse(&cache) else { return Vec::new() };
    let found = addresses(&file, &REASONS);
    let call = |((_, doing, answers), at): (&(_, Doing, u64), Option<u64>)| {
        let at = offset_of(&file, at?)?;
        Some(Call { doing: *doing, at, answers: *answers })
    };
    REASONS.iter().zip(found).filter_map(call).collect()
}

/// Where those of these functions begin that the file defines.
fn addresses<const N: usize>(file: &Elf<'_>, calls: &[(&str, Doing, u64); N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for symbol in file.dynamic_symbols().chain(file.symbols()) {
        let Ok(name) = symbol.name() else { continue };
        let Some(place) = calls.iter().position(|(call, _, _)| *call == name) else { continue };
        if symbol.is_definition() && symbol.address() != 0 && found[place].is_none() {
            found[place] = offset_of(file, symbol.address()).map(|_| symbol.address());
        }
    }
    found
}

/// The function that both forms of a call hand their arguments to.
fn shared(file: &Elf<'_>, doing: Doing, plain: Option<u64>, by_success: Option<u64>) -> Option<Call> {
    let (plain, by_success) = (plain?, by_success?);
    let (target, answers) = handed_to(code(file, by_success)?, by_success)?;
    calls(code(file, plain)?, plain, target).then_some(())?;
    // Only where the instruction there is one that the kernel carries out.
    let pushes = matches!(code(file, target)?, [0x50..=0x57, ..] | [0x41, 0x50..=0x57, ..]);
    let at = offset_of(file, target)?;
    pushes.then_some(Call { doing, at, answers })
}

/// Where a call is handed on to with the arguments it was given, and how the answer is told there.
#[cfg(target_arch = "x86_64")]
fn handed_to(mut code: &[u8], mut at: u64) -> Option<(u64, u64)> {
    /// endbr64; sub $x, %rsp; push %rbp; mov %rsp, %rbp. They leave the arguments where they are.
    const HARMLESS: [(&[u8], usize); 4] =
        [(&[0xf3, 0x0f, 0x1e, 0xfa], 4), (&[0x48, 0x83, 0xec], 4), (&[0x55], 1), (&[0x48, 0x89, 0xe5], 3)];
    /// mov %rcx, %r8; xor %ecx, %ecx. Since 3.3 flags stand before the place for the count.
    const MOVED: &[u8] = &[0x49, 0x89, 0xc8];
    const NO_FLAGS: &[u8] = &[0x31, 0xc9];
    let (mut moved, mut no_flags) = (false, false);
    loop {
        let step = if let Some((_, len)) = HARMLESS.iter().find(|(bytes, _)| code.starts_with(bytes)) {
            *len
        } else if code.starts_with(MOVED) && !no_flags {
            moved = true;
            MOVED.len()
        } else if code.starts_with(NO_FLAGS) && moved {
            no_flags = true;
            NO_FLAGS.len()
        } else {
            break;
        };
        code = code.get(step..)?;
        at += step as u64;
    }
    let target = target(code, at)?;
    (moved == no_flags).then_some((target, if moved { TLS_SUCCESS | TLS_FIFTH } else { TLS_SUCCESS }))
}

/// Whether this code calls that function.
#[cfg(target_arch = "x86_64")]
fn calls(code: &[u8], at: u64, to: u64) -> bool {
    (0..code.len()).any(|step| target(&code[step..], at + step as u64) == Some(to))
}

/// Where the call instruction that code begins with goes to.
#[cfg(target_arch = "x86_64")]
fn target(code: &[u8], at: u64) -> Option<u64> {
    let [0xe8, a, b, c, d, ..] = *code else { return None };
    Some(at.wrapping_add(5).wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()))
}

#[cfg(not(target_arch = "x86_64"))]
fn handed_to(_: &[u8], _: u64) -> Option<(u64, u64)> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn calls(_: &[u8], _: u64, _: u64) -> bool {
    false
}

/// The first bytes of a function.
fn code<'a>(file: &Elf<'a>, address: u64) -> Option<&'a [u8]> {
    file.segments().find_map(|segment| {
        let left = (segment.address() + segment.file_range().1).checked_sub(address)?;
        segment.data_range(address, left.min(REACH)).ok()?
    })
}

fn offset_of(file: &Elf<'_>, address: u64) -> Option<u64> {
    file.segments().find_map(|segment| {
        let (offset, size) = segment.file_range();
        let within = address.checked_sub(segment.address())?;
        (within < size).then_some(offset + within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_tls_library_has_no_calls() {
        assert_eq!(of(&File::open("/proc/self/exe").unwrap()), None);
        assert_eq!(of(&File::open("/proc/self/maps").unwrap()), None);
    }

    /// `SSL_read_ex` and `SSL_read` of Debian's OpenSSL 3.0, at their addresses.
    #[cfg(target_arch = "x86_64")]
    const EX: (u64, &[u8]) = (0x354c0, &[0x48, 0x83, 0xec, 0x08, 0xe8, 0xc7, 0xfd, 0xff, 0xff, 0x31, 0xd2]);
    #[cfg(target_arch = "x86_64")]
    const PLAIN: (u64, &[u8]) = (0x35448, &[0x48, 0x89, 0xe1, 0x48, 0x63, 0xd2, 0xe8, 0x3d, 0xfe, 0xff, 0xff, 0x85]);

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_forms_of_a_call_lead_to_one_function() {
        assert_eq!(handed_to(EX.1, EX.0), Some((0x35290, TLS_SUCCESS)));
        assert!(calls(PLAIN.1, PLAIN.0, 0x35290));
        assert!(!calls(PLAIN.1, PLAIN.0, 0x35291));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn flags_move_the_count_to_the_fifth_argument() {
        let with_flags = [0x48, 0x83, 0xec, 0x08, 0x49, 0x89, 0xc8, 0x31, 0xc9, 0xe8, 0, 0, 0, 0];
        assert_eq!(handed_to(&with_flags, 0), Some((14, TLS_SUCCESS | TLS_FIFTH)));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_call_that_changes_its_arguments_is_not_looked_through() {
        // xor %edi, %edi
        assert_eq!(handed_to(&[0x31, 0xff, 0xe8, 0, 0, 0, 0], 0), None);
        // The count was moved, but nothing stands where it was.
        assert_eq!(handed_to(&[0x49, 0x89, 0xc8, 0xe8, 0, 0, 0, 0], 0), None);
        assert_eq!(handed_to(&[0x48, 0x83], 0), None);
    }
}
