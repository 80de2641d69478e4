//! The join under retries, concurrency and noise; what is no incident; what is the same however time passes.

mod bounds;
mod concurrency;
mod dismissed;
mod found;
mod hint;
mod pool;
mod retries;
mod time;
mod turns;

use proptest::prelude::*;

use super::fixture::*;
use super::*;
use crate::model::Confidence::{Certain, Likely};
use crate::model::*;

const OTHER: &str = "127.0.0.1:9000";

/// An attempt of this client on this upstream that was closed without an answer.
fn closed_early(w: &mut World, client: Cookie, path: &str) -> Attempt {
    let mut a = w.attempt();
    a.endpoint = Endpoint::Tcp(addr(OTHER));
    a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
    a.conn.fin = Some(w.now - 50_000);
    a.conn.request_head = get(path);
    a.peer = Some(w.closed_peer(SERVER));
    a.bound = Some(Bound { client, request: 1, choices: 2, retry: false, proven: false });
    a
}

fn refused(w: &mut World, client: Cookie) -> Attempt {
    let mut a = w.refused();
    a.bound = Some(Bound { client, request: 1, choices: 2, retry: false, proven: false });
    a
}

/// What HAProxy and lighttpd close right behind the error of this client.
fn ended(mut a: Attempt, client: Cookie) -> Attempt {
    a.bound = Some(Bound { client, request: 1, choices: 1, retry: false, proven: true });
    a
}

fn error(w: &mut World, client: Cookie, path: &str, outcome: ClientOutcome) -> ClientError {
    let mut e = w.error(outcome);
    e.conn.cookie = client;
    e.conn.request_head = get(path);
    e.conn.flow.as_mut().unwrap().remote = addr(&format!("127.0.0.1:{}", 51_000 + client));
    e
}

fn of_client(incidents: &[Incident], client: Cookie) -> &Incident {
    let at = format!("127.0.0.1:{}", 51_000 + client);
    incidents.iter().find(|i| i.client.as_deref() == Some(&at)).unwrap()
}
