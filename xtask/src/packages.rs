//! Debian packages: installing them without letting their services start.
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// What Debian's maintainer scripts ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_ASIDE: &str = "/usr/sbin/policy-rc.d.before-xtask";
/// 101: the action is forbidden by policy.
const REFUSE: &str = "#!/bin/sh\n# Put here by cargo xtask while it installs packages.\nexit 101\n";

/// Whether this system takes its software from Debian packages.
pub fn here() -> bool {
    shell::which("apt-get").is_some() && shell::which("dpkg").is_some()
}

/// Installs packages by name; must run as root.
pub fn install(names: &[String]) -> Result<()> {
    if !shell::is_root() {
        bail!("installing packages needs root");
    }
    let fresh = if has_lists() {
        false
    } else {
        update()?;
        true
    };
    let _guard =
        NoServices::new(Path::new(POLICY), Path::new(POLICY_ASIDE)).context("cannot keep services from starting")?;
    let first = shell::run(&mut apt_install(names));
    if first.is_err() && !fresh {
        // Lists that are too old name packages that the mirror no longer has.
        update()?;
        shell::run(&mut apt_install(names))?;
    } else {
        first?;
    }
    // Nor at the next start of a machine on which somebody only wanted to run tests.
    if Path::new("/run/systemd/system").is_dir() {
        disable(&services(names)?)?;
    }
    Ok(())
}

/// Brings apt's lists up to date.
pub fn update() -> Result<()> {
    let mut apt = shell::as_root("apt-get", "updating the package lists")?;
    shell::run(apt.args(["-o", "DPkg::Lock::Timeout=600", "-q", "update"]))
}

/// A bare machine has no lists at all.
pub fn has_lists() -> bool {
    let Ok(files) = fs::read_dir("/var/lib/apt/lists") else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().contains("_Packages"))
}

/// Whether the lists know a package.
pub fn known(name: &str) -> bool {
    shell::capture(Command::new("apt-cache").args(["show", "--no-all-versions", name]))
        .is_ok_and(|text| !text.is_empty())
}

fn apt_install(names: &[String]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["-o", "DPkg::Lock::Timeout=600", "-q", "-y", "--no-install-recommends", "install"]).args(names);
    apt
}

fn services(names: &[String]) -> Result<Vec<String>> {
    let files = shell::capture(Command::new("dpkg").arg("-L").args(names))?;
    Ok(units(&files))
}

/// The services among a package's files; templates are never started by themselves.
fn units(files: &str) -> Vec<String> {
    let files = files.lines().filter(|file| file.contains("/systemd/system/"));
    let names = files.filter_map(|file| Path::new(file).file_name()?.to_str());
    names.filter(|name| name.ends_with(".service") && !name.contains('@')).map(Into::into).collect()
}

fn disable(units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    shell::run(Command::new("systemctl").args(["--quiet", "disable"]).args(units))
}

/// While this lives, no package starts a service; what was there before comes back after.
struct NoServices<'a> {
    policy: &'a Path,
    aside: &'a Path,
}

impl<'a> NoServices<'a> {
    fn new(policy: &'a Path, aside: &'a Path) -> io::Result<Self> {
        // An interrupted run may have left ours behind: then the original, if any, is already aside.
        let ours = fs::read_to_string(policy).is_ok_and(|text| text == REFUSE);
        if policy.exists() && !ours {
            fs::rename(policy, aside)?;
        }
        fs::write(policy, REFUSE)?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(Self { policy, aside })
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        let restored =
            if self.aside.exists() { fs::rename(self.aside, self.policy) } else { fs::remove_file(self.policy) };
        if let Err(error) = restored {
            eprintln!("warning: remove {} by hand: {error}", self.policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_forbidden_and_the_former_policy_comes_back() {
        let folder = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (policy, aside) = (folder.join("policy"), folder.join("aside"));

        drop(NoServices::new(&policy, &aside).unwrap());
        assert!(!policy.exists());

        fs::write(&policy, "mine").unwrap();
        let guard = NoServices::new(&policy, &aside).unwrap();
        assert_eq!(fs::read_to_string(&policy).unwrap(), REFUSE);
        // A run that was killed here leaves both files; the next one must not take ours for the original.
        std::mem::forget(guard);
        drop(NoServices::new(&policy, &aside).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "mine");
        assert!(!aside.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_services_of_a_package_are_its_units_without_templates() {
        let files = "/.\n/lib/systemd/system/apache2.service\n/lib/systemd/system/apache2@.service\n\
                     /lib/systemd/system/apache-htcacheclean.timer\n/usr/share/doc/x.service\n";
        assert_eq!(units(files), ["apache2.service"]);
    }
}
