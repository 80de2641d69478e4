//! What was there before the agent: found without a restart of anything.

use std::io::{Read as _, Write as _};

use trace502::model::*;

use crate::rig::*;

#[test]
fn connections_and_listeners_that_exist_are_picked_up() {
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    read_some(&mut proxy);

    // A second agent starts only now. (The first sees all this too; its facts are not looked at.)
    let mut late = trace502::kernel::Kernel::load(&trace502::kernel::Options::default()).unwrap();
    late.track(std::process::id(), trace502_ebpf::PROC_PROXY).unwrap();
    late.find_existing();
    let mut ring = trace502::kernel::Ring::new(late.take_ring().unwrap());
    let mut seen = Vec::new();
    ring.drain(usize::MAX, |record| seen.push(trace502::decode::decode(record, &late.names).unwrap().fact));
    assert!(
        seen.iter().any(|fact| matches!(fact, Fact::Listening(found) if found.endpoint == Endpoint::Tcp(at))),
        "the listener is not among {seen:#?}"
    );

    proxy.write_all(REQUEST).unwrap();
    read_some(&mut upstream);
    abort(upstream);
    assert!(proxy.read(&mut [0; 16]).is_err());
    drop(proxy);
    seen.clear();
    ring.drain(usize::MAX, |record| seen.push(trace502::decode::decode(record, &late.names).unwrap().fact));
    let attempt = seen
        .iter()
        .find_map(|fact| match fact {
            Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(at) => Some(attempt),
            _ => None,
        })
        .expect("the attempt on a connection that existed before");
    assert!(attempt.conn.old && attempt.conn.reused && attempt.conn.reset.is_some());
    assert!(attempt.peer.as_ref().is_some_and(|peer| peer.sent_reset), "{attempt:?}");
}
