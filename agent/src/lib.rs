//! trace502: the precise low-level cause of every gateway error of a reverse proxy.
//!
//! The picture of how these rooms hang together is in ARCHITECTURE.md.

pub mod decode;
pub mod host;
pub mod kernel;
pub mod logs;
pub mod model;
pub mod recording;
