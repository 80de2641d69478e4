//! `trace502 agent` as a service: its pages, its history, and a real Prometheus that scrapes it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::agent;
use crate::guard::{self, Kid, Launch, until};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port of this host that nobody listens on now.
pub fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The body of an answer of 200.
pub fn get(addr: SocketAddr, path: &str) -> Option<String> {
    let (head, body) = exchange(addr, path, "")?;
    head.starts_with("HTTP/1.1 200").then_some(body)
}

/// Head and body of an answer.
pub fn exchange(addr: SocketAddr, path: &str, headers: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(addr).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// The daemon under test. It ends with this.
pub struct Daemon {
    pub kid: Kid,
    pub addr: SocketAddr,
    pub history: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts it, and waits until it is ready.
    pub fn start(dir: &Path, args: &[&str]) -> Result<Daemon> {
        let (addr, history, log) = (free()?, dir.join("history.db"), dir.join("daemon.log"));
        // Beside an agent that this host may have.
        let name = format!("test-{}", addr.port());
        let own = ["agent", "--instance", &name, "--listen", &addr.to_string(), "--history"];
        let launch = Launch::new(agent::binary()?).args(own).args([&history]).args(args);
        let daemon = Daemon { kid: launch.log(&log)?.start()?, addr, history, log };
        let ready = || get(addr, "/readyz").map(drop).or_else(|| daemon.kid.ended().map(drop));
        until(PATIENCE, ready).with_context(|| format!("not ready: {}", daemon.said()))?;
        anyhow::ensure!(daemon.kid.ended().is_none(), "it ended: {}", daemon.said());
        Ok(daemon)
    }

    /// What it told the journal.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn metrics(&self) -> String {
        get(self.addr, "/metrics").unwrap_or_default()
    }

    /// Value of the first sample that begins like this.
    pub fn sample(&self, start: &str) -> Option<f64> {
        let text = self.metrics();
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// Waits for a sample that begins like this and is as wanted.
    pub fn until(&self, start: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let found = until(PATIENCE, || self.sample(start).filter(|value| wanted(*value)));
        found.with_context(|| format!("{start} did not come:\n{}\n{}", self.metrics(), self.said()))
    }
}

/// Debian's Prometheus with our rules, scraping one agent each second.
pub struct Prometheus {
    _kid: Kid,
    addr: SocketAddr,
}

impl Prometheus {
    pub fn start(dir: &Path, target: SocketAddr) -> Result<Prometheus> {
        let addr = free()?;
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yaml").canonicalize()?;
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\nscrape_configs:\n\
             - job_name: trace502\n  static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        let (file, data) = (dir.join("prometheus.yml"), dir.join("prometheus"));
        std::fs::write(&file, config)?;
        let launch = Launch::new("prometheus").args([
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={addr}"),
        ]);
        let kid = launch.log(&dir.join("prometheus.log"))?.start()?;
        Ok(Prometheus { _kid: kid, addr })
    }

    /// The samples of a query.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b':' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        let escaped: String = query.bytes().map(escape).collect();
        self.ask(&format!("query?query={escaped}"))["result"].as_array().cloned().unwrap_or_default()
    }

    /// What its interface says at a path, without the wrapping.
    pub fn ask(&self, path: &str) -> Value {
        let text = exchange(self.addr, &format!("/api/v1/{path}"), "").map(|(_, body)| unchunked(&body));
        let json = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        json.map_or(Value::Null, |mut json| json["data"].take())
    }

    /// Waits until a query has a sample with a value as wanted.
    pub fn until(&self, query: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        let found = || self.query(query).iter().filter_map(value).find(|value| wanted(*value));
        guard::until(PATIENCE, found).with_context(|| format!("{query} has {:?}", self.query(query)))
    }
}

/// Its larger answers come in pieces.
fn unchunked(body: &str) -> String {
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size.trim(), 16).ok().filter(|size| after.len() >= *size) else { break };
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    if whole.is_empty() { body.to_owned() } else { whole }
}
