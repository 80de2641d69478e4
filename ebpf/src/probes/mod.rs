//! One hook family a file. Above each program stands the prototype of its hook, as the kernel has it.

mod cgroup;
mod connect;
mod drop;
mod go;
mod listen;
mod payload;
mod process;
mod reset;
mod state;
mod tls;
