//! Packets of known upstreams that this host dropped, in either direction.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use trace502_ebpf::*;

use crate::emit;
use crate::kernel::Skb;
use crate::maps::SETTINGS;
use crate::probes::reset::is_target;

// void kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)
// Since 6.11 with the receiving socket as a fourth argument. Only drops come here: consume_skb() has its own hook.
#[btf_tracepoint(function = "kfree_skb")]
pub fn dropped(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if !is_news(reason) {
        return 0;
    }
    let Some(packet) = Skb(ctx.arg(0)).packet() else { return 0 };
    let mut tuple = packet.tuple;
    if !is_target(tuple.remote, tuple.remote_port) && !is_target(tuple.local, tuple.local_port) {
        return 0;
    }
    tuple.netns = Skb(ctx.arg(0)).netns();
    let location: u64 = ctx.arg(1);
    emit::record::<FlowRecord>(Kind::Drop, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::Drop as u16, 0, size_of::<FlowRecord>());
        record.tuple = tuple;
        record.cookie = 0;
        record.location = location;
        record.reason = reason;
        record.request = 0;
        record.state = 0;
        record.tcp_flags = packet.flags;
        record.has_socket = 0;
        record._pad = [0; 5];
    });
    0
}

/// Whether a drop for this reason says more than that a connection ended.
#[inline(always)]
fn is_news(reason: u32) -> bool {
    // SAFETY: a constant table; the index is masked to its length.
    let word =
        unsafe { core::ptr::read_volatile((&raw const SETTINGS.drops).cast::<u64>().add((reason as usize >> 6) & 3)) };
    reason < 256 && word >> (reason & 63) & 1 != 0
}
