//! Kernel modules: where they are, what they need, and in which order to load them.
//!
//! The packages come without the index that depmod writes, so each module's own note of what it depends on is read.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A module ready to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The wanted modules and all they need, each after what it depends on.
pub fn load_order(folder: &Path, wanted: &[String]) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    collect(folder, &mut paths).with_context(|| format!("cannot read {}", folder.display()))?;
    let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin.lines().filter_map(|line| name_of(Path::new(line))).collect();
    let mut order = Vec::new();
    for name in wanted {
        visit(&name.replace('-', "_"), &paths, &builtin, &mut order)?;
    }
    Ok(order)
}

fn visit(name: &str, paths: &BTreeMap<String, PathBuf>, builtin: &[String], order: &mut Vec<Module>) -> Result<()> {
    if builtin.iter().any(|other| other == name) || order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(path) = paths.get(name) else { bail!("this kernel has no module {name}") };
    let content = read(path)?;
    for needed in depends(&content) {
        visit(&needed, paths, builtin, order)?;
    }
    order.push(Module { name: name.into(), content });
    Ok(())
}

fn collect(folder: &Path, into: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), into)?;
        } else if let Some(name) = name_of(&entry.path()) {
            into.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `kernel/net/ipv4/tcp-x.ko.xz` is the module `tcp_x`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|end| end == "xz") {
        let output = Command::new("xz").arg("-dc").arg(path).stdin(Stdio::null()).output().context("cannot run xz")?;
        if !output.status.success() {
            bail!("cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// From the note `depends=a,b` among a module's zero-terminated notes.
fn depends(content: &[u8]) -> Vec<String> {
    let note = content.split(|byte| *byte == 0).find_map(|note| note.strip_prefix(b"depends="));
    let note = String::from_utf8_lossy(note.unwrap_or_default());
    note.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_depend_on() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("kernel/net")).unwrap();
        let module = |name: &str, needs: &str| {
            fs::write(folder.join("kernel/net").join(name), format!("\x7fELF\0license=GPL\0depends={needs}\0"))
                .unwrap();
        };
        module("nft-reject.ko", "nf_tables");
        module("nft_reject_inet.ko", "nft-reject,nf_reject,nf_tables");
        module("nf_reject.ko", "");
        module("nf_tables.ko", "");
        fs::write(folder.join("modules.builtin"), "kernel/drivers/net/dummy.ko\n").unwrap();

        let names = |wanted: &[&str]| -> Result<Vec<String>> {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).into()).collect();
            Ok(load_order(&folder, &wanted)?.into_iter().map(|module| module.name).collect())
        };
        assert_eq!(
            names(&["dummy", "nft_reject_inet"]).unwrap(),
            ["nf_tables", "nft_reject", "nf_reject", "nft_reject_inet"]
        );
        assert_eq!(names(&["absent"]).unwrap_err().to_string(), "this kernel has no module absent");
        fs::remove_dir_all(&folder).unwrap();
    }
}
