//! The lab's upstream as a process: `upstream ADDRESS=CONDUCT ...`, and the hosts around it.

use std::time::Duration;

use trace502_tests::{pace, upstream};

fn main() -> anyhow::Result<()> {
    // SAFETY: a plain limit, so that crashes made on purpose write no core files.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
    pace::inherit();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match &words[..] {
        ["dns", address, ..] => upstream::dns::serve(address, &args[2..]),
        ["far", device] => upstream::far::serve(device),
        ["supervise", times, pause, ..] => {
            upstream::death::supervise(times.parse()?, Duration::from_millis(pause.parse()?), &args[3..])
        }
        // Alive, and not listening before this many milliseconds.
        ["after", delay, ..] => {
            std::thread::sleep(Duration::from_millis(delay.parse()?));
            upstream::serve(&args[2..])
        }
        // Told to end, it takes no more connections and finishes what it has.
        ["graceful", ..] => {
            upstream::socket::close_on_term();
            upstream::serve(&args[1..])
        }
        // Listens for this many milliseconds, then leaves with this code.
        ["brief", delay, code, ..] => {
            let (delay, code) = (delay.parse()?, code.parse()?);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(delay));
                std::process::exit(code);
            });
            upstream::serve(&args[3..])
        }
        [_, ..] => upstream::serve(&args),
        [] => anyhow::bail!("usage: upstream ADDRESS=CONDUCT ..."),
    }
}
