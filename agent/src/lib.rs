//! trace502: the precise low-level cause of every gateway error of a reverse proxy.
//!
//! The picture of how these rooms hang together is in ARCHITECTURE.md.

pub mod causes;
pub mod cli;
pub mod commands;
pub mod config;
pub mod correlate;
pub mod daemon;
pub mod decode;
pub mod digest;
pub mod filter;
pub mod history;
pub mod host;
pub mod http;
pub mod journal;
pub mod kernel;
pub mod logs;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod privilege;
pub mod proxies;
pub mod recording;
pub mod report;
pub mod screen;
pub mod sinks;
pub mod status;
pub mod text;
pub mod watch;
pub mod when;
pub mod wire;
