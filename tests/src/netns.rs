//! Network namespaces: where a firewall, a route or another address is needed, and where every port is free.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::guard::{self, tool};

/// A named namespace, removed on drop.
pub struct Netns {
    name: String,
    handle: Arc<OwnedFd>,
}

impl Netns {
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("{}-{role}", guard::prefix());
        tool("ip", &["netns", "add", &name])?;
        let handle = File::open(format!("/run/netns/{name}")).context("cannot open the namespace just made")?;
        let ns = Self { name, handle: Arc::new(handle.into()) };
        ns.run("ip", &["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn handle(&self) -> Arc<OwnedFd> {
        self.handle.clone()
    }

    /// Runs a tool inside.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend(args);
        tool("ip", &all)
    }

    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run("sysctl", &["-qw", &format!("{key}={value}")]).map(drop)
    }

    /// Loads an nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        let path = format!("/tmp/{}/{}.nft", guard::prefix(), self.name);
        std::fs::write(&path, script)?;
        self.run("nft", &["-f", &path]).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = tool("ip", &["netns", "del", &self.name]);
    }
}

/// The calling thread moves into the namespace, for good.
pub fn enter(handle: &OwnedFd) -> Result<()> {
    // SAFETY: setns on a descriptor that lives as long as the borrow.
    let ret = unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) };
    if ret < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot enter the network namespace: are you root?");
    }
    Ok(())
}

pub fn remove_where(wanted: &dyn Fn(&str) -> bool) {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str()
            && wanted(name)
        {
            let _ = tool("ip", &["netns", "del", name]);
        }
    }
}
