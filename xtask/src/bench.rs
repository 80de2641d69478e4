//! `cargo xtask bench`: hands over to the tests crate's program of that name. What is measured stands there.
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::lab;

pub fn run(quick: bool, json: Option<&Path>, only: &[String]) -> Result<()> {
    let mut args = Vec::new();
    if quick {
        args.push("--quick".to_owned());
    }
    if let Some(file) = json {
        let file = std::path::absolute(file)?;
        let file = file.to_str().context("the file for the figures needs a name in UTF-8")?;
        args.extend(["--json".to_owned(), file.to_owned()]);
    }
    for name in only {
        args.extend(["--only".to_owned(), name.clone()]);
    }
    lab::become_binary("bench", &args, "loading programs into the kernel and reading its counters")
}
