//! Sockets: accept, read a bounded head within a bounded time, write, and the same again on that connection.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::access::Access;
use super::pages::{Response, Site, is_open};
use super::request::{LONGEST_HEAD, Parsed, Request, parse};

/// Connections at a time.
const MOST_CONNECTIONS: usize = 64;
/// For the handshake and for a head once its first byte is here.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A scraper comes back every minute at the latest.
const IDLE_TIME: Duration = Duration::from_secs(75);
const WRITE_TIME: Duration = Duration::from_secs(10);
/// For answers under way when the agent stops.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// The door to the site: who may ask can change while it is open. Clones are the same door.
#[derive(Clone, Default)]
pub struct Door(Arc<RwLock<Access>>);

impl Door {
    pub fn new(access: Access) -> Door {
        Door(Arc::new(RwLock::new(access)))
    }

    /// From now on, for new connections.
    pub fn change(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    fn access(&self) -> Access {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Binds an address; done while the privileges for low ports are still there.
pub fn bind(addr: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stop` turns true, then lets answers under way go out. Must run inside a tokio runtime.
pub async fn serve(
    listeners: Vec<StdListener>,
    site: Site,
    door: Door,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = TcpListener::from_std(listener)?;
        let local_only = listener.local_addr()?.ip().is_loopback();
        let visit = Visit { site: site.clone(), door: door.clone(), local_only, stop: stop.clone() };
        accepting.spawn(accept(listener, visit, room.clone()));
    }
    // An error means that the sender is gone, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
    let _ = timeout(DRAIN_TIME, async { while accepting.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn accept(listener: TcpListener, mut visit: Visit, room: Arc<Semaphore>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut visit.stop) => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match room.clone().try_acquire_owned() {
                    Ok(seat) => {
                        let visit = visit.clone();
                        open.spawn(async move {
                            visit.receive(stream).await;
                            drop(seat);
                        });
                    }
                    // Full: closing at once is the only answer that costs nothing.
                    Err(_) => drop(stream),
                },
                // Out of descriptors: they come back when connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What a connection is served with.
#[derive(Clone)]
struct Visit {
    site: Site,
    door: Door,
    /// The socket is bound to loopback: only names of this host make sense in Host.
    local_only: bool,
    stop: watch::Receiver<bool>,
}

impl Visit {
    async fn receive(mut self, stream: TcpStream) {
        // Small answers should leave at once; without it they only leave later.
        let _ = stream.set_nodelay(true);
        let access = self.door.access();
        match access.tls.clone() {
            None => self.converse(stream, &access).await,
            Some(tls) => {
                let acceptor = tokio_rustls::TlsAcceptor::from(tls);
                if let Ok(Ok(stream)) = timeout(HEAD_TIME, acceptor.accept(stream)).await {
                    self.converse(stream, &access).await;
                }
            }
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S, access: &Access) {
        let mut buffer = Vec::with_capacity(1024);
        let mut first = true;
        loop {
            let patience = if first { HEAD_TIME } else { IDLE_TIME };
            let (response, request) = match read_head(&mut stream, &mut buffer, patience, &mut self.stop).await {
                Some(Parsed::Whole(request)) => (self.respond(&request, access), Some(request)),
                Some(Parsed::Refused(status, why)) => (Response::text(status, why), None),
                Some(Parsed::Partial) => (Response::text(408, "the request did not come to its end in time"), None),
                None => return,
            };
            let keep = request.as_ref().is_some_and(|r| r.keep_alive) && !*self.stop.borrow();
            let head_only = request.as_ref().is_some_and(|r| r.head_only);
            let bytes = encode(&response, head_only, keep);
            let written = timeout(WRITE_TIME, async {
                stream.write_all(&bytes).await?;
                stream.flush().await
            });
            if !matches!(written.await, Ok(Ok(()))) {
                return;
            }
            match request.filter(|_| keep) {
                Some(request) => drop(buffer.drain(..request.length)),
                None => {
                    let _ = timeout(HEAD_TIME, stream.shutdown()).await;
                    return;
                }
            }
            first = false;
        }
    }

    fn respond(&self, request: &Request, access: &Access) -> Response {
        if is_open(&request.path) {
            return self.site.answer(&request.path, &request.accept);
        }
        if access.needs_token() {
            if !access.allows(request.bearer.as_deref()) {
                return Response::text(401, "a bearer token is needed: Authorization: Bearer TOKEN");
            }
        } else if self.local_only && !request.host.as_deref().is_none_or(names_this_host) {
            // A page in a browser on this host could otherwise read us under a name that it made point here.
            return Response::text(421, "ask for 127.0.0.1 or localhost");
        }
        self.site.answer(&request.path, &request.accept)
    }
}

fn names_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

/// `None`: the client left, or there is nothing to wait for any more.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    patience: Duration,
    stop: &mut watch::Receiver<bool>,
) -> Option<Parsed<Request>> {
    if buffer.is_empty() {
        let read = timeout(patience, stream.read_buf(buffer));
        let stopping = *stop.borrow();
        let read = tokio::select! {
            read = read => read,
            // A head that is under way may come to its end; a connection that idles may not.
            () = stopped(stop), if !stopping => return None,
        };
        if !matches!(read, Ok(Ok(1..))) {
            return None;
        }
    }
    let whole = timeout(HEAD_TIME, async {
        loop {
            match parse(buffer) {
                Parsed::Partial if buffer.len() < LONGEST_HEAD => {}
                parsed => return Some(parsed),
            }
            if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
                return None;
            }
        }
    });
    whole.await.unwrap_or(Some(Parsed::Partial))
}

fn encode(response: &Response, head_only: bool, keep: bool) -> Vec<u8> {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    };
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n",
        response.status,
        response.content_type,
        response.body.len(),
    );
    match response.status {
        401 => head.push_str("WWW-Authenticate: Bearer\r\n"),
        405 => head.push_str("Allow: GET, HEAD\r\n"),
        _ => {}
    }
    head.push_str(if keep { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    bytes
}
