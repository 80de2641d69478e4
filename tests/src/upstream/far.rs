//! A host that is not this one: packets leave through a TUN device, and what answers is no kernel of ours.
//!
//! By destination port: 1xxx refuses with a reset, 2xxx answers "administratively prohibited" as a router would,
//! 3xxx "host unreachable", anything else is swallowed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

const SYN: u8 = 0x02;
const RST_ACK: u8 = 0x14;

pub fn serve(device: &str) -> Result<()> {
    let mut tun = open(device)?;
    let mut packet = [0; 65536];
    loop {
        let length = tun.read(&mut packet)?;
        if let Some(answer) = answer(&packet[..length]) {
            // Refused when the device is down: nothing to do about it here.
            let _ = tun.write_all(&answer);
        }
    }
}

fn open(device: &str) -> Result<File> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF takes an ifreq, which outlives the call.
    let ret = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    anyhow::ensure!(ret == 0, "cannot attach to {device}: {}", std::io::Error::last_os_error());
    Ok(tun)
}

fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.first()? >> 4 != 4 || *packet.get(9)? != 6 {
        return None;
    }
    let head = usize::from(packet[0] & 15) * 4;
    let tcp = packet.get(head..)?;
    if tcp.len() < 20 || tcp[13] & SYN == 0 {
        return None;
    }
    match u16::from_be_bytes([tcp[2], tcp[3]]) / 1000 {
        1 => Some(reset(packet, tcp)),
        2 => Some(unreachable(packet, head, 13)),
        3 => Some(unreachable(packet, head, 1)),
        _ => None,
    }
}

fn reset(packet: &[u8], tcp: &[u8]) -> Vec<u8> {
    let mut segment = [0u8; 20];
    segment[0..2].copy_from_slice(&tcp[2..4]);
    segment[2..4].copy_from_slice(&tcp[0..2]);
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    segment[8..12].copy_from_slice(&(sequence.wrapping_add(1)).to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = RST_ACK;
    let mut pseudo = packet[16..20].to_vec();
    pseudo.extend(&packet[12..16]);
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(segment);
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    datagram(&packet[16..20], &packet[12..16], 6, &segment)
}

/// ICMP destination unreachable, with the head of the packet it is about.
fn unreachable(packet: &[u8], head: usize, code: u8) -> Vec<u8> {
    let mut message = vec![3, code, 0, 0, 0, 0, 0, 0];
    message.extend(&packet[..(head + 8).min(packet.len())]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    datagram(&packet[16..20], &packet[12..16], 1, &message)
}

fn datagram(from: &[u8], to: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut head = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    head[2..4].copy_from_slice(&length.to_be_bytes());
    head.extend(from);
    head.extend(to);
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    head.extend(payload);
    head
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
