//! `trace502 history --tui`: the past on the full screen.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use anyhow::Context as _;

use super::Usage;
use super::history::History;
use crate::history::Reader;
use crate::screen::query::Query;
use crate::screen::{Options, Past, run, usable};
use crate::when::Micros;

/// The newest of so many are shown; older ones are counted as left out.
const MOST: usize = 100_000;

pub fn show(args: &History, now: Micros) -> anyhow::Result<u8> {
    if !usable() {
        return Err(Usage("--tui needs a terminal; without it the same is printed".to_owned()).into());
    }
    let reader = Reader::open(&args.file()?)?;
    let mut incidents = VecDeque::new();
    let mut left_out = 0;
    let unreadable = reader.each(args.span(now)?, &args.filter, |incident| {
        if incidents.len() == MOST {
            incidents.pop_front();
            left_out += 1;
        }
        incidents.push_back(incident);
        ControlFlow::Continue(())
    })?;
    let mut source = Past::new(incidents.into()).without(left_out + unreadable);
    let directory = std::env::current_dir().context("the directory to write files to is gone")?;
    // The flags stand in the filter's line, to be changed there; what they left out stays out.
    let query = Query { filter: args.filter.clone(), words: Vec::new() };
    let farewell = run(&mut source, Options { query, directory })?;
    // The terminal may be gone.
    let _ = writeln!(io::stderr(), "trace502: {farewell}");
    Ok(0)
}
