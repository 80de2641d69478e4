//! The project's tasks, one module each; `main.rs` only parses.
//!
//! A library as well, because the tests boot guests through [`vm`].
pub mod bench;
pub mod build;
pub mod dist;
pub mod lab;
pub mod licences;
pub mod lint;
pub mod packages;
pub mod setup;
pub mod shell;
pub mod test;
#[path = "../../agent/toolchain.rs"]
pub mod toolchain;
pub mod tools;
pub mod vm;
