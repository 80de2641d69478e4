//! The half of the kernel side that user space shares: what goes through the ring buffer and into the maps.
#![no_std]

mod abi;

pub use abi::*;
