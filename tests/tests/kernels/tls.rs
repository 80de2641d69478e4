//! Clients that speak TLS, seen inside the proxy's TLS library: here one of our own, linked into this program as some
//! proxies have theirs. It is called like OpenSSL, and its cipher is none at all.

use std::ffi::{c_int, c_void};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use trace502::kernel::tls_library::Visible;
use trace502::model::*;

use crate::frames::*;
use crate::rig::*;

const ERROR: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";

/// A connection of our library: what it will give as plain text, and the socket underneath.
#[repr(C)]
pub struct Ssl {
    stream: TcpStream,
    plain: Vec<u8>,
    /// A client that leaves as it is written to, before the call comes back.
    fleeting: Option<TcpStream>,
    /// What its handshake comes to: numbers of a part of the library and of a reason.
    errors: Vec<(c_int, c_int)>,
    /// It is one of OpenSSL 1.1.
    old: bool,
}

impl Ssl {
    /// Puts bytes on the wire.
    fn put(&mut self, plain: &[u8]) {
        self.stream.write_all(&sealed(plain)).unwrap();
        if let Some(client) = &self.fleeting {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(self.stream.peek(&mut [0]).unwrap(), 0, "its FIN is here");
        }
    }

    /// Two steps, as OpenSSL has it: a record is read from the socket, then its plain text is handed out.
    fn fill(&mut self) -> usize {
        let mut record = [0; 4096];
        let n = self.stream.read(&mut record).unwrap();
        self.plain.extend(record[..n].iter().skip(RECORD.len()).map(|byte| byte ^ KEY));
        n
    }

    fn take(&mut self, to: *mut u8, room: usize) -> usize {
        let n = self.plain.len().min(room);
        // SAFETY: the caller's buffer of that size.
        unsafe { self.plain.as_ptr().copy_to(to, n) };
        self.plain.drain(..n);
        n
    }
}

/// What the head of a handshake record looks like.
const RECORD: &[u8] = &[0x16, 3, 1, 0, 0];
/// The beginning of a handshake.
const HELLO: &[u8] = &[0x16, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3];
/// Nothing that could be read on the wire by accident.
const KEY: u8 = 0xa5;

fn sealed(plain: &[u8]) -> Vec<u8> {
    let hidden = plain.iter().map(|byte| byte ^ KEY);
    RECORD.iter().copied().chain(hidden).collect()
}

/// # Safety
/// `ssl` must be one of ours, `to` have room for `room` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn SSL_read(ssl: *mut Ssl, to: *mut c_void, room: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let ssl = unsafe { &mut *ssl };
    if ssl.plain.is_empty() && ssl.fill() == 0 {
        return 0;
    }
    ssl.take(to.cast(), room as usize) as c_int
}

/// # Safety
/// As `SSL_read`, and `read` must be a place for a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn SSL_read_ex(ssl: *mut Ssl, to: *mut c_void, room: usize, read: *mut usize) -> c_int {
    // SAFETY: the caller's promise.
    let ssl = unsafe { &mut *ssl };
    if ssl.plain.is_empty() && ssl.fill() == 0 {
        return 0;
    }
    let n = ssl.take(to.cast(), room);
    // SAFETY: the caller's promise.
    unsafe { *read = n };
    1
}

/// # Safety
/// `ssl` must be one of ours, `from` have `len` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn SSL_write(ssl: *mut Ssl, from: *const c_void, len: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let (ssl, plain) = unsafe { (&mut *ssl, std::slice::from_raw_parts(from.cast::<u8>(), len as usize)) };
    ssl.put(plain);
    len
}

/// # Safety
/// As `SSL_write`, and `written` must be a place for a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn SSL_write_ex(ssl: *mut Ssl, from: *const c_void, len: usize, written: *mut usize) -> c_int {
    // SAFETY: the caller's promise.
    let (ssl, plain) = unsafe { (&mut *ssl, std::slice::from_raw_parts(from.cast::<u8>(), len)) };
    ssl.put(plain);
    // SAFETY: the caller's promise.
    unsafe { *written = len };
    1
}

/// # Safety
/// `ssl` must be one of ours.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn SSL_do_handshake(ssl: *mut Ssl) -> c_int {
    // SAFETY: the caller's promise.
    let ssl = unsafe { &mut *ssl };
    ssl.stream.write_all(HELLO).unwrap();
    for (library, reason) in ssl.errors.iter().copied() {
        if ssl.old {
            ERR_put_error(library, 1, reason);
        } else {
            ERR_vset_error(library, reason);
        }
    }
    -1
}

/// As OpenSSL 1.1 has it: the function of the library stands before the reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ERR_put_error(library: c_int, function: c_int, reason: c_int) {
    std::hint::black_box((library, function, reason));
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ERR_vset_error(library: c_int, reason: c_int) {
    std::hint::black_box((library, reason));
}

impl Ssl {
    fn over(stream: TcpStream) -> Box<Ssl> {
        Box::new(Ssl { stream, plain: Vec::new(), fleeting: None, errors: Vec::new(), old: false })
    }

    fn read(&mut self) -> c_int {
        let mut room = [0_u8; 4096];
        // SAFETY: ours, and a buffer of that size.
        unsafe { SSL_read(self, room.as_mut_ptr().cast(), room.len() as c_int) }
    }

    fn read_ex(&mut self) -> usize {
        let (mut room, mut n) = ([0_u8; 4096], 0);
        // SAFETY: ours, a buffer of that size, a number.
        let done = unsafe { SSL_read_ex(self, room.as_mut_ptr().cast(), room.len(), &raw mut n) };
        if done == 1 { n } else { 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        // SAFETY: ours, and bytes.
        let n = unsafe { SSL_write(self, bytes.as_ptr().cast(), bytes.len() as c_int) };
        assert_eq!(n as usize, bytes.len());
    }

    fn write_ex(&mut self, bytes: &[u8]) {
        let mut n = 0;
        // SAFETY: ours, bytes, a number.
        assert_eq!(unsafe { SSL_write_ex(self, bytes.as_ptr().cast(), bytes.len(), &raw mut n) }, 1);
        assert_eq!(n, bytes.len());
    }
}

#[test]
fn an_error_inside_tls_is_seen_with_its_request() {
    for by_success in [false, true] {
        let mut rig = rig();
        let (front, address) = listen();
        let (mut client, served) = client_of(&front);
        let mut served = Ssl::over(served);
        client.write_all(&sealed(REQUEST)).unwrap();
        if by_success {
            assert_eq!(served.read_ex(), REQUEST.len());
            served.write_ex(ERROR);
        } else {
            assert_eq!(served.read() as usize, REQUEST.len());
            served.write(ERROR);
        }
        let error = rig.client_error(address);
        assert_eq!(error.outcome, ClientOutcome::Status(502));
        assert_eq!((error.conn.request, error.conn.secured), (1, true));
        assert_eq!(error.conn.request_head, REQUEST);
        assert_eq!(error.conn.flow.unwrap().remote, client.local_addr().unwrap());
    }
}

#[test]
fn an_attempt_is_bound_to_the_request_inside_tls() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    for n in 1..=2 {
        client.write_all(&sealed(REQUEST)).unwrap();
        served.read();
        let nobody = free_port();
        assert!(TcpStream::connect(nobody).is_err());
        let bound = rig.attempt(nobody).bound.unwrap();
        assert_eq!(bound.request, n);
        served.write(ERROR);
        let error = rig.wait("second error", |seen| match &seen.fact {
            Fact::Client(error) if error.conn.request == n && error.conn.flow.is_some_and(|f| f.local == address) => {
                Some(error.clone())
            }
            _ => None,
        });
        assert_eq!(error.conn.cookie, bound.client);
    }
}

#[test]
fn a_request_inside_tls_that_is_left_unanswered_is_told() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    client.write_all(&sealed(REQUEST)).unwrap();
    served.read();
    drop(served);
    let error = rig.client_error(address);
    assert_eq!((error.outcome, error.conn.secured), (ClientOutcome::Closed, true));
}

#[test]
fn a_connection_of_the_library_that_takes_the_place_of_a_closed_one_is_not_that_client() {
    let mut rig = rig();
    let (front, _) = listen();
    let (mut client, served) = client_of(&front);
    let client_at = client.local_addr().unwrap();
    let mut ssl = Ssl::over(served);
    client.write_all(&sealed(REQUEST)).unwrap();
    ssl.read();
    ssl.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n");
    // The client takes no more, so that the connection stays behind when it is closed.
    ssl.stream.set_nonblocking(true).unwrap();
    while ssl.stream.write(&[0; 65536]).is_ok() {}

    let (back, back_at) = listen();
    ssl.stream = TcpStream::connect(back_at).unwrap();
    let (mut upstream, _) = back.accept().unwrap();
    ssl.write(REQUEST);
    read_some(&mut upstream);
    upstream.write_all(&sealed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).unwrap();
    ssl.read();
    ssl.write(REQUEST);
    let ours = |seen: &&Observation| matches!(&seen.fact, Fact::Client(error) if error.conn.flow.is_some_and(|flow| flow.remote == client_at));
    let told = rig.told().iter().find(ours);
    assert!(told.is_none(), "{told:#?}");
}

#[test]
fn a_client_inside_tls_that_leaves_first_is_told_as_that() {
    let mut rig = rig();
    let (front, _) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    client.write_all(&sealed(REQUEST)).unwrap();
    served.read();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(served.read(), 0);
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 1, .. }).then_some(()));
}

#[test]
fn a_client_that_leaves_while_its_answer_is_written_has_not_left_first() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    client.write_all(&sealed(REQUEST)).unwrap();
    served.read();
    served.fleeting = Some(client.try_clone().unwrap());
    served.write(ERROR);
    let error = rig.client_error(address);
    assert_eq!(error.outcome, ClientOutcome::Status(502));
    let left =
        |seen: &&Observation| matches!(seen.fact, Fact::ClientLeft { client, .. } if client == error.conn.cookie);
    assert!(!rig.told().iter().any(|seen| left(&seen)), "it had its answer");
}

#[test]
fn a_client_that_leaves_after_a_word_of_patience_is_told_as_that() {
    let mut rig = rig();
    let (front, _) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    client.write_all(&sealed(REQUEST)).unwrap();
    served.read();
    served.write(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(served.read(), 0);
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 1, .. }).then_some(()));
}

#[test]
fn the_reason_of_a_handshake_is_one_of_the_library_s_own_for_tls() {
    for old in [false, true] {
        let mut rig = rig();
        let (back, address) = listen();
        let mut dialled = Ssl::over(TcpStream::connect(address).unwrap());
        // ERR_LIB_EC, which BoringSSL has for TLS; ERR_LIB_SSL.
        (dialled.errors, dialled.old) = (vec![(16, 156), (20, 134)], old);
        // SAFETY: ours.
        assert_eq!(unsafe { SSL_do_handshake(&raw mut *dialled) }, -1);
        let (mut upstream, _) = back.accept().unwrap();
        read_some(&mut upstream);
        drop(dialled);
        let attempt = rig.attempt(address);
        assert_eq!(attempt.handshake.unwrap().trouble, Some(Trouble::Library(134)), "1.1: {old}");
    }
}

#[test]
fn good_answers_inside_tls_are_not_told() {
    let mut rig = rig();
    let (front, _) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    for _ in 0..3 {
        client.write_all(&sealed(REQUEST)).unwrap();
        served.read();
        served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/");
    }
    drop(served);
    let told = rig.told().iter().any(|seen| matches!(seen.fact, Fact::Client(_)));
    assert!(!told, "nothing went wrong");
}

#[test]
fn the_library_in_this_program_is_found() {
    let mut rig = rig();
    let exe = std::env::current_exe().unwrap().display().to_string();
    assert_eq!(rig.kernel.watch_tls(std::process::id()), Visible::Hooked(exe));
}

fn opened(client: &mut TcpStream, served: &mut Ssl, requests: &[Vec<u8>]) {
    let settings = frame(4, 0, 0, &[]);
    let all = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &requests.concat()].concat();
    client.write_all(&sealed(&all)).unwrap();
    assert_eq!(served.read() as usize, all.len());
}

#[test]
fn each_stream_has_its_own_answer() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    opened(&mut client, &mut served, &[get(1, "/one"), get(3, "/three"), get(5, "/five"), get(7, "/seven")]);
    // As nginx writes it, as an entry of the table as nghttp2 does (twice: new, then known), and a good one in between.
    let answers = [
        frame(HEADERS, ALL, 3, b"\x48\x82\x6c\x02\x40\x01a\x01b"),
        frame(HEADERS, WHOLE_BLOCK, 1, b"\x88\x40\x01c\x01d"),
        frame(HEADERS, ALL, 7, b"\xc0"),
        frame(0, 1, 1, b"HTTP/1.1 502 is a body"),
        frame(HEADERS, ALL, 5, b"\x08\x03503"),
    ];
    // The frames come in two calls, cut inside the head of one.
    let all = answers.concat();
    let (first, second) = all.split_at(answers[0].len() + 4);
    served.write(first);
    served.write(second);
    for (stream, status, path) in [(3, 502, "/three"), (7, 502, "/seven"), (5, 503, "/five")] {
        let error = stream_error(&mut rig, address, stream);
        assert_eq!((error.outcome, path_of(&error).as_str()), (ClientOutcome::Status(status), path));
        assert!(error.conn.stream && error.conn.secured);
        let head = String::from_utf8(error.conn.request_head.clone()).unwrap();
        assert!(head.contains("host: shop.example"), "{head:?}");
    }
    let told = rig.told().iter().filter(|seen| matches!(&seen.fact, Fact::Client(e) if e.conn.stream)).count();
    assert_eq!(told, 3, "stream 1 was answered well");
}

#[test]
fn streams_are_bound_in_the_order_in_which_they_were_read() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    opened(&mut client, &mut served, &[get(1, "/one"), get(3, "/three"), get(5, "/five")]);
    for stream in [1, 3, 5] {
        let nobody = free_port();
        assert!(TcpStream::connect(nobody).is_err());
        let bound = rig.attempt(nobody).bound.unwrap();
        assert_eq!((bound.request, bound.retry), (stream, false));
        served.write(&frame(HEADERS, ALL, stream, b"\x08\x03503"));
        assert_eq!(stream_error(&mut rig, address, stream).conn.cookie, bound.client);
    }
}

#[test]
fn a_stream_that_is_reset_is_told_by_whoever_reset_it() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, served) = client_of(&front);
    let mut served = Ssl::over(served);
    opened(&mut client, &mut served, &[get(1, "/one"), get(3, "/three")]);
    client.write_all(&sealed(&frame(RESET, 0, 1, &[0, 0, 0, 8]))).unwrap();
    served.read();
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 1, .. }).then_some(()));
    served.write(&[frame(RESET, 0, 1, &[0, 0, 0, 8]), frame(RESET, 0, 3, &[0, 0, 0, 2])].concat());
    let error = stream_error(&mut rig, address, 3);
    assert_eq!((error.outcome, path_of(&error).as_str()), (ClientOutcome::Closed, "/three"));
    let told =
        rig.told().iter().any(|seen| matches!(&seen.fact, Fact::Client(e) if e.conn.request == 1 && e.conn.stream));
    assert!(!told, "its client had left");
}

/// Links of this process at many places, and hooks at one.
fn hooks() -> (usize, usize) {
    let about = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).ok();
    let links: Vec<String> = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().filter_map(about).collect();
    let is = |about: &str, kind| about.lines().any(|line| line.starts_with("link_type:") && line.ends_with(kind));
    let of = |kind| links.iter().filter(|about| is(about, kind)).count();
    (of("probe_multi"), of("perf"))
}

/// The kernel takes back a link of many hooks as fast as one of a single hook: with a proxy of many workers that is
/// what the end of this program waits for.
#[test]
fn a_process_is_hooked_by_few_links() {
    let rig = rig();
    let (many, single) = hooks();
    drop(rig);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    if (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 10) {
        // Three returns, one for the beginning of all calls, one for errors, one behind connect(); where a trampoline sees
        // that, none.
        assert!((5..=6).contains(&many), "{many}");
        assert_eq!(single, 0);
    } else {
        assert_eq!(many, 0);
        assert!(single > 0);
    }
}
