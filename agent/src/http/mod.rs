//! The agent's own small HTTP server: metrics, health and a page for people. It answers GET and HEAD, reads no bodies,
//! and holds nothing that a slow or hostile client can fill.
//!
//! [`request`] parses, [`pages`] answers, [`access`] says who may ask, [`server`] moves the bytes.

mod access;
mod pages;
mod request;
mod server;
#[cfg(test)]
mod tests;

pub use access::{Access, AccessError};
pub use pages::{Recent, Site};
pub use server::{Door, bind, serve};
