//! What the kernel side says of real sockets, on this host and (the same binary) in virtual machines of other kernels.
//!
//! This process plays the proxy: it is tracked, it listens for clients, dials upstreams and writes errors.
//! Needs root. The tests share one set of probes and run one after the other.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod activated;
mod answers;
mod blind;
mod burst;
mod clients;
mod connects;
mod dns;
mod early;
mod edges;
mod existing;
mod firewall;
mod following;
mod found;
mod frames;
mod groups;
mod h2;
mod late;
mod limits;
mod memory;
mod namesakes;
mod namespace;
mod processes;
mod reconnects;
mod rig;
mod sealed;
mod sharing;
mod skipped;
mod tls;
mod turns;
mod upstreams;
mod uring;
