//! What keeps a connection from being made.

use super::*;

#[test]
fn nothing_listens_and_the_port_is_off_by_one() {
    let mut w = World::new("nginx");
    w.host.listeners.push(listener("127.0.0.1:8001", SERVER));
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("no_listener", Certain);
    assert_eq!(i.summary, "nothing listens on 127.0.0.1:8000");
    assert_eq!(i.fix[1], "did you mean 127.0.0.1:8001? uvicorn (pid 812) listens there");
    assert_eq!(i.time, "2026-11-21T03:16:40.000080Z");
    assert_eq!(i.attempts.len(), 1);
    assert_eq!(i.request.path.as_deref(), Some("/api/cart"));
}

fn listener(at: &str, pid: u32) -> ListenerFacts {
    let endpoint = Endpoint::Tcp(addr(at));
    ListenerFacts { endpoint, pid: Some(pid), name: None, queue: 0, limit: 128, dual: false }
}

#[test]
fn the_port_is_listened_on_elsewhere() {
    let mut w = World::new("nginx");
    w.host.listeners.push(listener("[::1]:8000", SERVER));
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("wrong_interface", Certain);
    assert!(i.summary.contains("uvicorn (pid 812) listens on [::1]:8000"), "{}", i.summary);
    assert!(i.fix[1].contains("proxy_pass"), "{:?}", i.fix);
}

/// What nginx makes of a refused port on which this process listens at another address.
fn listened_on_elsewhere(pid: u32, name: Option<&str>, gone: bool) -> Incident {
    let mut w = World::new("nginx");
    w.host.processes.insert(101, process(101, "nginx", "/usr/sbin/nginx"));
    w.host.local.push(addr("10.9.9.1:0").ip());
    let owner = ListenerFacts { name: name.map(str::to_owned), ..listener("10.9.9.1:8000", pid) };
    w.host.listeners.push(owner);
    if gone {
        w.listening(here(), 900).pass(SECOND).listener_closed(here(), 900).pass(SECOND);
    }
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    w.incident()
}

#[test]
fn a_proxy_on_the_port_that_it_dials_elsewhere_is_not_what_was_meant() {
    assert_eq!(listened_on_elsewhere(SERVER, None, false).cause, "wrong_interface");
    for (pid, name) in [(PROXY.pid, None), (101, None), (4_000, Some("haproxy"))] {
        let i = listened_on_elsewhere(pid, name, false);
        assert_eq!((i.cause.as_str(), i.confidence), ("no_listener", Certain), "{i:#?}");
        assert!(!i.fix.iter().any(|fix| fix.contains("10.9.9.1")), "{:?}", i.fix);
    }
}

#[test]
fn who_listened_on_that_very_address_and_stopped_was_meant() {
    let i = listened_on_elsewhere(SERVER, None, true);
    assert_eq!(i.cause, "no_listener", "{i:#?}");
    assert!(i.summary.contains("stopped listening there"), "{}", i.summary);
}

#[test]
fn an_icmp_message_that_says_prohibited_is_a_filter() {
    for (to, local) in [("[::1]:8000", true), ("[2001:db8::7]:8000", false)] {
        let mut w = World::new("nginx");
        let mut a = unanswered(&mut w, SECOND);
        a.endpoint = Endpoint::Tcp(addr(to));
        a.conn.flow = a.conn.flow.map(|flow| Flow { local: addr("[::1]:40001"), remote: addr(to), ..flow });
        a.conn.errno = Some(libc::EACCES);
        w.tell(a);
        error_after(&mut w, SECOND, ClientOutcome::Status(502));
        let i = w.expect("firewall_reject", Certain);
        assert!(i.summary.ends_with("is prohibited: EACCES, 1 s after the connect"), "{}", i.summary);
        assert_eq!(i.fix[0].contains("routers"), !local, "{:?}", i.fix);
    }
}

#[test]
fn refused_although_somebody_listens_is_a_filter() {
    let mut w = nginx();
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

#[test]
fn refused_by_the_stack_just_before_somebody_listened_is_no_filter() {
    let mut w = World::new("nginx");
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
    let i = w.expect("no_listener", Certain);
    assert!(i.summary.contains("yet"), "{}", i.summary);
}

#[test]
fn a_redirected_connection_that_is_refused_is_no_filter() {
    let mut w = nginx();
    let mut a = w.refused();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    // Not a loopback address, which never leaves its namespace.
    let flow = Flow { local: addr("10.0.0.5:40001"), ..a.conn.flow.unwrap() };
    a.conn.flow = Some(flow);
    let sender = Flow { local: addr("172.17.0.2:80"), remote: flow.local, netns: 9 };
    w.see(Fact::ResetSent(packet(sender, Some("NO_SOCKET"))));
    a.conn.opened = Some(w.now - 100_000);
    w.tell(a).pass(80_000).answered(502);
    w.expect("no_listener", Likely);
}

#[test]
fn icmp_from_a_filter_in_front_of_a_listener() {
    let mut w = nginx();
    let mut a = w.refused();
    a.conn.errno = Some(libc::EHOSTUNREACH);
    a.conn.reset = None;
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 0, limit: 128 };
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

#[test]
fn a_reject_rule_on_the_way_out_drops_the_syn() {
    let mut w = World::new("nginx");
    let mut a = elsewhere(w.refused());
    a.conn.reset = None;
    drop_of(&mut w, &a, "NETFILTER_DROP");
    w.tell(a).pass(80_000).answered(502);
    w.expect("firewall_reject", Certain);
}

#[test]
fn a_dropped_syn_is_the_filters() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    drop_of(&mut w, &a, "NETFILTER_DROP");
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("firewall_drop", Certain);
    assert!(i.summary.contains("NETFILTER_DROP in nf_hook_slow"), "{}", i.summary);
}

#[test]
fn a_syn_without_answer_or_drop_is_a_timeout() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("syn_timeout", Certain);
    assert_eq!(i.summary, "no answer to 3 SYNs to 10.9.0.2:8000 until nginx gave up after 5 s");
}

#[test]
fn what_was_lost_makes_a_timeout_likely() {
    let mut w = World::new("nginx");
    let a = unanswered(&mut w, 5 * SECOND);
    let lost = w.now - SECOND;
    w.engine.lost(lost, 3);
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    w.expect("syn_timeout", Likely);
}

#[test]
fn a_full_accept_queue() {
    let mut w = nginx();
    w.host.activity.insert(SERVER, Activity { states: "R".into(), busy: true, ..Activity::default() });
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.conn.flow = Some(Flow { local: addr("127.0.0.1:40001"), remote: addr(UPSTREAM), netns: 7 });
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 129, limit: 128 };
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("accept_queue_full", Certain);
    assert!(i.summary.contains("129 waiting, room for 128; it is busy on CPU"), "{}", i.summary);
}

/// A listener in a container: its figures are asked of the kernel a little later, and are no proof of that moment.
#[test]
fn a_full_queue_that_was_read_later_is_likely() {
    let mut w = nginx();
    w.host.processes.insert(SERVER, process(SERVER, "php-fpm8.4", "/usr/sbin/php-fpm8.4"));
    w.host.listeners = vec![ListenerFacts { queue: 129, ..listener(UPSTREAM, SERVER) }];
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.conn.flow = Some(Flow { local: addr("127.0.0.1:40001"), remote: addr(UPSTREAM), netns: 7 });
    a.listener = ListenerSeen::Unknown;
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    let i = w.expect("accept_queue_full", Likely);
    assert!(i.fix.iter().any(|fix| fix.contains("pm.max_children")), "{:?}", i.fix);
}

/// The sockets that share the address: their owners and how many wait for each.
fn shared(queues: &[(u32, u32)]) -> World {
    let mut w = nginx();
    let sockets = queues.iter().map(|(pid, queue)| ListenerFacts { queue: *queue, ..listener(UPSTREAM, *pid) });
    w.host.listeners.extend(sockets);
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.conn.flow = Some(Flow { local: addr("127.0.0.1:40001"), remote: addr(UPSTREAM), netns: 7 });
    a.listener = ListenerSeen::Shared;
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    w
}

#[test]
fn of_those_who_share_an_address_the_full_one_is_told() {
    let room = listener(UPSTREAM, SERVER).limit;
    let mut w = shared(&[(SERVER, 0), (SERVER + 1, room + 1)]);
    let i = w.expect("accept_queue_full", Likely);
    assert!(i.summary.contains(&format!("{} waiting, room for {room}", room + 1)), "{}", i.summary);
    assert!(i.evidence.iter().any(|e| e.text.contains("share the address")), "{:?}", i.evidence);
    let mut w = shared(&[(SERVER, room + 2), (SERVER + 1, room + 1)]);
    let i = w.expect("accept_queue_full", Likely);
    assert!(!i.evidence.iter().any(|e| e.text.contains("share the address")), "{:?}", i.evidence);
    shared(&[(SERVER, room), (SERVER + 1, 0)]).expect("syn_timeout", Certain);
}

#[test]
fn a_queue_with_room_is_not_full() {
    let mut w = nginx();
    let mut a = unanswered(&mut w, 5 * SECOND);
    a.endpoint = here();
    a.listener = ListenerSeen::Present { cookie: 1_712, pid: SERVER, queue: 128, limit: 128 };
    w.tell(a);
    error_after(&mut w, 5 * SECOND, ClientOutcome::Status(504));
    w.expect("syn_timeout", Certain);
}

fn unix() -> Endpoint {
    Endpoint::Unix("/run/app.sock".into())
}

#[test]
fn errors_of_unix_sockets() {
    for (errno, cause) in [
        (libc::EAGAIN, "accept_queue_full"),
        (libc::ENOENT, "socket_missing"),
        (libc::EACCES, "permission_denied"),
        (libc::ECONNREFUSED, "no_listener"),
    ] {
        let mut w = World::new("nginx");
        w.host.paths.insert("/run/app.sock".into(), PathFacts { exists: true, mode: 0o600, ..PathFacts::default() });
        w.connect_failed(unix(), errno).pass(50_000).answered(502);
        let i = w.expect(cause, Certain);
        assert_eq!(i.upstream.unwrap().addr, "unix:/run/app.sock");
        if cause == "permission_denied" {
            assert!(i.summary.contains("mode 0600"), "{}", i.summary);
        }
    }
}

#[test]
fn a_socket_that_went_with_its_process() {
    let mut w = World::new("nginx");
    w.listening(unix(), SERVER).pass(SECOND);
    w.exit(SERVER, ExitStatus::Signal { signal: 11, core: false }).listener_closed(unix(), SERVER).pass(SECOND);
    w.connect_failed(unix(), libc::ENOENT).pass(50_000).answered(502);
    w.expect("upstream_crashed", Certain);
}

#[test]
fn errnos_of_tcp_connects() {
    for (errno, cause) in [
        (libc::ENETUNREACH, "network_unreachable"),
        (libc::EADDRNOTAVAIL, "port_exhaustion"),
        (libc::EPERM, "permission_denied"),
        (libc::EMFILE, "proxy_limit"),
    ] {
        let mut w = World::new("nginx");
        w.connect_failed(Endpoint::Tcp(addr("10.9.0.2:80")), errno).pass(50_000).answered(502);
        w.expect(cause, Certain);
    }
}

/// Where IPv6 is off, ::1 has no address to come from, however many ports there are.
#[test]
fn no_address_of_ipv6_is_no_proof_that_ports_ran_out() {
    let mut w = World::new("nginx");
    w.connect_failed(Endpoint::Tcp(addr("[::1]:8000")), libc::EADDRNOTAVAIL).pass(50_000).answered(502);
    let i = w.expect("port_exhaustion", Likely);
    assert!(i.fix[0].contains("ip -6 addr") && i.summary.contains("no local address or port"), "{i:#?}");
}

#[test]
fn a_neighbour_that_does_not_answer() {
    let mut w = World::new("nginx");
    let mut a = unanswered(&mut w, 3_100 * MILLI);
    a.conn.errno = Some(libc::EHOSTUNREACH);
    drop_of(&mut w, &a, "NEIGH_FAILED");
    w.tell(a);
    error_after(&mut w, 3_100 * MILLI, ClientOutcome::Status(502));
    let i = w.expect("host_unreachable", Certain);
    assert!(i.summary.contains("no neighbour has that address"), "{}", i.summary);
    assert!(i.evidence.iter().any(|e| e.text.contains("NEIGH_FAILED")), "{i:#?}");
}

/// A filter of this host whose first answer was one too many says so a second later.
#[test]
fn time_alone_proves_no_neighbour() {
    let mut w = World::new("nginx");
    let mut a = elsewhere(unanswered(&mut w, 1_020 * MILLI));
    a.conn.errno = Some(libc::EHOSTUNREACH);
    w.tell(a);
    error_after(&mut w, 1_020 * MILLI, ClientOutcome::Status(502));
    let i = w.expect("host_unreachable", Likely);
    assert!(!i.summary.contains("neighbour") && i.summary.contains("filter"), "{}", i.summary);
}

#[test]
fn no_neighbour_is_asked_for_an_address_of_this_host() {
    let mut w = World::new("nginx");
    let mut a = w.refused();
    a.conn.errno = Some(libc::EHOSTUNREACH);
    a.conn.reset = None;
    a.conn.opened = Some(w.now - 1_020 * MILLI);
    a.tcp.as_mut().unwrap().retransmits = 1;
    w.tell(a);
    error_after(&mut w, 1_020 * MILLI, ClientOutcome::Status(502));
    let i = w.expect("host_unreachable", Likely);
    assert!(!i.summary.contains("neighbour") && i.summary.contains("filter"), "{}", i.summary);
}

#[test]
fn another_host_refused() {
    let mut w = World::new("nginx");
    let a = elsewhere(w.refused());
    w.tell(a).pass(50_000).answered(502);
    w.expect("refused_remote", Certain);
}
