//! Which file goes where: the one list of what is installed.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive;
use crate::shell;

/// What was built before.
pub struct Parts<'a> {
    pub program: &'a Path,
    /// Folder that agent/examples/manual.rs wrote.
    pub manual: &'a Path,
    pub settings: &'a str,
}

/// From the project's folder to the folder for documentation.
const DOCS: &[(&str, &str)] = &[
    ("README.md", "README.md"),
    ("docs/agent.md", "agent.md"),
    ("deploy/prometheus/rules.yaml", "examples/prometheus-rules.yaml"),
    ("deploy/grafana/trace502.json", "examples/grafana-dashboard.json"),
    ("deploy/kubernetes/daemonset.yaml", "examples/kubernetes-daemonset.yaml"),
];

/// A folder laid out as a root file system (prefix `/usr`), or as what goes below another prefix.
pub struct Tree {
    pub root: PathBuf,
    prefix: &'static str,
}

impl Tree {
    pub fn lay(root: &Path, prefix: &'static str, parts: &Parts<'_>) -> Result<Tree> {
        let tree = Tree { root: root.to_owned(), prefix };
        let program = fs::read(parts.program).with_context(|| format!("no {}", parts.program.display()))?;
        tree.put("bin/trace502", &program, 0o755)?;
        let unit = project("deploy/systemd/trace502.service")?;
        let unit = unit.replace("/usr/bin/", &format!("{prefix}/bin/"));
        tree.put("lib/systemd/system/trace502.service", unit.as_bytes(), 0o644)?;
        for page in list(&parts.manual.join("man1"))? {
            let (name, text) = (name(&page), fs::read(&page)?);
            tree.put(&format!("share/man/man1/{name}.gz"), &archive::gzip(&text)?, 0o644)?;
        }
        for (place, name, target) in [
            ("bash", "trace502.bash", "share/bash-completion/completions/trace502"),
            ("zsh", "_trace502", "share/zsh/vendor-completions/_trace502"),
            ("fish", "trace502.fish", "share/fish/vendor_completions.d/trace502.fish"),
        ] {
            tree.put(target, &fs::read(parts.manual.join(place).join(name))?, 0o644)?;
        }
        for (source, target) in DOCS {
            tree.put(&format!("share/doc/trace502/{target}"), project(source)?.as_bytes(), 0o644)?;
        }
        if tree.is_system() {
            tree.put("/etc/trace502/agent.toml", parts.settings.as_bytes(), 0o644)?;
            tree.debian_docs()?;
        } else {
            tree.put("share/doc/trace502/agent.toml", parts.settings.as_bytes(), 0o644)?;
            for file in ["CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
                tree.put(&format!("share/doc/trace502/{file}"), project(file)?.as_bytes(), 0o644)?;
            }
        }
        Ok(tree)
    }

    /// Debian has its own names for changelog and licence.
    fn debian_docs(&self) -> Result<()> {
        let overrides = project("deploy/debian/lintian-overrides")?;
        self.put("share/lintian/overrides/trace502", overrides.as_bytes(), 0o644)?;
        let changes = archive::gzip(project("CHANGELOG.md")?.as_bytes())?;
        self.put("share/doc/trace502/changelog.gz", &changes, 0o644)?;
        let changes = archive::gzip(super::deb::changelog()?.as_bytes())?;
        self.put("share/doc/trace502/changelog.Debian.gz", &changes, 0o644)?;
        let mut copyright = project("deploy/debian/copyright")?;
        // The words of the licence itself, as such a file has them: indented, empty lines as a dot.
        for line in project("LICENSE-MIT")?.lines().skip_while(|line| !line.starts_with("Permission")) {
            copyright.push_str(&format!(" {}\n", if line.is_empty() { "." } else { line }));
        }
        copyright.push_str(
            "\nLicense: Apache-2.0\n On Debian systems the whole licence is in\n /usr/share/common-licenses/Apache-2.0.\n",
        );
        self.put("share/doc/trace502/copyright", copyright.as_bytes(), 0o644)
    }

    fn is_system(&self) -> bool {
        self.prefix == "/usr"
    }

    /// A path that begins with a slash is no part of the prefix.
    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let file = match path.strip_prefix('/') {
            Some(path) => self.root.join(path),
            None if self.is_system() => self.root.join("usr").join(path),
            None => self.root.join(path),
        };
        let folder = file.parent().context("a file without a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Every file, relative to the root, in order.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for path in list(&folder)? {
                if path.is_dir() { folders.push(path) } else { files.push(path.strip_prefix(&self.root)?.to_owned()) }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// A file of this project.
pub fn project(path: &str) -> Result<String> {
    let file = shell::root().join(path);
    fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
