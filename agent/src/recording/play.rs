//! The engine, fed from a recording as it was fed when that was made.

use std::io::{Read, Seek};

use super::{Counts, Entry, Header, RecordingError, Replay, facts_lost};
use crate::correlate::{Counters, Engine};
use crate::decode;
use crate::kernel::offsets::Names;
use crate::model::{Nanos, Notice};

pub struct Play {
    engine: Engine,
    names: Names,
    /// What was lost then, by place.
    lost: Counts,
    clock: Nanos,
}

impl Play {
    pub fn new(header: &Header) -> Self {
        let names = serde_json::from_value(header.names.clone()).unwrap_or_default();
        Self { engine: Engine::new(), names, lost: Counts::new(), clock: 0 }
    }

    /// Takes in the next entry and hands over what came of it. `false`: it was the last one.
    pub fn step<R: Read + Seek>(
        &mut self,
        tape: &mut Replay<R>,
        notices: &mut Vec<Notice>,
    ) -> Result<bool, RecordingError> {
        let step = tape.next_step()?;
        let more = step.is_some();
        match step {
            Some(Entry::Event(record)) => match decode::decode(&record, &self.names) {
                Ok(seen) => {
                    self.clock = self.clock.max(seen.at);
                    self.engine.observe(seen, tape);
                }
                Err(_) => {
                    *self.lost.entry("decode".into()).or_default() += 1;
                    self.engine.lost(self.engine.clock(), 1);
                }
            },
            Some(Entry::Tick(now)) => {
                self.clock = self.clock.max(now);
                self.engine.tick(now, tape);
            }
            Some(Entry::Log { at, error }) => {
                self.clock = self.clock.max(at);
                self.engine.log(at, &error, tape);
            }
            Some(Entry::Lost(counts)) => self.lose(counts),
            // A recording that was cut off has no last words of its own; elsewhere nothing is left to say then.
            Some(Entry::Finish) | None => self.engine.finish(tape),
            Some(Entry::Asked(_) | Entry::End(_)) => {}
        }
        notices.append(&mut self.engine.drain());
        Ok(more)
    }

    fn lose(&mut self, counts: Counts) {
        let records = facts_lost(&counts);
        for (place, count) in counts {
            *self.lost.entry(place).or_default() += count;
        }
        if records > 0 {
            self.engine.lost(self.clock, records);
        }
    }

    /// What the engine counted, and what was lost on the way.
    pub fn end(self) -> (Counters, Counts) {
        (self.engine.counters(), self.lost)
    }
}
