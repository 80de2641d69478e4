//! One agent a host: two would count everything twice. A second one says who runs, or takes a name of its own.
//!
//! The claim is an abstract socket: the kernel takes it back whatever way the process ends.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error(
        "an agent runs already (pid {pid}); stop it, or give this one a name with --instance NAME, \
         its own --listen and its own --history"
    )]
    Running { pid: i32 },
    #[error("cannot claim the name {name}: {source}")]
    Claim { name: String, source: io::Error },
}

/// Held for as long as the agent runs.
#[derive(Debug)]
pub struct Instance {
    _claim: Option<UnixListener>,
}

impl Instance {
    pub fn claim(name: Option<&str>) -> Result<Instance, InstanceError> {
        let name = format!("trace502-agent{}{}", if name.is_some() { "-" } else { "" }, name.unwrap_or_default());
        let failed = |source| InstanceError::Claim { name: name.clone(), source };
        let addr = SocketAddr::from_abstract_name(&name).map_err(failed)?;
        match UnixListener::bind_addr(&addr) {
            Ok(claim) => Ok(Instance { _claim: Some(claim) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&addr) {
                Some((pid, uid)) if uid == own_uid() || uid == 0 => Err(InstanceError::Running { pid }),
                // Anybody may take a name; only one of us is believed.
                Some((pid, uid)) => {
                    crate::journal::warn(&format!("pid {pid} of user {uid} holds the name {name} and is no agent"));
                    Ok(Instance { _claim: None })
                }
                None => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }
}

fn own_uid() -> u32 {
    // SAFETY: takes nothing, returns a number, cannot fail.
    unsafe { libc::geteuid() }
}

/// Process and user that listen on this name.
fn holder(addr: &SocketAddr) -> Option<(i32, u32)> {
    let stream = UnixStream::connect_addr(addr).ok()?;
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    let target = (&raw mut who).cast();
    // SAFETY: the kernel writes at most `length` bytes into a struct of that size.
    let result =
        unsafe { libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, target, &mut length) };
    (result == 0).then_some((who.pid, who.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_runs() {
        let name = format!("test-{}", std::process::id());
        let first = Instance::claim(Some(&name)).unwrap();
        let said = Instance::claim(Some(&name)).unwrap_err().to_string();
        assert!(said.contains(&format!("(pid {})", std::process::id())) && said.contains("--instance NAME"), "{said}");
        Instance::claim(Some(&format!("{name}-b"))).expect("another name is free");
        drop(first);
        Instance::claim(Some(&name)).expect("free again");
    }
}
