//! Where a proxy's C library makes the connect() system call.
//!
//! The instruction behind `syscall` is a place where the arguments are still in their registers and the result,
//! a negative errno, is there already: one probe says what an entry and a return probe would. Where the pattern
//! is not found (another library, another machine) there is nothing to hook. Go programs call the kernel by themselves:
//! see `go_program`.
//!
//! Glibc compares the result first and then branches: the probe stands on the branch, which the kernel can carry out
//! itself. A comparison it would have to step through, which on a virtual machine costs twenty times the probe.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;

use object::{Object as _, ObjectSymbol as _};

use super::inside::Link;
use super::inside::root_path;

/// A hook in one process.
pub struct Attached {
    pub pid: u32,
    pub links: Vec<Link>,
}

/// The C libraries that this process has mapped, each with the places behind its connect system calls.
pub fn locate(pid: u32) -> Vec<(File, Vec<(u64, u64)>)> {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return Vec::new() };
    let mut places = Vec::new();
    for library in libraries(&maps) {
        let Ok(mut file) = File::open(root_path(pid, &library)) else { continue };
        let mut image = Vec::new();
        if file.read_to_end(&mut image).is_ok() {
            places.push((file, connect_returns(&image).into_iter().map(|offset| (offset, 0)).collect()));
        }
    }
    places
}

/// C libraries among the mapped files: glibc and musl.
fn libraries(maps: &str) -> BTreeSet<String> {
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with("libc.so") || name.starts_with("libc-") || name.starts_with("ld-musl-")
        })
        .map(str::to_owned)
        .collect()
}

/// Bytes of connect() that are searched: it is a short function.
const REACH: u64 = 256;

#[cfg(target_arch = "x86_64")]
const CALL: (&[u8], &[u8]) = (
    // mov $42, %eax
    &[0xb8, 0x2a, 0x00, 0x00, 0x00],
    // syscall
    &[0x0f, 0x05],
);

#[cfg(not(target_arch = "x86_64"))]
const CALL: (&[u8], &[u8]) = (
    // mov x8, #203
    &[0x68, 0x19, 0x80, 0xd2],
    // svc #0
    &[0x01, 0x00, 0x00, 0xd4],
);

/// File offsets of the instructions behind the connect system calls in an ELF image.
fn connect_returns(image: &[u8]) -> Vec<u64> {
    let Ok(file) = object::File::parse(image) else { return Vec::new() };
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("connect"));
    let Some(symbol) = symbol else { return Vec::new() };
    let size = if symbol.size() == 0 { REACH } else { symbol.size().min(REACH) };
    let Some(start) = file_offset(&file, symbol.address()) else { return Vec::new() };
    let Some(code) = image.get(start as usize..(start + size) as usize) else { return Vec::new() };
    let (number, call) = CALL;
    let mut found = Vec::new();
    let mut at = 0;
    while at + number.len() <= code.len() {
        if code[at..].starts_with(number) {
            // The call follows its number within a few instructions.
            let end = code.len().min(at + 32);
            if let Some(step) = code[at..end].windows(call.len()).position(|bytes| bytes == call) {
                let behind = at + step + call.len();
                found.push(start + (behind + compared(&code[behind..])) as u64);
            }
        }
        at += 1;
    }
    found
}

/// Length of the comparison of a result with the range of errors, where a branch follows it.
#[cfg(target_arch = "x86_64")]
fn compared(code: &[u8]) -> usize {
    // cmp $-4096, %rax; ja
    match code {
        [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, ..] | [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x0f, 0x87, ..] => 6,
        _ => 0,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn compared(_: &[u8]) -> usize {
    0
}

fn file_offset(file: &object::File<'_>, address: u64) -> Option<u64> {
    use object::ObjectSegment as _;
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
    fn only_c_libraries_are_searched() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 08:01 13 /usr/lib/libcrypto.so.3\n\
                    7f04-7f05 rw-p 00000000 00:00 0 \n\
                    7f06-7f07 r-xp 00000000 08:01 14 /lib/ld-musl-x86_64.so.1\n";
        let found: Vec<_> = libraries(maps).into_iter().collect();
        assert_eq!(found, ["/lib/ld-musl-x86_64.so.1", "/usr/lib/x86_64-linux-gnu/libc.so.6"]);
    }

    #[test]
    fn the_calls_of_our_own_c_library_are_found() {
        let found = locate(std::process::id());
        assert!(
            found.iter().any(|(_, places)| !places.is_empty()),
            "no connect system call found in the C library of this test"
        );
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_probe_stands_on_the_branch_behind_the_comparison() {
        assert_eq!(compared(&[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x58]), 6);
        assert_eq!(compared(&[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x0f, 0x87, 1, 0, 0, 0]), 6);
        // What follows is no branch: the result and the arguments may be gone there.
        assert_eq!(compared(&[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x89, 0xc7]), 0);
        assert_eq!(compared(&[0x48, 0x3d]), 0);
    }

    #[test]
    fn garbage_is_no_library() {
        assert!(connect_returns(b"no ELF at all").is_empty());
        assert!(connect_returns(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0]).is_empty());
    }
}
