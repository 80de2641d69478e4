//! The server against well-behaved, slow and hostile clients, over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::*;
use crate::metrics::Metrics;
use crate::metrics::tests::incident;
use crate::status::{Board, Probe, Status};
use crate::when::read_here;

struct Served {
    addr: SocketAddr,
    site: Site,
    door: Door,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new(access: Access) -> Served {
        let board = Board::default();
        let site = Site {
            board: board.clone(),
            metrics: Arc::new(Metrics::new(100, Duration::from_secs(60), board)),
            recent: Recent::default(),
        };
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let door = Door::new(access);
        let (its_site, its_door) = (site.clone(), door.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(vec![listener], its_site, its_door, stopped)).unwrap();
        });
        Served { addr, site, door, stop, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Everything that comes back until the server closes.
    fn raw(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_all(&mut stream)
    }

    fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send(true).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn read_all(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}"),
    }
    String::from_utf8(text).unwrap()
}

fn make_ready(board: &Board) {
    board.running("cap_sys_ptrace".into());
    let probes = vec![Probe { name: "tcp_reset".into(), provider: "tp_btf".into(), attached: true, required: true }];
    board.publish(Status { probes, ..Status::default() }, Instant::now());
}

#[test]
fn metrics_come_in_the_format_asked_for() {
    let served = Served::new(Access::default());
    let classic = served.get("/metrics");
    assert!(classic.starts_with("HTTP/1.1 200 OK\r\n") && classic.contains("text/plain; version=0.0.4"), "{classic}");
    let open = served.raw(
        "GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text; version=1.0.0\r\nConnection: close\r\n\r\n",
    );
    assert!(open.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"), "{open}");
}

#[test]
fn health_and_readiness_follow_the_board() {
    let served = Served::new(Access::default());
    assert!(served.get("/healthz").starts_with("HTTP/1.1 200"));
    let unready = served.get("/readyz");
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("not attached yet"), "{unready}");
    make_ready(&served.site.board);
    assert!(served.get("/readyz").starts_with("HTTP/1.1 200"));
    served.site.board.publish(Status::default(), Instant::now() - Duration::from_secs(60));
    assert!(served.get("/healthz").starts_with("HTTP/1.1 503"));
}

#[test]
fn the_page_shows_probes_and_incidents_and_runs_no_script() {
    let served = Served::new(Access::default());
    make_ready(&served.site.board);
    let mut hostile = incident("127.0.0.1:8000", "no_listener");
    hostile.summary = "<script>alert(1)</script>\"'&\u{1b}[31m\u{202e}".into();
    hostile.proxy.name = "<img src=x onerror=alert(1)>".into();
    hostile.request.path = Some("/api/<b>".into());
    served.site.recent.push(&hostile);
    let page = served.get("/");
    assert!(page.contains("tcp_reset") && page.contains("no_listener") && page.contains("127.0.0.1:8000"), "{page}");
    assert!(
        page.contains(&format!("<td>{}<td>", read_here(&hostile.time))) && page.contains("<td>/api/&lt;b&gt;<td>"),
        "{page}"
    );
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"), "{page}");
    assert!(
        !page.contains("<script") && !page.contains("<img") && !page.contains('\u{1b}') && !page.contains('\u{202e}')
    );
    assert!(page.contains("Content-Security-Policy: default-src 'none'"));
    for _ in 0..100 {
        served.site.recent.push(&hostile);
    }
    assert_eq!(served.get("/").matches("<tr><td>2026").count(), 20);
}

#[test]
fn a_connection_is_kept_and_pipelining_keeps_order() {
    let served = Served::new(Access::default());
    let two = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD / HTTP/1.1\r\nHost: 127.0.0.1:9502\r\nConnection: close\r\n\r\n";
    let text = served.raw(two);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.ends_with("\r\n\r\n") && !text.contains("<html"), "HEAD has no body: {text}");
    let old = served.raw("GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.contains("Connection: close") && old.ends_with("ok\n"));
}

#[test]
fn what_is_no_plain_request_is_refused_with_its_reason() {
    let served = Served::new(Access::default());
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    for (request, status) in [
        ("GET /nope HTTP/1.1\r\nConnection: close\r\n\r\n", "404"),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405"),
        ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "413"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "413"),
        ("\u{16}\u{3}\u{1}\u{2}\0 TLS hello\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nBad Header\r\n\r\n", "400"),
        (long.as_str(), "431"),
        (many.as_str(), "431"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "421"),
    ] {
        let text = served.raw(request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {request:.40} -> {text}");
    }
}

#[test]
fn a_token_is_asked_for_where_traffic_is_told() {
    let served = Served::new(Access::with_token("0123456789abcdef"));
    for path in ["/", "/metrics", "/nope"] {
        let text = served.get(path);
        assert!(text.starts_with("HTTP/1.1 401") && text.contains("WWW-Authenticate: Bearer"), "{path} {text}");
    }
    assert!(served.get("/healthz").starts_with("HTTP/1.1 200"));
    let with = |token: &str| {
        served.raw(&format!("GET /metrics HTTP/1.1\r\nHost: h\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n"))
    };
    assert!(with("Bearer 0123456789abcdef").starts_with("HTTP/1.1 200"));
    assert!(with("bearer 0123456789abcdef").starts_with("HTTP/1.1 200"));
    for wrong in ["Bearer 0123456789abcdeX", "Bearer 0123456789abcdef0", "Bearer ", "Basic 0123456789abcdef", "Bearer"]
    {
        assert!(with(wrong).starts_with("HTTP/1.1 401"), "{wrong}");
    }
    served.door.change(Access::with_token("another-token-of-ours"));
    assert!(with("Bearer 0123456789abcdef").starts_with("HTTP/1.1 401"));
    assert!(with("Bearer another-token-of-ours").starts_with("HTTP/1.1 200"));
}

#[test]
fn slow_clients_neither_block_nor_stay() {
    let served = Served::new(Access::default());
    let mut slow: Vec<TcpStream> = (0..20).map(|_| served.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    }
    assert!(served.get("/healthz").starts_with("HTTP/1.1 200"), "others are served meanwhile");
    for stream in &mut slow {
        let text = read_all(stream);
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    }
}

#[test]
fn connections_are_bounded_and_come_back() {
    let served = Served::new(Access::default());
    let mut held: Vec<TcpStream> = (0..64).map(|_| served.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).unwrap();
    }
    let mut surplus = served.connect();
    assert_eq!(read_all(&mut surplus), "", "the 65th is closed at once");
    held.truncate(10);
    // The server notices closed connections in its own time.
    let deadline = Instant::now() + Duration::from_secs(10);
    while served.get_or_nothing("/healthz").is_empty() {
        assert!(Instant::now() < deadline, "seats do not come back");
    }
}

impl Served {
    fn get_or_nothing(&self, path: &str) -> String {
        let mut stream = self.connect();
        let asked = stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        if asked.is_ok() { read_all(&mut stream) } else { String::new() }
    }
}

#[test]
fn stopping_ends_idle_connections() {
    let served = Served::new(Access::default());
    let mut idle = served.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).unwrap();
    let addr = served.addr;
    drop(served);
    read_all(&mut idle);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn tls_is_spoken_where_a_certificate_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = settings(&format!("tls-cert = {cert:?}\ntls-key = {key:?}"));
    let served = Served::new(Access::load(&settings).unwrap());

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(client, served.connect());
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let text = read_all(&mut stream);
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok\n"), "{text}");

    let plain = served.connect();
    (&plain).write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = (&plain).read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "plain text is not answered");
}

fn settings(text: &str) -> crate::config::Settings {
    crate::config::tests::file(text).unwrap().settings
}

#[test]
fn files_that_cannot_serve_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let load = |text: String| Access::load(&settings(&text)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(load(format!("token-file = {file:?}")).contains("secret: cannot be read"));
    std::fs::write(&file, "short\n").unwrap();
    assert!(load(format!("token-file = {file:?}")).contains("at least 16"));
    std::fs::write(&file, "with spaces in between it all\n").unwrap();
    assert!(load(format!("token-file = {file:?}")).contains("at least 16"));
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    assert_eq!(load(format!("token-file = {file:?}")), "");
    assert!(load(format!("tls-cert = {file:?}\ntls-key = {file:?}")).contains("holds no certificate"));
}
