//! Everything that asks the kernel what it is and what it allows, and (only here) loads programs into it.

pub mod btf;
pub mod offsets;
