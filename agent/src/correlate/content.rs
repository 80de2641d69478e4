//! Whether a client's request and what went to an upstream are the same request, by their bytes.

use crate::model::{Attempt, Connection};
use crate::wire::{fastcgi, http};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    Different,
    Unknown,
    Same,
    /// A number that only one request has is in both.
    Identical,
}

/// Shorter targets that were cut say too little.
const TELLING: usize = 16;

pub fn compare(client: &Connection, attempt: &Attempt) -> Content {
    Asked::of(client).compare(attempt)
}

/// What a client asked, to be compared with one attempt after the other.
pub struct Asked {
    request: Option<http::Request>,
    /// What its answer was numbered after.
    numbered: Option<u64>,
}

impl Asked {
    pub fn of(client: &Connection) -> Self {
        // Varnish numbers the fetch one above the client's request.
        let number = http::response(&client.reply_head).and_then(|r| r.x_varnish);
        Self { request: http::request(&client.request_head), numbered: number.and_then(|n| n.checked_add(1)) }
    }

    pub fn compare(&self, attempt: &Attempt) -> Content {
        self.request.as_ref().map_or(Content::Unknown, |asked| requests(asked, self.numbered, attempt))
    }
}

fn requests(asked: &http::Request, numbered: Option<u64>, attempt: &Attempt) -> Content {
    let head = &attempt.conn.request_head;
    let of_stream = &attempt.stream_head;
    // The preface of HTTP/2 is no request.
    if of_stream.is_empty() && head.starts_with(b"PRI * HTTP/2") {
        return Content::Unknown;
    }
    let sent = match http::request(if of_stream.is_empty() { head } else { of_stream }) {
        Some(sent) => sent,
        None => match fastcgi::request(head) {
            Some(params) => http::Request {
                method: params.method.unwrap_or_default(),
                whole_line: params.uri.is_some(),
                target: params.uri.unwrap_or_default(),
                ..http::Request::default()
            },
            None => return Content::Unknown,
        },
    };
    if asked.request_id.is_some() && asked.request_id == sent.request_id {
        return Content::Identical;
    }
    if numbered.is_some() && numbered == sent.x_varnish {
        return Content::Identical;
    }
    // Caches ask for the whole of what they were asked the head of.
    let methods = sent.method.is_empty() || asked.method == sent.method || asked.method == "HEAD";
    if !methods {
        return Content::Different;
    }
    targets(asked, &sent)
}

fn targets(asked: &http::Request, sent: &http::Request) -> Content {
    if !asked.whole_line || !sent.whole_line {
        let len = asked.target.len().min(sent.target.len());
        let (a, b) = (asked.target.as_bytes(), sent.target.as_bytes());
        return match len {
            0 => Content::Unknown,
            _ if a[..len] != b[..len] => Content::Unknown,
            len if len < TELLING => Content::Unknown,
            _ => Content::Same,
        };
    }
    if asked.target == sent.target {
        return Content::Same;
    }
    let (a, b) = (asked.path(), sent.path());
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let (asked_query, sent_query) = (query(&asked.target), query(&sent.target));
    let queries = asked_query.is_empty()
        || sent_query.is_empty()
        || asked_query.contains(sent_query)
        || sent_query.contains(asked_query);
    if !queries {
        return Content::Different;
    }
    if short == "/" && long != "/" {
        // A location that was mapped to the root: says nothing.
        return Content::Unknown;
    }
    if long.ends_with(short) { Content::Same } else { Content::Different }
}

fn query(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}
