//! What the service manager is told: ready, alive, reloading, stopping (the protocol of sd_notify).
//!
//! Without a manager every call does nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_env() -> Notifier {
        let get = |name: &str| std::env::var(name).ok();
        Notifier::new(get("NOTIFY_SOCKET"), get("WATCHDOG_USEC"), get("WATCHDOG_PID"), std::process::id())
    }

    fn new(socket: Option<String>, usec: Option<String>, pid: Option<String>, own: u32) -> Notifier {
        let to = socket.and_then(|name| open(&name).ok());
        // A watchdog meant for another process is none for us.
        let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
        let watchdog = usec.filter(|_| ours).and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
        Notifier { to, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often the manager must hear that we are alive: twice as often as it asks for.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|every| every / 2).filter(|_| self.to.is_some())
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// To be followed by [`Notifier::ready`].
    pub fn reloading(&self) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call only writes the struct that we own.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some((socket, to)) = &self.to {
            // A manager that does not listen is its own problem.
            let _ = socket.send_to_addr(state.as_bytes(), to);
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that hangs must not hang us.
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.to_str().map(Into::into), Some("10000000".into()), None, 1);
        assert_eq!(notifier.watchdog(), Some(Duration::from_secs(5)));
        notifier.ready("a\nb");
        assert_eq!(text(&manager), "READY=1\nSTATUS=a b");
        notifier.alive();
        assert_eq!(text(&manager), "WATCHDOG=1");
        notifier.reloading();
        assert!(text(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notifier.stopping();
        assert_eq!(text(&manager), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_works_too() {
        let name = format!("trace502-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(Some(format!("@{name}")), None, None, 1).alive();
        assert_eq!(text(&manager), "WATCHDOG=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let nobody = Notifier::new(None, Some("1000".into()), None, 1);
        assert_eq!(nobody.watchdog(), None);
        nobody.ready("x");
        let another = Notifier::new(Some("@nobody-there".into()), Some("1000".into()), Some("2".into()), 1);
        assert_eq!(another.watchdog(), None);
        another.ready("x");
    }
}
