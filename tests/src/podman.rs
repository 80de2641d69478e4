//! Real containers without a registry: podman runs them from folders that hold a program of this host, its libraries
//! and a shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::guard::{self, output, tool};
use crate::netns::Netns;

/// Podman with a store of its own; its containers end on drop.
pub struct Podman {
    dir: PathBuf,
}

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    pub name: String,
    pub id: String,
    /// Its first process, as this host numbers it.
    pub pid: u32,
}

/// What is missing to run containers here.
pub fn missing() -> Option<&'static str> {
    let here = |name: &str| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok();
    ["podman", "runc"].into_iter().find(|name| !here(name))
}

impl Podman {
    /// Everything that podman keeps is kept below `dir`.
    pub fn new(dir: &Path) -> Result<Podman> {
        let dir = dir.join("podman");
        fs::create_dir_all(&dir)?;
        Ok(Podman { dir })
    }

    fn call(&self, args: &[&str]) -> Result<String> {
        let place = |name: &str| self.dir.join(name).display().to_string();
        let (store, run, tmp) = (place("store"), place("run"), place("tmp"));
        let ours = ["--root", &store, "--runroot", &run, "--tmpdir", &tmp, "--storage-driver", "vfs"];
        // crun refuses hosts on which both versions of control groups are mounted; runc runs everywhere.
        let rest = ["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"];
        let mut podman = Command::new("podman");
        // Its monitor leaves a file where it was started.
        podman.args(ours).args(rest).args(args).current_dir(&self.dir);
        output(&mut podman)
    }

    /// Runs a program in a container with a root of its own, the network of `netns`, and this much memory.
    pub fn run(&self, name: &str, root: &Root, netns: &Netns, memory: &str, command: &[&str]) -> Result<Container> {
        let network = format!("ns:/run/netns/{}", netns.name());
        let rootfs = root.0.display().to_string();
        let args = ["--network", &network, "--memory", memory, "--rootfs", &rootfs];
        self.start(name, &[&args, command].concat())
    }

    /// Runs a container with these arguments of `podman run`: flags, what to run, and its own arguments.
    pub fn start(&self, name: &str, more: &[&str]) -> Result<Container> {
        // A later run finds by this name what a killed one left.
        let group = format!("/{}", guard::prefix());
        let (files, processes) = (ulimit("nofile", libc::RLIMIT_NOFILE), ulimit("nproc", libc::RLIMIT_NPROC));
        // Podman would raise limits above ours, and mount memory for its containers to share.
        let ours = ["--ulimit", &files, "--ulimit", &processes, "--ipc", "host", "--cgroup-parent", &group];
        let args = [&["run", "--detach", "--name", name], &ours[..], more].concat();
        let id = self.call(&args)?.trim().to_owned();
        let pid = self.call(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        Ok(Container { name: name.to_owned(), id, pid: pid.trim().parse().context("podman names no process")? })
    }

    /// Builds an image from a recipe whose `BASE` is this root; `context` is what it copies from.
    pub fn build(&self, recipe: &Path, root: &Root, context: &Path, tag: &str) -> Result<()> {
        let base = self.dir.join("base.tar").display().to_string();
        tool("tar", &["--create", "--file", &base, "--directory", &root.0.display().to_string(), "."])?;
        self.call(&["import", "--quiet", &base, "localhost/base"])?;
        let (recipe, context) = (recipe.display().to_string(), context.display().to_string());
        let base = ["--build-arg", "BASE=localhost/base", "--pull=never"];
        self.call(&[&["build", "--quiet", "--file", &recipe, "--tag", tag], &base[..], &[&context]].concat()).map(drop)
    }

    /// What podman knows of a container, by a template.
    pub fn inspect(&self, container: &Container, template: &str) -> Result<String> {
        self.call(&["inspect", "--format", template, &container.id]).map(|text| text.trim().to_owned())
    }

    pub fn logs(&self, container: &Container) -> String {
        self.call(&["logs", &container.id]).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
    }
}

fn ulimit(name: &str, resource: libc::__rlimit_resource_t) -> String {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call.
    unsafe { libc::getrlimit(resource, &mut limit) };
    let most = limit.rlim_max.min(1024);
    format!("{name}={most}:{most}")
}

/// A root file system for a container.
pub struct Root(PathBuf);

impl Root {
    /// With busybox as its shell, and what these programs need to run.
    pub fn new(dir: PathBuf, programs: &[PathBuf]) -> Result<Root> {
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "var/log"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let root = Root(dir);
        root.write("etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")?;
        root.write("etc/group", "root:x:0:\nwww-data:x:33:\n")?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.is_file());
        fs::copy(busybox.context("busybox is not installed")?, root.0.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", root.0.join("bin/sh"))?;
        for program in programs {
            let name = program.file_name().context("a program without a name")?;
            fs::copy(program, root.0.join("bin").join(name)).with_context(|| format!("no {}", program.display()))?;
            for library in libraries(program)? {
                let inside = root.0.join(library.trim_start_matches('/'));
                fs::create_dir_all(inside.parent().unwrap_or(&root.0))?;
                fs::copy(&library, inside)?;
            }
        }
        Ok(root)
    }

    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.join(path), text)?)
    }
}

/// What the loader would map for a program, itself included.
fn libraries(program: &Path) -> Result<Vec<String>> {
    // Cargo points the loader at its own libraries.
    let output = Command::new("ldd").arg(program).env_remove("LD_LIBRARY_PATH").output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().flat_map(|line| line.split_whitespace());
    Ok(words.filter(|word| word.starts_with('/') && !word.ends_with(':')).map(str::to_owned).collect())
}
