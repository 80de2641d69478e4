//! Names that a proxy asks for: of whom, and what the answer says.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use trace502::model::*;
use trace502::wire::dns::{self, Message};

use crate::namespace::with_loopback;
use crate::rig::*;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
const NXDOMAIN: u8 = 3;

/// A question for the address of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The same message as an answer with this code and no records.
fn answer(question: &[u8], rcode: u8) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | rcode;
    message
}

fn told(rig: &mut Rig, id: u16, received: bool) -> (Dns, Message) {
    rig.wait(&format!("DNS message {id} (received: {received})"), |seen| match &seen.fact {
        Fact::Dns(found) if found.received == received => {
            let message = dns::message(&found.message)?;
            (message.id == id).then(|| (found.clone(), message))
        }
        _ => None,
    })
}

#[test]
fn a_name_that_is_asked_for_is_told_with_its_server_and_the_answer() {
    let mut rig = rig();
    with_loopback(|| {
        let server = UdpSocket::bind(SERVER).unwrap();
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        resolver.connect(SERVER).unwrap();
        resolver.send(&question(4711, "shop.internal.example")).unwrap();
        let mut room = [0; 512];
        let (len, from) = server.recv_from(&mut room).unwrap();
        server.send_to(&answer(&room[..len], NXDOMAIN), from).unwrap();
        resolver.recv(&mut room).unwrap();
    });
    let (asked, message) = told(&mut rig, 4711, false);
    assert_eq!(asked.server, SERVER);
    assert_eq!(message.name, "shop.internal.example");
    let (answered, message) = told(&mut rig, 4711, true);
    assert_eq!((answered.server, answered.local), (SERVER, asked.local));
    assert_eq!((message.name.as_str(), message.rcode), ("shop.internal.example", NXDOMAIN));
}

#[test]
fn a_question_without_an_answer_is_told_alone() {
    let mut rig = rig();
    with_loopback(|| {
        let _server = UdpSocket::bind(SERVER).unwrap();
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        resolver.connect(SERVER).unwrap();
        resolver.send(&question(4712, "silent.example")).unwrap();
    });
    told(&mut rig, 4712, false);
    let answers = rig.told().iter().filter(|seen| matches!(&seen.fact, Fact::Dns(dns) if dns.received)).count();
    assert_eq!(answers, 0);
}

#[test]
fn a_resolver_that_does_not_connect_its_socket_is_seen_too() {
    let mut rig = rig();
    with_loopback(|| {
        let server = UdpSocket::bind(SERVER).unwrap();
        // As musl does.
        let resolver = UdpSocket::bind("0.0.0.0:0").unwrap();
        resolver.send_to(&question(4713, "alpine.example"), SERVER).unwrap();
        let mut room = [0; 512];
        let (len, from) = server.recv_from(&mut room).unwrap();
        server.send_to(&answer(&room[..len], NXDOMAIN), from).unwrap();
        resolver.recv_from(&mut room).unwrap();
    });
    let (asked, message) = told(&mut rig, 4713, false);
    assert_eq!((asked.server, message.name.as_str()), (SERVER, "alpine.example"));
    let (answered, message) = told(&mut rig, 4713, true);
    assert_eq!((answered.server, message.rcode), (SERVER, NXDOMAIN));
}

#[test]
fn what_others_ask_is_not_told() {
    let mut rig = rig();
    rig.plays_no_proxy(|| {
        with_loopback(|| {
            let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
            resolver.connect(SERVER).unwrap();
            resolver.send(&question(4714, "private.example")).unwrap();
        });
    });
    let asked = rig.told().iter().filter(|seen| matches!(seen.fact, Fact::Dns(_))).count();
    assert_eq!(asked, 0);
}
