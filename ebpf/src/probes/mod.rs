//! One hook family a file. Above each program stands the prototype of its hook, as the kernel has it.

mod cgroup;
mod connect;
mod drop;
pub mod go;
mod handshake;
mod listen;
mod payload;
mod process;
mod reset;
mod state;
mod tls;
