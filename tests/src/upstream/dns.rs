//! A name server with few answers: what a name resolves to is in the name.

use std::net::UdpSocket;

use anyhow::{Context, Result};

/// `nx.*` does not exist, `fail.*` is a server failure, `mute.*` gets no answer, all other names are addresses that the
/// arguments give as `name=address`.
pub fn serve(address: &str, names: &[String]) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot serve names on {address}"))?;
    let mut query = [0; 1500];
    loop {
        let (length, client) = socket.recv_from(&mut query)?;
        if let Some(answer) = answer(&query[..length], names) {
            // A client that is gone does not matter.
            let _ = socket.send_to(&answer, client);
        }
    }
}

const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

fn answer(query: &[u8], names: &[String]) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let address = names.iter().find_map(|known| {
        let (key, address) = known.split_once('=')?;
        (key == name).then_some(address)
    });
    let data = match address.map(str::parse::<std::net::IpAddr>) {
        Some(Ok(std::net::IpAddr::V4(v4))) if kind == 1 => v4.octets().to_vec(),
        Some(Ok(std::net::IpAddr::V6(v6))) if kind == 28 => v6.octets().to_vec(),
        _ => Vec::new(),
    };
    let code = match name.split('.').next() {
        Some("mute") => return None,
        Some("fail") => SERVFAIL,
        _ if address.is_some() => 0,
        _ => NXDOMAIN,
    };
    let mut reply = query[..end + 4].to_vec();
    reply[2] = 0x85;
    reply[3] = 0x80 | code;
    reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    if !data.is_empty() {
        reply.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 1, 0, data.len() as u8]);
        reply.extend(data);
    }
    Some(reply)
}

/// The name asked for, and where its type begins.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    (query.len() >= at + 4).then(|| (labels.join("."), at))
}
