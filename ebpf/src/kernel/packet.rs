//! What a packet says of its flow.

use super::*;

/// A packet that a hook was given.
#[derive(Clone, Copy)]
pub struct Skb(pub Ptr);

/// Where a packet's TCP header says it comes from and goes to.
pub struct Packet {
    pub tuple: Tuple,
    pub flags: u8,
}

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;

impl Skb {
    /// Namespace of the device that it came in on or goes out by.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let dev: u64 = read_or_zero(self.0, offset!(skb_dev));
        if dev == 0 { 0 } else { inode_of(read_or_zero(dev as Ptr, offset!(dev_net))) }
    }

    /// The sender's view of a TCP packet; `None` for all others.
    #[inline(always)]
    pub fn packet(self) -> Option<Packet> {
        let head: u64 = read(self.0, offset!(skb_head))?;
        let network: u16 = read(self.0, offset!(skb_network))?;
        if head == 0 || network == 0 || network == u16::MAX {
            return None;
        }
        let ip = (head as Ptr).wrapping_add(network as usize);
        let first: u8 = read(ip, 0)?;
        let mut tuple = Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: 0 };
        let protocol = u16::from_be(read(self.0, offset!(skb_protocol))?);
        let tcp = if first >> 4 == 4 && (protocol == ETH_P_IP || protocol == 0) {
            if read::<u8>(ip, 9)? != IPPROTO_TCP {
                return None;
            }
            tuple.local = mapped(read(ip, 12)?);
            tuple.remote = mapped(read(ip, 16)?);
            ip.wrapping_add(((first & 15) as usize) * 4)
        } else if first >> 4 == 6 && (protocol == ETH_P_IPV6 || protocol == 0) {
            if read::<u8>(ip, 6)? != IPPROTO_TCP {
                return None;
            }
            tuple.local = read(ip, 8)?;
            tuple.remote = read(ip, 24)?;
            ip.wrapping_add(40)
        } else {
            return None;
        };
        tuple.local_port = u16::from_be(read(tcp, 0)?);
        tuple.remote_port = u16::from_be(read(tcp, 2)?);
        Some(Packet { tuple, flags: read(tcp, 13)? })
    }
}
