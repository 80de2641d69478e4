//! The Debian package: its control files and the archive, made without Debian's tools.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::tree::{Tree, project};
use super::{VERSION, archive};
use crate::shell;

const MAINTAINER: &str = "trace502 contributors <trace502@users.noreply.github.com>";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// What Debian calls this machine's architecture.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no Debian package for {other} yet"),
    }
}

pub fn pack(tree: &Tree, program: &Path, out: &Path) -> Result<PathBuf> {
    let control = tree.root.with_extension("control");
    fs::create_dir_all(&control)?;
    fs::write(control.join("control"), control_file(tree, program)?)?;
    let files = tree.files()?;
    let conffiles = files.iter().filter(|file| file.starts_with("etc")).map(|file| format!("/{}\n", file.display()));
    fs::write(control.join("conffiles"), conffiles.collect::<String>())?;
    fs::write(control.join("md5sums"), sums(tree, &files)?)?;
    for script in SCRIPTS {
        let file = control.join(script);
        fs::write(&file, project(&format!("deploy/debian/{script}"))?)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let packed = |folder: &Path| -> Result<Vec<u8>> {
        let file = folder.with_extension("tar.gz");
        archive::tar_gz(folder, ".", &file)?;
        Ok(fs::read(file)?)
    };
    let deb = out.join(format!("trace502_{VERSION}-1_{}.deb", architecture()?));
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", packed(&control)?),
        ("data.tar.gz", packed(&tree.root)?),
    ];
    archive::ar(&members, &deb)?;
    Ok(deb)
}

fn control_file(tree: &Tree, program: &Path) -> Result<String> {
    let mut kilobytes = 0;
    for file in tree.files()? {
        kilobytes += fs::metadata(tree.root.join(file))?.len().div_ceil(1024);
    }
    Ok(format!(
        "Package: trace502\nVersion: {VERSION}-1\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {kilobytes}\nDepends: libc6 (>= {}), libgcc-s1\nSuggests: prometheus\nSection: net\n\
         Priority: optional\nHomepage: {}\n\
         Description: precise cause of every 502, 503 and 504 of a reverse proxy\n \
         trace502 watches the connections between reverse proxies and their upstreams\n \
         from the kernel, and says for every gateway error what really happened: no\n \
         listener, a full accept queue, an OOM kill, a stale keepalive connection, a\n \
         firewall, a crash. Nothing is installed in the proxy or the upstream.\n .\n \
         The agent serves metrics for Prometheus on 127.0.0.1:9502 and keeps every\n \
         error with its evidence on disk.\n",
        architecture()?,
        libc(program)?,
        env!("CARGO_PKG_REPOSITORY"),
    ))
}

/// The oldest C library that has every symbol the program asks for.
fn libc(program: &Path) -> Result<String> {
    let bytes = fs::read(program)?;
    let mut newest = (2, 0);
    for at in bytes.windows(8).enumerate().filter(|(_, word)| *word == b"GLIBC_2.").map(|(at, _)| at + 8) {
        let digits: String =
            bytes[at..].iter().take(3).map(|b| char::from(*b)).take_while(char::is_ascii_digit).collect();
        newest = newest.max((2, digits.parse().unwrap_or(0)));
    }
    if newest.1 == 0 {
        bail!("{} asks for no version of the C library: is it a program?", program.display());
    }
    Ok(format!("{}.{}", newest.0, newest.1))
}

fn sums(tree: &Tree, files: &[PathBuf]) -> Result<String> {
    let files = files.iter().filter(|file| !file.starts_with("etc"));
    shell::capture(Command::new("md5sum").args(files).current_dir(&tree.root))
}

/// Debian's changelog; what changed is in ours beside it.
pub fn changelog() -> Result<String> {
    let moment = format!("@{}", archive::moment()?);
    let date = shell::capture(Command::new("date").env("LC_ALL", "C").args(["--utc", "-R", "-d", &moment]));
    let date = date.context("cannot tell the date")?;
    Ok(format!(
        "trace502 ({VERSION}-1) unstable; urgency=medium\n\n  * What changed for users: changelog.gz beside this file.\n\n \
         -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}
