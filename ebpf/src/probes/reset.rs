//! Resets: received by a tracked socket, sent by a stack of this host to a known upstream's side.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use trace502_ebpf::*;

use crate::kernel::{self, Ptr, Skb, Sock};
use crate::maps::{TARGETS, constant};
use crate::probes::{state, tls};
use crate::{conn, emit, flow};

// void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn reset_received(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    let Some(conn) = conn::get(sk) else { return 0 };
    match conn.role {
        ROLE_UPSTREAM => {
            conn.reset = emit::now();
            conn.flags |= CONN_RESET;
            conn.last_state = sk.state();
        }
        ROLE_CLIENT => {
            conn.reset = emit::now();
            state::left(sk, conn);
            if conn.bound != 0 {
                peer_reset(conn);
            }
        }
        ROLE_SECURED | ROLE_H2 => {
            conn.reset = emit::now();
            tls::left(sk, conn);
        }
        ROLE_PEER => peer_reset(conn),
        _ => {}
    }
    0
}

#[inline(always)]
fn peer_reset(conn: &Conn) {
    if let Some(upstream) = flow::linked(conn.bound) {
        upstream.peer.flags |= PEER_GOT_RESET;
    }
}

// void tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable, const enum sk_rst_reason reason)
// Before 6.10 without the reason.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn reset_sent(ctx: BtfTracePointContext) -> i32 {
    let sk: Ptr = ctx.arg(0);
    let skb: Ptr = ctx.arg(1);
    let reason: u32 = if constant!(SETTINGS.reset_reason) != 0 { ctx.arg(2) } else { 0 };
    let mut tuple = Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: 0 };
    let mut answers = false;
    if !skb.is_null()
        && let Some(packet) = Skb(skb).packet()
    {
        // The packet that is answered: its sender is the reset's receiver.
        tuple = kernel::mirror(&packet.tuple);
        tuple.netns = Skb(skb).netns();
        answers = true;
    }
    if !answers {
        if sk.is_null() || !flow::is_dialled(kernel::local_port(sk)) {
            return 0;
        }
        kernel::tuple(sk, &mut tuple);
    }
    if !is_target(tuple.local, tuple.local_port) {
        return 0;
    }
    flow::reset(&tuple, reason);
    emit::record::<FlowRecord>(Kind::ResetSent, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::ResetSent as u16, 0, size_of::<FlowRecord>());
        record.tuple = tuple;
        record.cookie = 0;
        record.location = 0;
        record.reason = reason;
        record.request = 0;
        record.state = if sk.is_null() { 0 } else { kernel::state_at(sk as u64) };
        record.tcp_flags = 0;
        record.has_socket = !sk.is_null() as u8;
        record._pad = [0; 5];
    });
    0
}

/// Whether a proxy dialled this address lately.
#[inline(always)]
pub fn is_target(addr: [u8; 16], port: u16) -> bool {
    let key = Target { addr, port, _pad: [0; 6] };
    flow::is_dialled(port) && TARGETS.get_ptr(&key).is_some()
}
