//! What the program talks about: plain data, no I/O, no judgement.
//!
//! [`observation`] is what the kernel said, [`incident`] what we make of it.

pub mod incident;
pub mod observation;

pub use incident::*;
pub use observation::*;
