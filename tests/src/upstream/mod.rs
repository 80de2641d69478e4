//! The lab's own upstream: a server whose every listener misbehaves in one exactly known way.
//!
//! It runs as a process of its own (`bin/upstream.rs`), so that it has a pid to be named, killed and traced.

pub mod conduct;
pub mod death;
pub mod dns;
pub mod far;
pub mod socket;

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use conduct::Conduct;
use socket::{Listener, Stream};

/// `ADDRESS=CONDUCT`, where the address is `ip:port` or a path.
pub fn serve(specs: &[String]) -> Result<()> {
    let mut listeners = Vec::new();
    for spec in specs {
        let (address, conduct) = spec.split_once('=').with_context(|| format!("{spec:?} is not ADDRESS=CONDUCT"))?;
        let conduct: Conduct = conduct.parse()?;
        let listener =
            Listener::bind(address, conduct.backlog()).with_context(|| format!("cannot listen on {address}"))?;
        if conduct.narrow() {
            listener.shrink_receive_buffers().context("cannot make a listener's buffers small")?;
        }
        listeners.push((listener, conduct));
    }
    // One listener: the process has one thread, as many small applications have, and its state is that of the request.
    if let [(listener, conduct)] = &listeners[..]
        && conduct.serial()
    {
        return accept_all(listener, |stream| conduct.serve(stream));
    }
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|(listener, conduct)| {
            std::thread::spawn(move || {
                accept_all(&listener, |stream| {
                    let conduct = conduct.clone();
                    std::thread::spawn(move || conduct.serve(stream));
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a listener's thread panicked"))??;
    }
    Ok(())
}

fn accept_all(listener: &Listener, mut serve: impl FnMut(Stream)) -> Result<()> {
    if listener.backlog_only {
        // Keeps listening and never accepts.
        loop {
            // SAFETY: pause takes nothing.
            unsafe { libc::pause() };
        }
    }
    loop {
        // SAFETY: a listening descriptor that lives as long as the borrow; no address is asked for.
        let fd = unsafe {
            libc::accept4(listener.fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
        };
        match Stream::from_accept(fd) {
            Ok(stream) => serve(stream),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Shut down on purpose: the process ends when its connections have.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => loop {
                // SAFETY: pause takes nothing.
                unsafe { libc::pause() };
            },
            Err(error) => return Err(error).context("accept"),
        }
    }
}
