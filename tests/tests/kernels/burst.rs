//! A flood is delivered or counted, never lost in silence.

use std::net::TcpStream;
use std::time::Duration;

use trace502_ebpf::Kind;

use crate::rig::*;

#[test]
fn every_failure_of_a_burst_is_delivered_or_counted() {
    const FAILURES: u64 = 100_000;
    let mut rig = rig();
    let nobody = free_port();
    let before = rig.kernel.lost()[Kind::Attempt as usize];
    // Nobody reads meanwhile: the buffer must overflow.
    for _ in 0..FAILURES {
        assert!(TcpStream::connect(nobody).is_err());
    }
    let lost = rig.kernel.lost()[Kind::Attempt as usize] - before;
    while rig.pump(Duration::ZERO) > 0 {}
    let delivered = rig.count_attempts(nobody);
    assert!(lost > 0, "the buffer held everything: make the burst larger");
    assert_eq!(delivered + lost, FAILURES);
}
