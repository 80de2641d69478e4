//! From the lines of one log to the errors they tell of. Pure: no file, no clock.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::{Format, Hint, LogError, apache, caddy, haproxy, nginx};

/// A longer line is cut by whoever reads it.
pub const LONGEST: usize = 32 * 1024;
/// Requests whose first lines were seen, and not yet the last.
const OPEN: usize = 1024;
/// Requests whose reason was told, which the access log may tell of again.
const TOLD: usize = 256;

pub struct Parser {
    format: Format,
    /// Apache: the attempt of each thread that waits for the end of its request.
    attempts: HashMap<(u32, u32), LogError>,
    /// Caddy: clients of the last errors.
    told: VecDeque<(IpAddr, u16)>,
}

impl Parser {
    pub fn new(format: Format) -> Self {
        Self { format, attempts: HashMap::new(), told: VecDeque::new() }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// One line without its end. `zone`: what local time is ahead of UTC, in seconds.
    pub fn read(&mut self, line: &[u8], zone: i32) -> Option<LogError> {
        let line = &line[..line.len().min(LONGEST)];
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\r', '\n']);
        match self.format {
            Format::Nginx => nginx::error(line, zone),
            Format::NginxAccess => nginx::access(line),
            Format::Haproxy => haproxy::error(line, zone),
            Format::Apache => self.apache(apache::part(line, zone)?),
            Format::Caddy => self.caddy(caddy::error(line)?),
        }
    }

    fn apache(&mut self, part: apache::Part) -> Option<LogError> {
        match part {
            apache::Part::Attempt(attempt) => {
                let thread = (attempt.pid?, attempt.tid?);
                if self.attempts.len() >= OPEN {
                    self.attempts.clear();
                }
                // Of several lines the first is the reason, the others follow from it; but a new attempt to connect
                // begins anew.
                let anew = matches!(attempt.hint, Hint::Connect { .. } | Hint::ConnectTimeout);
                if anew || !self.attempts.contains_key(&thread) {
                    self.attempts.insert(thread, attempt);
                } else if let Some(first) = self.attempts.get_mut(&thread) {
                    first.upstream = first.upstream.take().or(attempt.upstream);
                }
                None
            }
            apache::Part::End(end) => {
                let attempt = self.attempts.remove(&(end.pid?, end.tid?));
                Some(apache::join(attempt, end))
            }
        }
    }

    /// The access log says again what the error log has said of the same client.
    fn caddy(&mut self, error: LogError) -> Option<LogError> {
        let client = error.client.zip(error.client_port);
        let at = client.and_then(|client| self.told.iter().position(|told| *told == client));
        if error.hint == Hint::StatusOnly {
            if let Some(at) = at {
                self.told.remove(at);
                return None;
            }
        } else if let Some(client) = client {
            self.told.push_back(client);
            if self.told.len() > TOLD {
                self.told.pop_front();
            }
        }
        Some(error)
    }
}
