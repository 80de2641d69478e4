//! The line typed after `/`: the flags' words, as flags or as `word:value`, and free words.
//!
//! What the flags mean is said in one place only, [`crate::filter`].

use std::fmt;

use crate::causes::CATALOGUE;
use crate::filter::{Filter, STATUS_WORDS, UpstreamPattern, nearest};
use crate::model::Incident;

const WORDS: [&str; 5] = ["status", "proxy", "upstream", "cause", "path"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub filter: Filter,
    /// Each occurs somewhere: in request, cause, summary, upstream or proxy. Lower case.
    pub words: Vec<String>,
}

impl Query {
    /// The message says which word is wrong and what was probably meant.
    pub fn parse(line: &str) -> Result<Query, String> {
        let mut query = Query::default();
        let mut parts = line.split_whitespace();
        while let Some(part) = parts.next() {
            match flag(part)? {
                Some((word, Some(value))) => query.set(word, value)?,
                Some((word, None)) => {
                    let value = parts.next().ok_or_else(|| format!("--{word} wants a value"))?;
                    query.set(word, value)?;
                }
                None => query.words.push(part.to_lowercase()),
            }
        }
        match query.filter.unknown_cause(CATALOGUE.iter().map(|cause| cause.id)) {
            Some(message) => Err(message),
            None => Ok(query),
        }
    }

    fn set(&mut self, word: &str, values: &str) -> Result<(), String> {
        // A path may hold a comma.
        if word == "path" {
            self.filter.path.push(values.to_owned());
            return Ok(());
        }
        for value in values.split(',').filter(|v| !v.is_empty()) {
            match word {
                "status" if STATUS_WORDS.contains(&value) => self.filter.status.push(value.to_owned()),
                "status" => return Err(format!("status is one of {}", STATUS_WORDS.join(", "))),
                "proxy" => self.filter.proxy.push(value.to_owned()),
                "upstream" => self.filter.upstream.push(value.parse()?),
                _ => self.filter.cause.push(value.to_owned()),
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Query::default()
    }

    pub fn matches(&self, incident: &Incident) -> bool {
        self.filter.matches(incident) && self.words.iter().all(|word| mentions(incident, word))
    }
}

/// Whether the filter knows this status; a damaged record may hold any.
pub fn is_status(word: &str) -> bool {
    STATUS_WORDS.contains(&word)
}

/// The flag that this part is, with its value if that is in the same part.
fn flag(part: &str) -> Result<Option<(&str, Option<&str>)>, String> {
    let (name, value, surely) = match part.strip_prefix("--") {
        Some(rest) => match rest.split_once('=') {
            Some((name, value)) => (name, Some(value), true),
            None => (rest, None, true),
        },
        None => match part.split_once(':') {
            Some((name, value)) if !name.is_empty() && name.chars().all(char::is_alphabetic) => {
                (name, Some(value), false)
            }
            _ => return Ok(None),
        },
    };
    if WORDS.contains(&name) {
        return Ok(Some((name, value)));
    }
    match nearest(name, WORDS.into_iter()) {
        Some(near) => Err(format!("no word `{name}`; did you mean {near}?")),
        None if surely => Err(format!("no word `{name}`; there are {}", WORDS.join(", "))),
        // `localhost:8000`, `unix:/run/app.sock`: a free word.
        None => Ok(None),
    }
}

fn mentions(incident: &Incident, word: &str) -> bool {
    let request = &incident.request;
    let texts = [request.method.as_deref(), request.host.as_deref(), request.path.as_deref()];
    let process = incident.upstream.as_ref().and_then(|u| u.process.as_ref());
    let upstream = incident.upstream.as_ref().map(|u| u.addr.as_str());
    let served = process.map(|p| p.name.as_str());
    let unit = process.and_then(|p| p.unit.as_deref());
    let rest = [Some(incident.cause.as_str()), Some(&incident.summary), Some(&incident.proxy.name)];
    texts.into_iter().chain(rest).chain([upstream, served, unit]).flatten().any(|t| t.to_lowercase().contains(word))
}

/// The line that reads back as the same query.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { status, proxy, upstream, cause, path } = &self.filter;
        let upstream: Vec<String> = upstream.iter().map(name).collect();
        let mut parts = Vec::new();
        for (word, values) in [("status", status), ("proxy", proxy), ("upstream", &upstream), ("cause", cause)] {
            if !values.is_empty() {
                parts.push(format!("{word}:{}", values.join(",")));
            }
        }
        parts.extend(path.iter().map(|path| format!("path:{path}")));
        parts.extend(self.words.iter().cloned());
        f.write_str(&parts.join(" "))
    }
}

fn name(pattern: &UpstreamPattern) -> String {
    match pattern {
        UpstreamPattern::Exact(addr) => addr.clone(),
        UpstreamPattern::Host(ip) => ip.to_string(),
        UpstreamPattern::Port(port) => format!(":{port}"),
        UpstreamPattern::Loopback(None) => "localhost".into(),
        UpstreamPattern::Loopback(Some(port)) => format!("localhost:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::incident;

    #[test]
    fn flags_and_words_mean_the_same() {
        let typed = Query::parse("cause:no_listener status:502,503 path:/api upstream::8000 CART").unwrap();
        let flags = Query::parse("--cause no_listener --status=502 --status 503 --path /api --upstream :8000 cart");
        assert_eq!(typed, flags.unwrap());
        assert_eq!(Query::parse(&typed.to_string()), Ok(typed.clone()));
        assert!(typed.matches(&incident("no_listener", "127.0.0.1:8000", 1)));
        assert!(!typed.matches(&incident("no_listener", "127.0.0.1:8001", 1)));
        assert!(!typed.matches(&incident("upstream_reset", "127.0.0.1:8000", 1)));
    }

    #[test]
    fn free_words_are_looked_for_everywhere() {
        let one = incident("no_listener", "localhost:8000", 1);
        for line in ["", "shop.service", "NGINX", "/api/c", "localhost:8000", "listener get"] {
            assert!(Query::parse(line).unwrap().matches(&one), "{line}");
        }
        assert!(!Query::parse("listener post").unwrap().matches(&one));
    }

    #[test]
    fn a_wrong_word_is_told_with_what_was_meant() {
        for (line, hint) in [
            ("stauts:502", "did you mean status?"),
            ("--casue x", "did you mean cause?"),
            ("--nonsense", "there are status, proxy"),
            ("status:404", "500, 502"),
            ("--cause", "wants a value"),
            ("cause:no_listner", "did you mean no_listener?"),
            ("upstream:shop:80", "names no upstream"),
        ] {
            let message = Query::parse(line).unwrap_err();
            assert!(message.contains(hint), "{line}: {message}");
        }
    }
}
