//! `trace502 causes`: the catalogue.

use std::io::{self, Write};

use super::tell;
use crate::causes::{CATALOGUE, Cause, by_id};
use crate::filter::nearest;
use crate::sinks::plain;
use crate::text;

/// List the causes; with an id, what it means, how it is proven and how to fix it
#[derive(Clone, Debug, clap::Args)]
pub struct Causes {
    /// Word for the cause, as a record of an error and the list have it
    pub id: Option<String>,
}

impl Causes {
    pub fn run(self) -> anyhow::Result<u8> {
        let mut out = io::stdout().lock();
        let Some(id) = self.id else {
            for cause in CATALOGUE {
                writeln!(out, "{:22} {:9} {}", cause.id, cause.group, first_sentence(cause.meaning))?;
            }
            return Ok(0);
        };
        match by_id(&id) {
            Some(cause) => write(cause, &mut out)?,
            None => {
                let hint = match nearest(&id, CATALOGUE.iter().map(|cause| cause.id)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "`trace502 causes` lists them".into(),
                };
                tell(format_args!("no cause is called {}; {hint}", text::safe(&id)));
                return Ok(2);
            }
        }
        Ok(0)
    }
}

fn write(cause: &Cause, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} ({})\n", cause.id, cause.group)?;
    for (head, said) in [("means", cause.meaning), ("proof", cause.proof), ("to do", cause.remedy)] {
        for (n, line) in plain::wrap(said, 70, 70).iter().enumerate() {
            writeln!(out, "  {:6} {line}", if n == 0 { head } else { "" })?;
        }
    }
    Ok(())
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}
