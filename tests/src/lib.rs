//! The lab: real proxies, real faults, and the truth to hold the agent's answers against.
//!
//! [`faults`] makes what goes wrong, [`proxies`] starts who suffers it, [`client`] sees what comes back, [`agent`] runs
//! the program under test, [`truth`] judges. Nothing here knows how the agent works.

pub mod agent;
pub mod bench;
pub mod cells;
pub mod certs;
pub mod cgroup;
pub mod client;
pub mod daemon;
pub mod exact;
pub mod faults;
pub mod guard;
pub mod load;
pub mod netns;
pub mod pace;
pub mod podman;
pub mod proxies;
pub mod recordings;
pub mod route;
pub mod secure_silence;
pub mod service;
pub mod silence;
pub mod truth;
pub mod upstream;
pub mod wheel;
pub mod world;
