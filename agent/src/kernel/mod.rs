//! Everything that asks the kernel what it is and what it allows, and (only here) loads programs into it.

mod attach;
mod boring_calls;
mod boring_code;
pub mod btf;
pub mod capabilities;
mod detach;
pub mod findings;
mod go_code;
mod go_functions;
mod go_program;
mod inside;
mod libc_connect;
mod load;
mod many;
pub mod offsets;
mod opened;
pub mod preflight;
pub mod probes;
mod program_info;
pub mod report;
mod ring;
pub mod symbols;
pub mod tells;
mod tls_calls;
pub mod tls_library;
pub mod tls_visible;
mod traffic;
mod understood;

#[cfg(test)]
pub(crate) mod tempdir;

pub use detach::leave_hooks;
pub use load::{CONNECTIONS, Kernel, LoadError, Options};
pub use ring::{Ring, Woken};
pub use traffic::{Connected, Times, Traffic};

/// The bytes of a record or a table that both sides agree on.
fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: callers pass repr(C) structures of integers without padding.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
