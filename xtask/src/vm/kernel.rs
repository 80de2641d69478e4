//! Debian's cloud kernels: the newest of a series, downloaded by name and kept.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{packages, shell};

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series such as `6.1`, downloaded unless it is there already.
    pub fn newest(series: &str) -> Result<Self> {
        if !series.starts_with(|c: char| c.is_ascii_digit()) || !series.chars().all(|c| c.is_ascii_digit() || c == '.')
        {
            bail!("{series} is no kernel series; give it as in 6.12");
        }
        let cache = shell::target()?.join("vm/kernels");
        let Some(package) = newest_known(series)?.or_else(|| newest_kept(&cache, series)) else {
            bail!("no package of a {series} cloud kernel here: guests boot Debian's kernels, on a Debian system");
        };
        let folder = cache.join(&package);
        if !folder.is_dir() {
            fetch(&package, &cache, &folder)?;
        }
        Self::unpacked(&package, &folder)
    }

    fn unpacked(package: &str, folder: &Path) -> Result<Self> {
        let release = release(package).context("a kernel's package has no release in its name")?;
        let image = folder.join("boot").join(format!("vmlinuz-{release}"));
        let modules = ["usr/lib/modules", "lib/modules"].map(|path| folder.join(path).join(release));
        let modules = modules.into_iter().find(|path| path.is_dir());
        let Some(modules) = modules.filter(|_| image.is_file()) else {
            bail!("{} holds no kernel; remove the folder and try again", folder.display());
        };
        Ok(Self { release: release.into(), image, modules })
    }
}

fn release(package: &str) -> Option<&str> {
    package.strip_prefix("linux-image-")
}

fn newest_known(series: &str) -> Result<Option<String>> {
    if !packages::here() {
        return Ok(None);
    }
    if !packages::has_lists() {
        packages::update()?;
    }
    let pattern = format!("^linux-image-{}[.].*-cloud-amd64$", series.replace('.', "[.]"));
    let found = shell::capture(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    Ok(newest(found.lines().filter_map(|line| line.split_whitespace().next()), series))
}

fn newest_kept(cache: &Path, series: &str) -> Option<String> {
    let names: Vec<String> =
        fs::read_dir(cache).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    newest(names.iter().map(String::as_str), series)
}

/// The newest signed cloud kernel of a series among package names.
fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    let names = names.filter(|name| name.starts_with(&prefix) && name.ends_with("-cloud-amd64"));
    names.max_by_key(|name| numbers(name)).map(Into::into)
}

/// The numbers in a name, in order, which is how Debian counts its kernels up.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Downloads and unpacks; the folder appears only when it is complete.
fn fetch(package: &str, cache: &Path, folder: &Path) -> Result<()> {
    let partial = cache.join(format!("{package}.{}.partial", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let done = download(package, &partial).and_then(|()| {
        let archive = fs::read_dir(&partial)?.flatten().map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let archive = archive.context("apt-get left no package behind")?;
        shell::run(Command::new("dpkg").arg("-x").args([&archive, &partial]))?;
        fs::remove_file(&archive)?;
        if let Err(error) = fs::rename(&partial, folder)
            && !folder.is_dir()
        {
            return Err(error).with_context(|| format!("cannot create {}", folder.display()));
        }
        Ok(())
    });
    if partial.is_dir() {
        let _ = fs::remove_dir_all(&partial);
    }
    done.with_context(|| format!("cannot fetch {package}"))
}

fn download(package: &str, folder: &Path) -> Result<()> {
    // As root, apt would complain that its own user cannot write here.
    let get = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
        apt
    };
    if shell::run(&mut get()).is_ok() {
        return Ok(());
    }
    packages::update()?;
    shell::run(&mut get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_found_by_number_and_kind() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.12.100+deb12-cloud-amd64",
            "linux-image-6.12.96+deb12-cloud-amd64",
        ];
        let newest = |series| newest(names.into_iter(), series);
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("linux-image-6.12.100+deb12-cloud-amd64"));
        assert_eq!(newest("5.10"), None);
    }

    #[test]
    fn a_series_is_digits_and_dots() {
        assert!(Kernel::newest("6.1; rm").unwrap_err().to_string().contains("no kernel series"));
        assert!(Kernel::newest("").is_err());
    }
}
