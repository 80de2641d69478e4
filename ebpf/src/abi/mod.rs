//! What both sides of the ring buffer agree on: record layouts, the offsets table and the settings.
//!
//! No logic. Every record starts with a [`Header`]; sizes are asserted below so that a change of
//! layout is a change of [`ABI`], which a recording carries in its first bytes.

mod conn;
mod kind;
mod record;
mod settings;
mod thread;

pub use conn::*;
pub use kind::*;
pub use record::*;
pub use settings::*;
pub use thread::*;

/// Version of every layout in this room.
pub const ABI: u32 = 1;

/// Bytes kept of a request and of an answer.
pub const HEAD: usize = 256;
/// Fewer do not tell a status, so that many are looked at whatever shall be kept.
pub const LEAST_HEAD: usize = 24;
/// Bytes kept of a DNS message: enough for any name and the header.
pub const DNS: usize = 288;
/// `sun_path` of the kernel.
pub const PATH: usize = 108;
/// `TASK_COMM_LEN` of the kernel.
pub const COMM: usize = 16;

const _: () = {
    // One number has both.
    assert!(PROC_ALL & CLASS_FRAMES == 0);
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Conn>() == 160 + 2 * HEAD);
    assert!(size_of::<Tcp>() == 32);
    assert!(size_of::<Peer>() == 48);
    assert!(size_of::<Listener>() == 24);
    assert!(size_of::<ConnRecord>().is_multiple_of(8));
    assert!(size_of::<ConnectRecord>().is_multiple_of(8));
    assert!(size_of::<FlowRecord>().is_multiple_of(8));
    assert!(size_of::<ListenRecord>().is_multiple_of(8));
    assert!(size_of::<TaskRecord>().is_multiple_of(8));
    assert!(size_of::<DnsRecord>().is_multiple_of(8));
};
