//! What the program talks about: plain data, no I/O, no judgement.
//!
//! [`observation`] is what the kernel said, [`incident`] what we make of it.

mod group;
pub mod incident;
pub mod observation;
mod proxy_word;

pub use group::{GroupPath, PREFIX as GROUP_PREFIX};
pub use incident::*;
pub use observation::*;
pub use proxy_word::ProxyWord;
