//! A client that shows what really came back: raw sockets, no retries, no manners it was not told to have.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What a client got for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// A status of gRPC behind an HTTP status that says that all is well.
    Grpc(u8),
    /// Bytes that are no HTTP response, up to the end of the connection.
    Garbled(Vec<u8>),
    /// The connection ended with the request unanswered.
    Closed,
    /// Nothing came in time.
    Silence,
}

impl Answer {
    /// As the agent's filters name it: a number, `grpc`, `garbled`, `closed`.
    pub fn word(&self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Grpc(_) => "grpc".into(),
            Self::Garbled(_) => "garbled".into(),
            Self::Closed => "closed".into(),
            Self::Silence => "silence".into(),
        }
    }
}

/// A connection to a proxy.
pub struct Client {
    stream: Wire,
    buffer: Vec<u8>,
    /// The last answer said that the connection ends.
    pub ended: bool,
}

/// What a client speaks through.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    fn both(&mut self) -> &mut dyn ReadWrite {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream,
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// What a client needs to speak HTTP/1 in TLS with servers that this authority vouches for.
pub fn trusting(authority: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// One request, to the byte.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub host: &'static str,
    pub body: usize,
    pub close: bool,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), host: "lab.test", body: 0, close: false }
    }

    pub fn post(path: impl Into<String>, body: usize) -> Self {
        Self { method: "POST", body, ..Self::get(path) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.host);
        if self.close {
            text.push_str("Connection: close\r\n");
        }
        if self.method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\nContent-Type: application/octet-stream\r\n", self.body));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + self.body, b'x');
        bytes
    }
}

impl Client {
    pub fn connect(proxy: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&proxy, Duration::from_secs(5))
            .with_context(|| format!("the proxy at {proxy} cannot be reached"))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream: Wire::Plain(stream), buffer: Vec::new(), ended: false })
    }

    /// The same behind TLS; the proxy calls itself `secure.test`.
    pub fn secure(proxy: SocketAddr, trust: &Arc<ClientConfig>) -> Result<Self> {
        let client = Self::connect(proxy)?;
        let session = ClientConnection::new(trust.clone(), "secure.test".try_into()?)?;
        let Wire::Plain(stream) = client.stream else { return Ok(client) };
        Ok(Self { stream: Wire::Tls(Box::new(StreamOwned::new(session, stream))), ..client })
    }

    pub fn local(&self) -> Option<SocketAddr> {
        self.stream.socket().local_addr().ok()
    }

    /// Sends and waits. A write that fails is no answer yet: what the proxy said before may still be read.
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(&ask.bytes());
        self.answer(Duration::from_secs(25))
    }

    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.both().write_all(bytes).is_ok()
    }

    /// Nothing more will be sent; what comes is still read.
    pub fn end_half(&self) {
        // One that is gone already says so when it is read from.
        let _ = self.stream.socket().shutdown(std::net::Shutdown::Write);
    }

    /// Reads one whole response.
    pub fn answer(&mut self, limit: Duration) -> Answer {
        if self.stream.socket().set_read_timeout(Some(limit)).is_err() {
            return Answer::Closed;
        }
        loop {
            if !b"HTTP/1.".starts_with(&self.buffer[..self.buffer.len().min(7)]) {
                return self.garbled();
            }
            if let Some(end) = position(&self.buffer, b"\r\n\r\n") {
                return self.response(end + 4);
            }
            match self.fill() {
                Fill::More => {}
                Fill::End if self.buffer.is_empty() => return Answer::Closed,
                Fill::End => return self.garbled(),
                Fill::Late => return Answer::Silence,
            }
        }
    }

    fn response(&mut self, head: usize) -> Answer {
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let Some(status) = text.get(9..12).and_then(|digits| digits.parse().ok()) else { return self.garbled() };
        let value = |name: &str| {
            text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| *key == name).map(|(_, v)| v.trim()))
        };
        self.ended = value("connection").is_some_and(|v| v.contains("close"));
        let length: Option<usize> = value("content-length").and_then(|v| v.parse().ok());
        let chunked = value("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        let bodiless = status == 204 || status == 304;
        loop {
            let body = &self.buffer[head..];
            let whole = match length {
                _ if bodiless => Some(0),
                _ if chunked => position(body, b"0\r\n\r\n").map(|at| at + 5),
                Some(length) => (body.len() >= length).then_some(length),
                None => None,
            };
            if let Some(body) = whole {
                self.buffer.drain(..head + body);
                return Answer::Status(status);
            }
            match self.fill() {
                Fill::More => {}
                Fill::End => {
                    self.ended = true;
                    self.buffer.clear();
                    return Answer::Status(status);
                }
                Fill::Late => return Answer::Silence,
            }
        }
    }

    fn garbled(&mut self) -> Answer {
        while matches!(self.fill(), Fill::More) {}
        self.ended = true;
        Answer::Garbled(std::mem::take(&mut self.buffer))
    }

    fn fill(&mut self) -> Fill {
        let mut chunk = [0; 16384];
        match self.stream.both().read(&mut chunk) {
            Ok(0) => Fill::End,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Fill::More
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Fill::Late,
            Err(_) => Fill::End,
        }
    }
}

enum Fill {
    More,
    End,
    Late,
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// One request on a connection of its own.
pub fn ask_once(proxy: SocketAddr, ask: &Ask) -> Result<Answer> {
    Ok(Client::connect(proxy)?.ask(ask))
}
