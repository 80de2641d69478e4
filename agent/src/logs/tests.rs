//! Lines of real proxies with broken upstreams behind them, and lines that want to look like them.

use super::*;

fn all(format: Format, text: &str) -> Vec<LogError> {
    let mut parser = Parser::new(format);
    text.lines().filter_map(|line| parser.read(line.as_bytes(), 0)).collect()
}

/// Which case (`/case/…` of the path), what was said of it, the status and the upstream.
fn brief(errors: &[LogError]) -> Vec<String> {
    let case = |error: &LogError| {
        let path = error.path.clone().unwrap_or_default();
        path.split('/').nth(1).unwrap_or("-").to_owned()
    };
    let status = |error: &LogError| error.status.map_or("-".to_owned(), |status| status.to_string());
    let upstream = |error: &LogError| error.upstream.clone().unwrap_or("-".to_owned());
    errors
        .iter()
        .map(|error| format!("{} {:?} {} {}", case(error), error.hint, status(error), upstream(error)))
        .collect()
}

#[test]
fn nginx_says_why() {
    let errors = all(Format::Nginx, include_str!("fixtures/nginx-error.log"));
    let expected = [
        "refused Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "unreach Connect { errno: Some(113) } 502 127.0.0.1:9021",
        "drop ConnectTimeout 504 127.0.0.1:9022",
        "fin ClosedEarly 502 127.0.0.1:9003",
        "rst Receive { errno: Some(104) } 502 127.0.0.1:9004",
        "now Receive { errno: Some(104) } 502 127.0.0.1:9014",
        "silent ResponseTimeout 504 127.0.0.1:9008",
        "part ClosedEarly 502 127.0.0.1:9005",
        "ssh InvalidResponse - 127.0.0.1:9006",
        "big HeaderTooBig 502 127.0.0.1:9011",
        "nul InvalidResponse 502 127.0.0.1:9016",
        "grp Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "grp Connect { errno: Some(111) } 502 127.0.0.1:9002",
        "grp NoLiveUpstream 502 grp",
        "pool Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "pool ClosedEarly 502 127.0.0.1:9003",
        "missing Connect { errno: Some(2) } 502 unix:/run/shop/missing.sock",
        "denied Connect { errno: Some(13) } 502 unix:/run/shop/denied.sock",
        "dead Connect { errno: Some(111) } 502 unix:/run/shop/dead.sock",
        "full Connect { errno: Some(11) } 502 unix:/run/shop/full.sock",
        "nx Unresolved { name: \"nx.example\" } 502 -",
        "sf Unresolved { name: \"sf.example\" } 502 -",
        "to Unresolved { name: \"to.example\" } 502 -",
        "tlsplain TlsHandshake 502 127.0.0.1:9013",
        "tlssilent TlsTimeout 504 127.0.0.1:9008",
        "tlsverify TlsVerify 502 127.0.0.1:9443",
        "fcgi Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "six Connect { errno: Some(111) } 502 [::1]:9001",
        "grpc InvalidResponse 502 127.0.0.1:9012",
        "uwsgi ClosedEarly 502 127.0.0.1:9003",
        "noread SendTimeout 504 127.0.0.1:9015",
        "rst Receive { errno: Some(104) } 502 127.0.0.1:9004",
        "refused Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "refused Connect { errno: Some(111) } 502 127.0.0.1:9001",
    ];
    assert_eq!(brief(&errors), expected);
    let first = &errors[0];
    assert_eq!((first.pid, first.tid, first.connection), (Some(8424), Some(8424), Some(1)));
    assert_eq!((first.method.as_deref(), first.host.as_deref()), (Some("GET"), Some("shop.example")));
    assert_eq!(first.path.as_deref(), Some("/refused/a"), "without the query");
    assert_eq!(first.time_micros, Some(1_795_247_076_000_000));
    assert_eq!(first.client, Some("127.0.0.1".parse().unwrap()));
}

#[test]
fn what_a_client_writes_into_the_log_of_nginx_does_not_become_its_upstream() {
    let errors = all(Format::Nginx, include_str!("fixtures/nginx-error.log"));
    let (quoted, forged) = (&errors[errors.len() - 2], &errors[errors.len() - 1]);
    assert_eq!(quoted.path.as_deref(), Some("/refused/\"quote,%20upstream:%20\"x"));
    assert_eq!(quoted.host.as_deref(), Some("shop.example"));
    assert_eq!(forged.upstream.as_deref(), Some("127.0.0.1:9001"));
    // Nothing was written of an upstream, but the Host pretends to one.
    let line = "2026/11/21 07:44:39 [error] 1#1: *4 a.example could not be resolved (3: Host not found), client: ::1, \
                server: s, request: \"GET / HTTP/1.1\", host: \"a\", upstream: \"http://evil:1/\"";
    let error = &all(Format::Nginx, line)[0];
    assert_eq!((error.upstream.as_deref(), error.host.as_deref()), (None, Some("a")));
    let sub = "2026/11/21 07:44:39 [error] 1#1: *4 connect() failed (111: Connection refused) while connecting to upstream, \
               client: 10.0.0.1, server: s, request: \"GET /page HTTP/2.0\", subrequest: \"/auth\", \
               upstream: \"http://127.0.0.1:9/auth\", host: \"shop\", referrer: \"http://r/\"";
    let error = &all(Format::Nginx, sub)[0];
    assert_eq!(error.upstream.as_deref(), Some("127.0.0.1:9"));
    assert_eq!((error.path.as_deref(), error.host.as_deref()), (Some("/page"), Some("shop")));
}

#[test]
fn lines_of_nginx_that_are_no_failed_request_are_passed_over() {
    for message in [
        "upstream server temporarily disabled while connecting to upstream",
        "upstream prematurely closed connection while reading upstream",
        "an upstream response is buffered to a temporary file /var/x while reading upstream",
        "SSL_do_handshake() failed (SSL: error:0A000416) while SSL handshaking",
        "limiting requests, dry run, excess: 1.0 by zone \"z\"",
        "delaying request, excess: 1.0, by zone \"z\"",
        "FastCGI sent in stderr: \"PHP message: x\" while reading response header from upstream",
        "open() \"/x\" failed (2: No such file or directory)",
    ] {
        let line = format!(
            "2026/11/21 07:44:39 [error] 1#1: *4 {message}, client: ::1, server: s, request: \"GET / HTTP/1.1\""
        );
        assert_eq!(all(Format::Nginx, &line), [], "{message}");
    }
    for (message, rate) in
        [("limiting requests, excess: 1.0 by zone \"z\"", true), ("limiting connections by zone \"z\"", false)]
    {
        let line = format!(
            "2026/11/21 07:44:39 [error] 1#1: *4 {message}, client: ::1, server: s, request: \"GET / HTTP/1.1\""
        );
        let error = &all(Format::Nginx, &line)[0];
        assert_eq!((&error.hint, error.status), (&Hint::Refused { rate }, None));
    }
    let limit = "2026/11/21 07:44:39 [alert] 1#1: *4 1024 worker_connections are not enough while connecting to upstream, \
                 client: ::1, server: s, request: \"GET / HTTP/1.1\", upstream: \"http://127.0.0.1:9/\", host: \"h\"";
    assert_eq!(all(Format::Nginx, limit)[0].hint, Hint::ProxyLimit);
}

#[test]
fn the_access_log_of_nginx_has_the_status() {
    let errors = all(Format::NginxAccess, include_str!("fixtures/nginx-access.log"));
    let statuses: Vec<_> = errors.iter().map(|error| error.status.unwrap()).collect();
    assert_eq!(statuses, [502, 502, 502, 504, 502, 502, 502], "and 499 is none");
    assert_eq!(errors[0].path.as_deref(), Some("/six/a"));
    assert_eq!(errors[0].time_micros, Some(1_795_247_082_000_000));
    let odd = "127.0.0.1 - a [21/Nov/2026:01:00:00 +0000] b [21/Nov/2026:07:44:36 +0000] \"GET / HTTP/1.1\" 504 1 \"-\" \"-\"";
    assert_eq!(all(Format::NginxAccess, odd)[0].time_micros, Some(1_795_247_076_000_000));
}

#[test]
fn haproxy_says_who_and_when() {
    let errors = all(Format::Haproxy, include_str!("fixtures/haproxy.log"));
    let expected = [
        "refused Connect { errno: None } 503 be_refused/s1",
        "unreach ConnectTimeout 503 be_unreach/s1",
        "drop ConnectTimeout 503 be_drop/s1",
        "fin Receive { errno: None } 502 be_fin/s1",
        "rst Receive { errno: None } 502 be_rst/s1",
        "part Receive { errno: None } 502 be_part/s1",
        "ssh InvalidResponse 502 be_ssh/s1",
        "big InvalidResponse 502 be_big/s1",
        "own PassedOn 502 be_own/s1",
        "missing Connect { errno: None } 503 be_missing/s1",
        "tlsplain Connect { errno: None } 503 be_tlsplain/s1",
        "down NoLiveUpstream 503 -",
        "none NoLiveUpstream 503 -",
        "silent QueueTimeout 503 -",
        "silent ResponseTimeout 504 be_silent/s1",
        "silent ResponseTimeout 504 be_silent/s1",
        "refused Connect { errno: None } 503 be_refused/s1",
        "unreach ConnectTimeout 503 be_unreach/s1",
    ];
    assert_eq!(brief(&errors), expected);
    assert_eq!((errors[0].pid, errors[0].client_port), (Some(8415), Some(38034)));
    assert_eq!(errors[0].client, Some("127.0.0.1".parse().unwrap()));
    // Accepted at 07:44:43.759, answered 1,002 ms later.
    assert_eq!(errors[0].time_micros, Some(1_795_247_084_761_000));
    assert_eq!(errors[16].pid, None, "without syslog there is no pid");
}

#[test]
fn other_lines_of_haproxy() {
    let tail = "0/0/0/-1/5 502 209 - - SH-- 1/1/0/0/+1 0/0 \"GET https://shop.example/a?q HTTP/2.0\"";
    for (prefix, ip) in
        [("2001:db8::1:443", "2001:db8::1"), ("Nov 21 07:44:44 gw haproxy[7]: 192.0.2.9:443", "192.0.2.9")]
    {
        let error = &all(Format::Haproxy, &format!("{prefix} [21/Nov/2026:07:44:48.805] fe~ be/s {tail}"))[0];
        assert_eq!((error.client, error.client_port), (Some(ip.parse().unwrap()), Some(443)));
        assert_eq!((error.host.as_deref(), error.path.as_deref()), (Some("shop.example"), Some("/a")));
    }
    for rest in [
        "0/0/0/-1/5 -1 0 - - CH-- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"",
        "0/0/0/1/5 200 9 - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"",
        "0/-1/-1/-1/0 403 9 - - PR-- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"",
    ] {
        assert_eq!(all(Format::Haproxy, &format!("1.2.3.4:5 [21/Nov/2026:07:44:48.805] fe be/s {rest}")), []);
    }
}

#[test]
fn apache_tells_one_failure_in_several_lines() {
    let errors = all(Format::Apache, include_str!("fixtures/apache-error.log"));
    let expected = [
        "- Connect { errno: Some(111) } 503 127.0.0.1:9001",
        "- Connect { errno: Some(113) } 503 127.0.0.1:9021",
        "- ConnectTimeout 503 127.0.0.1:9022",
        "fin ClosedEarly 502 127.0.0.1:9003",
        "rst Receive { errno: Some(104) } 502 127.0.0.1:9004",
        "now Receive { errno: Some(104) } 502 127.0.0.1:9014",
        "silent ResponseTimeout 502 127.0.0.1:9008",
        "part ClosedEarly 502 -",
        "big HeaderTooBig 502 -",
        "nx Unresolved { name: \"nx.example\" } 500 -",
        "- Connect { errno: Some(2) } 503 unix:/run/shop/missing.sock",
        "- Connect { errno: Some(111) } 503 127.0.0.1:9001",
        "- ClosedEarly 503 -",
        "- ResponseTimeout 504 -",
        "tlsplain TlsHandshake 500 127.0.0.1:9013",
        "tlsverify TlsVerify 500 127.0.0.1:9443",
        "- Connect { errno: Some(111) } 503 127.0.0.1:9001",
        "- Connect { errno: Some(111) } 503 127.0.0.1:9001",
    ];
    let brief = brief(&errors);
    assert_eq!(brief.iter().map(|line| line.trim_start()).collect::<Vec<_>>(), expected);
    assert!(errors.iter().all(|error| error.client_port.is_some() && error.tid.is_some()));
    assert_eq!((errors[0].pid, errors[0].tid, errors[0].client_port), (Some(8430), Some(8487), Some(54536)));
    assert_eq!(errors[0].time_micros, Some(1_795_247_091_329_057));
    assert_eq!(errors[7].method.as_deref(), Some("GET"));
}

#[test]
fn lines_of_two_threads_of_apache_do_not_mix() {
    let connect = |tid: u32, port: u32| {
        format!(
            "[Sat Nov 21 07:44:51.1 2026] [proxy:error] [pid 1:tid {tid}] (111)Connection refused: AH00957: http: attempt to connect to 127.0.0.1:{port} (127.0.0.1:{port}) failed"
        )
    };
    let end = |tid: u32| {
        format!(
            "[Sat Nov 21 07:44:51.2 2026] [proxy_http:error] [pid 1:tid {tid}] [client 127.0.0.1:5{tid}] AH01114: HTTP: failed to make connection to backend: 127.0.0.1"
        )
    };
    let errors = all(Format::Apache, &[connect(5, 9001), connect(6, 9002), end(5), end(6), end(7)].join("\n"));
    let seen: Vec<_> = errors.iter().map(|error| (error.tid.unwrap(), error.upstream.as_deref())).collect();
    assert_eq!(seen, [(5, Some("127.0.0.1:9001")), (6, Some("127.0.0.1:9002")), (7, None)]);
}

#[test]
fn caddy_says_why_once() {
    let errors = all(Format::Caddy, include_str!("fixtures/caddy.log"));
    let expected = [
        "refused Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "unreach Connect { errno: Some(113) } 502 127.0.0.1:9021",
        "drop ConnectTimeout 502 127.0.0.1:9022",
        "fin ClosedEarly 502 -",
        "rst Receive { errno: Some(104) } 502 127.0.0.1:9004",
        "silent ResponseTimeout 504 -",
        "part InvalidResponse 502 -",
        "ssh InvalidResponse 502 -",
        "own StatusOnly 502 -",
        "missing Connect { errno: Some(2) } 502 unix:/run/shop/missing.sock",
        "nx Unresolved { name: \"nx.example\" } 502 -",
        "tlsplain TlsHandshake 502 -",
        "tlsverify TlsVerify 502 -",
        "tlssilent TlsTimeout 504 -",
        "grp Connect { errno: Some(111) } 502 127.0.0.1:9001",
        "grp NoLiveUpstream 503 -",
        "fin ClosedEarly 502 -",
    ];
    assert_eq!(brief(&errors), expected);
    assert_eq!((errors[0].client_port, errors[4].upstream_local_port), (Some(36452), Some(51018)));
    assert_eq!(errors[0].time_micros.map(|at| at / 1000), Some(1_795_247_094_792));
    assert_eq!(errors[0].host.as_deref(), Some("shop.example"));
}

#[test]
fn hostile_lines_are_harmless() {
    let texts = [
        include_str!("fixtures/nginx-error.log"),
        include_str!("fixtures/nginx-access.log"),
        include_str!("fixtures/haproxy.log"),
        include_str!("fixtures/apache-error.log"),
        include_str!("fixtures/caddy.log"),
    ];
    let formats = [Format::Nginx, Format::NginxAccess, Format::Haproxy, Format::Apache, Format::Caddy];
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    for format in formats {
        let mut parser = Parser::new(format);
        for line in texts.iter().flat_map(|text| text.lines()) {
            for cut in 0..line.len() {
                parser.read(&line.as_bytes()[..cut], 0);
            }
            for _ in 0..50 {
                let mut bytes = line.as_bytes().to_vec();
                for _ in 0..3 {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }
                parser.read(&bytes, i32::MAX);
            }
        }
        for line in
            [vec![0xff; 100_000], vec![b'['; 100_000], vec![b'{'; 100_000], b"\0\x1b[31m".repeat(10_000), Vec::new()]
        {
            assert_eq!(parser.read(&line, 0), None);
        }
        assert!(parser.read(format!("[{}", "] [".repeat(30_000)).as_bytes(), 0).is_none());
    }
}

#[test]
fn what_is_kept_of_a_line_is_bounded() {
    let line = format!(
        "2026/11/21 07:44:36 [error] 1#1: *1 connect() failed (111: x) while connecting to upstream, client: ::1, server: s, \
         request: \"GET /{} HTTP/1.1\", upstream: \"http://h{}/\", host: \"{}\"",
        "é".repeat(4000),
        "u".repeat(4000),
        "h".repeat(4000)
    );
    let error = &all(Format::Nginx, &line)[0];
    for kept in [&error.path, &error.upstream, &error.host] {
        assert_eq!(kept.as_ref().unwrap().chars().count(), 1024);
    }
}
