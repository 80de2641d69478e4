//! `cargo xtask dist`: what users install: a Debian package, and a tarball for everything else.
//!
//! One tree of files is laid out for a prefix, and packed twice.
pub mod archive;
pub mod deb;
pub mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tools::Group;
use crate::{build, setup, shell};
use tree::Tree;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds and packs; by default into cargo's target folder.
pub fn run(out: Option<&Path>) -> Result<()> {
    setup::quietly(&[Group::Build])?;
    let program = build::trace502(true)?;
    let work = shell::target()?.join("dist");
    let manual = work.join("manual");
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--package", "trace502", "--example", "manual", "--"]).arg(&manual);
    shell::run(&mut cargo)?;
    let out = out.map_or(work.clone(), Path::to_path_buf);
    for file in pack(&program, &manual, &out)? {
        println!("{}", file.display());
    }
    fs::remove_dir_all(manual)?;
    Ok(())
}

/// Packs a program that is built, with the pages and completions in `manual`; the files made.
pub fn pack(program: &Path, manual: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let work = out.join("work");
    let _ = fs::remove_dir_all(&work);
    let parts = tree::Parts { program, manual, settings: &settings(program)? };
    let deb = deb::pack(&Tree::lay(&work.join("deb"), "/usr", &parts)?, program, out)?;
    let top = format!("trace502-{VERSION}-{}-linux", std::env::consts::ARCH);
    Tree::lay(&work.join("tar").join(&top), "/usr/local", &parts)?;
    let tarball = out.join(format!("{top}.tar.gz"));
    archive::tar_gz(&work.join("tar"), &top, &tarball)?;
    fs::remove_dir_all(&work)?;
    Ok(vec![deb, tarball])
}

/// A file with every setting at its default, commented out, as the program itself prints them.
fn settings(program: &Path) -> Result<String> {
    let printed = shell::capture(Command::new(program).args(["agent", "--config", "/dev/null", "--print-config"]))?;
    let mut text = String::from("# Read by `trace502 agent`; `trace502 agent --check` looks for mistakes.\n");
    for line in printed.lines() {
        let line = line.trim_end_matches("  # default");
        let comment = if line.is_empty() || line.starts_with('#') { "" } else { "#" };
        text.push_str(&format!("{comment}{line}\n"));
    }
    Ok(text)
}
