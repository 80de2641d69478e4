//! Archives that come out the same, to the byte, whenever the same files go in.
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Seconds since 1970 for all that is packed: `SOURCE_DATE_EPOCH`, else the time of the commit.
pub fn moment() -> Result<u64> {
    if let Ok(told) = std::env::var("SOURCE_DATE_EPOCH") {
        return told.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut git = Command::new("git");
    let commit = shell::capture(git.args(["log", "-1", "--format=%ct"]).current_dir(shell::root()));
    commit.and_then(|text| Ok(text.trim().parse()?)).context("not in a git checkout: set SOURCE_DATE_EPOCH")
}

/// Packs `folder/what`, owned by root.
pub fn tar_gz(folder: &Path, what: &str, file: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    // Folders were made with whatever mask this shell has.
    tar.args(["--mode=u+rw,go=rX", &format!("--mtime=@{}", moment()?), "--directory"]).arg(folder).arg(what);
    let output = tar.stdin(Stdio::null()).output().context("cannot run tar")?;
    if !output.status.success() {
        bail!("tar failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::write(file, gzip(&output.stdout)?).with_context(|| format!("cannot write {}", file.display()))
}

/// Without name and time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "--no-name"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().context("cannot run gzip")?;
    let mut input = child.stdin.take().context("gzip has no input")?;
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(bytes));
        let output = child.wait_with_output();
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok::<_, anyhow::Error>(output?)
    })?;
    if !output.status.success() {
        bail!("gzip failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// The archive that a Debian package is: ar(5), its members in this order.
pub fn ar(members: &[(&str, Vec<u8>)], file: &Path) -> Result<()> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let head = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", moment()?, 0, 0, "100644", content.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(content);
        // Each begins at an even place.
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}
