//! Real programs on this host: proxies written in Go, proxies that have no name, and an agent with few privileges.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

mod go;
mod privileges;
mod unnamed;
