//! trace502: the precise low-level cause of every gateway error of a reverse proxy.
//!
//! The picture of how these rooms hang together is in ARCHITECTURE.md.

pub mod digest;
pub mod filter;
pub mod host;
pub mod model;
pub mod screen;
pub mod text;
pub mod when;
