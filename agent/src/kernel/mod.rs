//! Everything that asks the kernel what it is and what it allows, and (only here) loads programs into it.

pub mod btf;
pub mod capabilities;
pub mod findings;
pub mod offsets;
pub mod preflight;
pub mod report;
pub mod symbols;

#[cfg(test)]
pub(crate) mod tempdir;
