//! trace502: the precise low-level cause of every gateway error of a reverse proxy.
//!
//! The picture of how these rooms hang together is in ARCHITECTURE.md.

pub mod cli;
pub mod commands;
pub mod config;
pub mod decode;
pub mod digest;
pub mod filter;
pub mod history;
pub mod host;
pub mod http;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod report;
pub mod screen;
pub mod status;
pub mod text;
pub mod when;
