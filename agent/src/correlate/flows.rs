//! Resets that stacks of this host sent and packets that they dropped, by flow, for some minutes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use crate::model::{Flow, Nanos, Packet};
use crate::text::SECOND;

/// Longer than any usual connect timeout.
const MEMORY: Nanos = 180 * SECOND;
const FLOWS: usize = 16_384;
const PER_FLOW: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Reset,
    Drop,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Nanos,
    what: What,
    packet: Packet,
}

/// Receiver first, so that all that went to one address lie together.
type Ends = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub struct Flows {
    packets: BTreeMap<Ends, Vec<Seen>>,
    order: VecDeque<(Nanos, Ends)>,
    /// Packets that were not kept or forgotten too early.
    pub overflow: u64,
}

impl Flows {
    pub fn reset(&mut self, at: Nanos, packet: &Packet) {
        self.add(at, What::Reset, packet);
    }

    pub fn dropped(&mut self, at: Nanos, packet: &Packet) {
        self.add(at, What::Drop, packet);
    }

    fn add(&mut self, at: Nanos, what: What, packet: &Packet) {
        let ends = (packet.flow.remote, packet.flow.local);
        let seen = self.packets.entry(ends).or_default();
        if seen.len() >= PER_FLOW {
            // The first ones say why; of the last ones only the newest is of use.
            seen.pop();
            self.overflow += 1;
        }
        seen.push(Seen { at, what, packet: packet.clone() });
        self.order.push_back((at, ends));
        while self.order.len() > FLOWS {
            self.overflow += 1;
            self.forget_first();
        }
    }

    /// Resets that the other end of this flow, or the stack in its name, sent since then.
    pub fn resets_to(&self, flow: &Flow, since: Nanos) -> impl Iterator<Item = (Nanos, &Packet)> {
        self.of((flow.local, flow.remote), flow, since, What::Reset)
    }

    /// Resets that anybody sent to this address since then.
    pub fn resets_toward(&self, to: SocketAddr, since: Nanos) -> impl Iterator<Item = (Nanos, &Packet)> {
        let lowest = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let seen = self.packets.range((to, lowest)..).take_while(move |(ends, _)| ends.0 == to);
        let seen = seen.flat_map(|(_, seen)| seen).filter(move |s| s.what == What::Reset && s.at >= since);
        seen.map(|s| (s.at, &s.packet))
    }

    /// Resets that this end sent.
    pub fn resets_from(&self, flow: &Flow, since: Nanos) -> impl Iterator<Item = (Nanos, &Packet)> {
        self.of((flow.remote, flow.local), flow, since, What::Reset)
    }

    /// Packets of either direction that this host dropped.
    pub fn drops(&self, flow: &Flow, since: Nanos) -> impl Iterator<Item = (Nanos, &Packet)> {
        let out = self.of((flow.local, flow.remote), flow, since, What::Drop);
        out.chain(self.of((flow.remote, flow.local), flow, since, What::Drop))
    }

    fn of(&self, ends: Ends, flow: &Flow, since: Nanos, what: What) -> impl Iterator<Item = (Nanos, &Packet)> {
        let netns = flow.netns;
        // Loopback addresses exist in every namespace; others may be seen from both ends' namespaces.
        let own = flow.local.ip().is_loopback() && netns != 0;
        let seen = self.packets.get(&ends).into_iter().flatten();
        let seen = seen.filter(move |s| s.what == what && s.at >= since);
        let seen = seen.filter(move |s| !own || s.packet.flow.netns == 0 || s.packet.flow.netns == netns);
        seen.map(|s| (s.at, &s.packet))
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        while self.order.front().is_some_and(|(at, _)| *at < before) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((at, ends)) = self.order.pop_front() else { return };
        if let Some(seen) = self.packets.get_mut(&ends) {
            seen.retain(|s| s.at > at);
            if seen.is_empty() {
                self.packets.remove(&ends);
            }
        }
    }
}
