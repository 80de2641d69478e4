//! Resets that stacks of this host sent and packets that they dropped, by flow, for some minutes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use super::recent::Recent;
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

#[derive(Debug)]
pub struct Flows {
    packets: BTreeMap<Ends, Vec<Seen>>,
    order: VecDeque<(Nanos, Ends)>,
    /// Connections of proxies by their ends and namespace, and ends that two namespaces have had at a time: private
    /// networks look the same from inside.
    owned: Recent<(Ends, u32)>,
    twins: Recent<Ends>,
    /// Packets that were not kept or forgotten too early.
    pub overflow: u64,
}

impl Default for Flows {
    fn default() -> Self {
        let (owned, twins) = (Recent::new(FLOWS), Recent::new(FLOWS));
        Flows { packets: BTreeMap::new(), order: VecDeque::new(), owned, twins, overflow: 0 }
    }
}

impl Flows {
    /// A proxy had this connection.
    pub fn own(&mut self, at: Nanos, flow: &Flow) {
        let ends = (flow.local, flow.remote);
        if flow.netns == 0 || flow.local.ip().is_loopback() || flow.local.port() == 0 {
            return;
        }
        self.owned.insert((ends, flow.netns), at);
        if self.owned.any_in((ends, 0)..=(ends, u32::MAX), |(_, netns)| *netns != flow.netns) {
            self.twins.insert(ends, at);
        }
    }

    pub fn reset(&mut self, at: Nanos, packet: Packet) {
        self.add(at, What::Reset, packet);
    }

    pub fn dropped(&mut self, at: Nanos, packet: Packet) {
        self.add(at, What::Drop, packet);
    }

    fn add(&mut self, at: Nanos, what: What, packet: Packet) {
        let ends = (packet.flow.remote, packet.flow.local);
        let seen = self.packets.entry(ends).or_default();
        if seen.len() >= PER_FLOW {
            // The first ones say why; of the last ones only the newest is of use.
            seen.pop();
            self.overflow += 1;
        }
        seen.push(Seen { at, what, packet });
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
    pub fn resets_toward(&self, flow: &Flow, since: Nanos) -> impl Iterator<Item = (Nanos, &Packet)> {
        let (to, own) = (flow.local, self.own_only(flow));
        let lowest = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let seen = self.packets.range((to, lowest)..).take_while(move |(ends, _)| ends.0 == to);
        let seen = seen.flat_map(|(_, seen)| seen).filter(move |s| s.what == What::Reset && s.at >= since);
        let seen = seen.filter(move |s| own.is_none_or(|netns| is_of(s, netns)));
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
        let own = self.own_only(flow);
        let seen = self.packets.get(&ends).into_iter().flatten();
        let seen = seen.filter(move |s| s.what == what && s.at >= since);
        let seen = seen.filter(move |s| own.is_none_or(|netns| is_of(s, netns)));
        seen.map(|s| (s.at, &s.packet))
    }

    /// The namespace that alone tells of this flow. Loopback addresses exist in every one; others may be seen from both
    /// ends' namespaces and what lies between, unless another namespace has the same: then that may be the other's.
    fn own_only(&self, flow: &Flow) -> Option<u32> {
        let twin = self.twins.get(&(flow.local, flow.remote)).is_some();
        (flow.netns != 0 && (twin || flow.local.ip().is_loopback())).then_some(flow.netns)
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        self.owned.forget_before(before);
        self.twins.forget_before(before);
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

fn is_of(seen: &Seen, netns: u32) -> bool {
    seen.packet.flow.netns == 0 || seen.packet.flow.netns == netns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::fixture::{addr, packet};

    const RESET: Option<&str> = Some("NO_SOCKET");

    fn flow(netns: u32) -> Flow {
        Flow { local: addr("10.0.0.2:40000"), remote: addr("10.0.0.3:80"), netns }
    }

    /// How many resets are told of this flow, and toward it, after one in the namespace `of`.
    fn told(flows: &mut Flows, of: u32) -> (usize, usize) {
        let own = flow(7);
        let sender = Flow { local: own.remote, remote: own.local, netns: of };
        flows.reset(1, packet(sender, RESET));
        (flows.resets_to(&own, 0).count(), flows.resets_toward(&own, 0).count())
    }

    #[test]
    fn what_the_other_ends_namespace_saw_is_told() {
        let mut flows = Flows::default();
        flows.own(1, &flow(7));
        assert_eq!(told(&mut flows, 9), (1, 1));
    }

    #[test]
    fn where_two_namespaces_have_the_same_addresses_only_its_own_tells_of_a_flow() {
        let mut flows = Flows::default();
        flows.own(1, &flow(7));
        flows.own(1, &flow(9));
        assert_eq!(told(&mut flows, 9), (0, 0), "it may be the other's");
        assert_eq!(told(&mut flows, 7), (1, 1));
        flows.expire(MEMORY + 2);
        assert_eq!(told(&mut flows, 9), (1, 1), "long ago");
    }
}
