//! The kernel side of trace502: probes record facts; nothing here judges.
#![no_std]
#![no_main]
// Rust has no atomic operations that answer for BPF, which the instruction set has.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod client;
mod conn;
mod emit;
mod fastcgi;
mod flow;
mod h2;
mod head;
mod kernel;
mod maps;
mod peer;
mod places;
mod probes;
mod sealed;
mod secured;
mod story;
mod sum;
mod thread;
mod upstream;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
