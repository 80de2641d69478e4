//! The shared libraries that programs need, as the host's loader finds them.
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Whether a file is a program or a library.
pub fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Everything that the loader would map for these files.
pub fn of(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    // Cargo points the loader at its own libraries, which no guest has. ldd fails where one of the files is static.
    let output = Command::new("ldd").args(files).env_remove("LD_LIBRARY_PATH").stdin(Stdio::null()).output();
    let output = output.context("cannot run ldd")?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `name => /path (0x…)`, `/path/of/the/loader (0x…)` and the name with nothing found.
fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with(char::is_whitespace)) {
        let line = line.trim();
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place.starts_with("not found") {
            bail!("the library {name} is not installed");
        }
        let place = place.rsplit_once(" (0x").map_or(place, |(place, _)| place);
        if place.starts_with('/') {
            found.push(PathBuf::from(place));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_read_from_ldd() {
        let text = "/usr/bin/a:\n\tlinux-vdso.so.1 (0x00007ffc)\n\tlibgcc_s.so.1 => /lib/x/libgcc_s.so.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
                    /usr/bin/b:\n\tnot a dynamic executable\n/usr/bin/c:\n\tstatically linked\n\
                    /usr/bin/d:\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007e)\n";
        let expected = ["/lib/x/libc.so.6", "/lib/x/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_library_that_is_not_there_is_an_error_by_name() {
        let error = parse("\tlibfoo.so.3 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "the library libfoo.so.3 is not installed");
    }
}
