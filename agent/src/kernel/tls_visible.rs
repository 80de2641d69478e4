//! What could be seen of the TLS of a running proxy, told without hooking anything.

use super::go_program::{Programs, Purpose};
use super::tls_library::{Libraries, Library, Visible};

/// As the process stands now: a proxy that loads its library with its first certificate has none before.
pub fn visible(pid: u32) -> Visible {
    if let Some(library) = Libraries::default().of(pid).into_iter().find(Library::reads) {
        return Visible::Hooked(library.name);
    }
    let Some(go) = Programs::default().of(pid) else { return Visible::None };
    match go.places(Purpose::Tls) {
        Ok(places) if places.is_empty() => Visible::None,
        Ok(_) => Visible::Hooked(go.name()),
        Err(why) => Visible::Refused(why.to_string()),
    }
}
