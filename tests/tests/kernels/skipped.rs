//! Programs that the kernel passes over, and how much of the verifier's patience they take.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trace502::kernel::probes::PROBES;

use crate::namespace;
use crate::rig::*;

/// How often the program at dropped packets was passed over so far.
fn skipped(rig: &Rig) -> u64 {
    let skipped = rig.kernel.skipped();
    PROBES.iter().zip(skipped).find(|(probe, _)| probe.name == "drop").unwrap().1
}

/// The calling thread runs on this CPU alone.
fn stay_on(cpu: usize) {
    // SAFETY: a set of CPUs, and the calling thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set), 0);
    }
}

/// What a namespace's loopback receives is handled by the first CPU, whoever sends it.
fn steer_to_first_cpu() {
    // SAFETY: only this thread sees what it mounts from here on.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["--make-rprivate", "/"]);
    mount(&["-t", "sysfs", "sysfs", "/sys"]);
    fs::write("/sys/class/net/lo/queues/rx-0/rps_cpus", "1").unwrap();
}

/// Packets are dropped by a process, which is interrupted by packets that are dropped on arrival.
///
/// They arrive one at a time with pauses between: what comes without end is handed to a kernel thread (before 6.5), which
/// interrupts nobody.
fn drop_on_both_sides(over: &AtomicBool) {
    let flood = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(1);
            for pause in (20..200).step_by(7).cycle() {
                let _ = flood.send_to(&[0; 8], (Ipv4Addr::LOCALHOST, 9));
                std::thread::sleep(Duration::from_micros(pause));
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        stay_on(0);
        while !over.load(Ordering::Relaxed) {
            // What nobody reads is dropped when the socket closes.
            let (mut from, to) = UnixStream::pair().unwrap();
            (0..200).for_each(|_| from.write_all(&[0]).unwrap());
            drop(to);
        }
    });
}

#[test]
fn a_program_that_interrupts_itself_is_counted_as_skipped() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        println!("skipped: it takes two CPUs");
        return;
    }
    let rig = rig();
    let before = skipped(&rig);
    static OVER: AtomicBool = AtomicBool::new(false);
    let busy = std::thread::spawn(|| {
        namespace::with_loopback(|| {
            steer_to_first_cpu();
            drop_on_both_sides(&OVER);
        });
    });
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(60);
    while skipped(&rig) == before && !busy.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let more = skipped(&rig) - before;
    println!("passed over {more} times within {:?}", begun.elapsed());
    OVER.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    assert!(more > 0, "nothing was counted");
}

#[test]
fn the_verifier_is_far_from_its_limit() {
    const LIMIT: u32 = 1_000_000;
    let rig = rig();
    let walked: Vec<_> = rig.kernel.reports.iter().filter_map(|probe| Some((probe.walked?, probe.name))).collect();
    println!("instructions walked through: {walked:?}");
    assert!(!walked.is_empty());
    for (walked, name) in walked {
        assert!(walked < LIMIT / 2, "{name}: {walked}");
    }
}
