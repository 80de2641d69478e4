//! `cargo xtask lab`: the three measures.

use anyhow::{Context, Result, bail};

use trace502_tests::cells::{self, Choice};
use trace502_tests::guard;
use trace502_tests::proxies::Kind;

fn main() -> Result<()> {
    guard::clean_on_signal();
    guard::sweep();
    let mut choice = Choice { agent: true, workers: 24, ..Choice::default() };
    let mut json = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--proxy" => choice.proxies.push(Kind::parse(&value()?)?),
            "--fault" => choice.faults.push(value()?),
            "--no-agent" => choice.agent = false,
            "--serial" => choice.serial = true,
            "--logs" => choice.logs = true,
            "--json" => json = true,
            _ => bail!("unknown argument {arg:?}"),
        }
    }
    if choice.proxies.is_empty() {
        choice.proxies = Kind::ALL.to_vec();
    }
    let report = cells::run(&choice)?;
    let right = report.outcomes.iter().filter(|outcome| outcome.right()).count();
    for outcome in report.outcomes.iter().filter(|outcome| !outcome.right()) {
        println!("{outcome}");
        if json {
            for record in &outcome.records {
                println!("    {record}");
            }
        }
    }
    println!("cells: {right} of {} right", report.outcomes.len());
    Ok(())
}
