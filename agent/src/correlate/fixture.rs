//! A small world for tests: a host that answers what it was told, and builders for what the kernel says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Engine;
use crate::host::{Activity, DescriptorFacts, Host, ListenerFacts, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::model::*;
use crate::text::{MILLI, SECOND};

pub const PROXY: Task = Task { pid: 100, tid: 100 };
pub const SERVER: u32 = 812;
pub const UPSTREAM: &str = "127.0.0.1:8000";

#[derive(Default)]
pub struct FakeHost {
    pub processes: BTreeMap<u32, ProcessFacts>,
    pub listeners: Vec<ListenerFacts>,
    pub activity: BTreeMap<u32, Activity>,
    pub memory: BTreeMap<u32, MemoryFacts>,
    pub descriptors: BTreeMap<u32, DescriptorFacts>,
    pub paths: BTreeMap<String, PathFacts>,
    pub local: Vec<IpAddr>,
}

impl Host for FakeHost {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        1_795_230_000_000_000 + (at / 1_000) as i64
    }
    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>> {
        self.processes.get(&pid).cloned().map(Arc::new)
    }
    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let same = |p: &&ProcessFacts| {
            p.alive && p.pid != like.pid && (p.exe == like.exe || p.unit == like.unit && p.unit.is_some())
        };
        self.processes.values().filter(same).cloned().collect()
    }
    fn activity(&mut self, pid: u32) -> Option<Activity> {
        self.activity.get(&pid).cloned()
    }
    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        self.memory.get(&pid).cloned()
    }
    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        self.descriptors.get(&pid).copied()
    }
    fn listeners(&mut self, _netns: u32) -> Listeners {
        self.listeners.clone().into()
    }
    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        (addr.is_loopback() || self.local.contains(&addr)).then_some(prefer)
    }
    fn path(&mut self, _pid: u32, path: &str) -> PathFacts {
        self.paths.get(path).cloned().unwrap_or_default()
    }
    fn symbol(&mut self, _address: u64) -> Option<String> {
        Some("nf_hook_slow".into())
    }
}

pub struct World {
    pub host: FakeHost,
    pub engine: Engine,
    pub now: Nanos,
    pub notices: Vec<Notice>,
    comm: String,
    cookies: u64,
    seen: Vec<Observation>,
}

pub fn proc(pid: u32, comm: &str) -> Proc {
    Proc { pid, comm: comm.into(), cgroup: 40 + u64::from(pid), is_proxy: false }
}

pub fn process(pid: u32, name: &str, exe: &str) -> ProcessFacts {
    ProcessFacts { pid, parent: 1, name: name.into(), exe: Some(exe.into()), alive: true, ..ProcessFacts::default() }
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").into_bytes()
}

impl World {
    /// A proxy with pid 100 and, on this host, uvicorn with pid 812 as its upstream.
    pub fn new(comm: &str) -> World {
        let mut host = FakeHost::default();
        host.processes.insert(PROXY.pid, process(PROXY.pid, comm, &format!("/usr/sbin/{comm}")));
        let mut server = process(SERVER, "uvicorn", "/usr/bin/python3.11");
        server.unit = Some("shop.service".into());
        server.cmdline = vec!["python3.11".into(), "uvicorn".into(), "shop:app".into()];
        host.processes.insert(SERVER, server);
        World {
            host,
            engine: Engine::new(),
            now: 1_000 * SECOND,
            notices: Vec::new(),
            comm: comm.into(),
            cookies: 1_000,
            seen: Vec::new(),
        }
    }

    pub fn pass(&mut self, time: Nanos) -> &mut Self {
        self.now += time;
        self
    }

    pub fn see_at(&mut self, at: Nanos, task: Option<Task>, fact: Fact) -> &mut Self {
        let seen = Observation { at, task, fact };
        self.engine.observe(seen.clone(), &mut self.host);
        self.seen.push(seen);
        self.notices.extend(self.engine.drain());
        self
    }

    pub fn see(&mut self, fact: Fact) -> &mut Self {
        self.see_at(self.now, Some(PROXY), fact)
    }

    pub fn listening(&mut self, endpoint: Endpoint, pid: u32) -> &mut Self {
        self.see(Fact::Listening(listening(900 + u64::from(pid), endpoint, pid)))
    }

    pub fn listener_closed(&mut self, endpoint: Endpoint, pid: u32) -> &mut Self {
        let fact = Fact::ListenerClosed(listening(900 + u64::from(pid), endpoint, pid));
        self.see_at(self.now, Some(Task { pid, tid: pid }), fact)
    }

    pub fn exit(&mut self, pid: u32, status: ExitStatus) -> &mut Self {
        if let Some(p) = self.host.processes.get_mut(&pid) {
            p.alive = false;
        }
        let comm = self.host.processes.get(&pid).map_or("uvicorn".into(), |p| p.name.clone());
        let fact = Fact::Exit { proc: proc(pid, &comm), parent: None, status };
        self.see_at(self.now, Some(Task { pid, tid: pid }), fact)
    }

    pub fn signal(&mut self, target: u32, signal: i32, sender: Proc) -> &mut Self {
        let task = Task { pid: sender.pid, tid: sender.pid };
        let fact = Fact::Signal { target: proc(target, "uvicorn"), signal, sender, from_kernel: false };
        self.see_at(self.now, Some(task), fact)
    }

    /// A connection of the proxy that was opened 2 ms ago and asked for /api/cart 1 ms ago.
    pub fn conn(&mut self, remote: Option<SocketAddr>) -> Connection {
        self.cookies += 1;
        Connection {
            cookie: self.cookies,
            flow: remote.map(|remote| Flow {
                local: SocketAddr::new(remote.ip(), 40_000 + (self.cookies % 20_000) as u16),
                remote,
                netns: 7,
            }),
            cgroup: 5,
            last_state: 1,
            opened: Some(self.now - 2 * MILLI),
            established: Some(self.now - 2 * MILLI + 90_000),
            asked: Some(self.now - MILLI),
            request_bytes: 47,
            request_head: get("/api/cart"),
            ..Connection::unseen(PROXY, &self.comm, Phase::Asked)
        }
    }

    /// An attempt on [`UPSTREAM`] for request 1 of client 7 that ended now.
    pub fn attempt(&mut self) -> Attempt {
        let target = addr(UPSTREAM);
        Attempt {
            handover: Handover::Failed,
            endpoint: Endpoint::Tcp(target),
            conn: self.conn(Some(target)),
            bound: Some(Bound { client: 7, request: 1, choices: 1, retry: false, proven: false }),
            tcp: Some(Tcp {
                state: 1,
                retransmits: 0,
                in_flight: 0,
                unread: 0,
                unacked: 0,
                window: 64_000,
                idle_in_ms: None,
                idle_out_ms: None,
            }),
            peer: None,
            listener: ListenerSeen::Unknown,
            handshake: None,
            stream_head: Vec::new(),
        }
    }

    /// The upstream's own end: accepted, everything read, open.
    pub fn peer(&self) -> Peer {
        Peer {
            cookie: 5_000,
            netns: 7,
            accepted: true,
            live: true,
            state: 1,
            closed_first: false,
            closed: None,
            closed_by: None,
            read_by: None,
            unread: 0,
            got_reset: false,
            sent_reset: false,
            reset_reason: None,
        }
    }

    /// The upstream's own end: closed by its process a moment ago.
    pub fn closed_peer(&self, by: u32) -> Peer {
        let closed = Some(self.now - 100_000);
        Peer { closed_first: true, closed, closed_by: Some(by), live: false, ..self.peer() }
    }

    pub fn refused(&mut self) -> Attempt {
        let now = self.now;
        let mut a = self.attempt();
        a.conn.phase = Phase::Connecting;
        a.conn.errno = Some(libc::ECONNREFUSED);
        a.conn.established = None;
        a.conn.asked = None;
        a.conn.request_bytes = 0;
        a.conn.request_head.clear();
        a.conn.opened = Some(now - 200_000);
        a.conn.reset = Some(now - 100_000);
        a.listener = ListenerSeen::Absent;
        a
    }

    /// A reset without a socket, sent by the stack of this attempt's target.
    pub fn stack_reset(&mut self, attempt: &Attempt, reason: Option<&str>) -> &mut Self {
        let flow = attempt.conn.flow.unwrap();
        self.see_at(
            attempt.conn.reset.unwrap_or(self.now),
            None,
            Fact::ResetSent(packet(Flow { local: flow.remote, remote: flow.local, netns: 7 }, reason)),
        )
    }

    pub fn tell(&mut self, attempt: Attempt) -> &mut Self {
        self.see(Fact::Attempt(Box::new(attempt)))
    }

    pub fn connect_failed(&mut self, endpoint: Endpoint, errno: i32) -> &mut Self {
        let comm = self.comm.clone();
        self.see(Fact::ConnectFailed(ConnectFailed {
            endpoint,
            netns: 7,
            comm,
            cgroup: 5,
            cookie: None,
            bound: Some(Bound { client: 7, request: 1, choices: 1, retry: false, proven: false }),
            in_turn: false,
            errno,
            listener: ListenerSeen::Unknown,
        }))
    }

    /// The error of request 1 of client 7, asked 3 ms before everything else began.
    pub fn error(&mut self, outcome: ClientOutcome) -> ClientError {
        let mut conn = self.conn(Some(addr("127.0.0.1:51234")));
        if let Some(flow) = &mut conn.flow {
            *flow = Flow { local: addr("127.0.0.1:80"), remote: addr("127.0.0.1:51234"), netns: 7 };
        }
        conn.cookie = 7;
        conn.asked = Some(self.now - 3 * MILLI);
        conn.phase = Phase::Answered;
        ClientError { outcome, conn }
    }

    pub fn answered(&mut self, status: u16) -> &mut Self {
        let error = self.error(ClientOutcome::Status(status));
        self.see(Fact::Client(error))
    }

    /// Everything that was found once every deadline has passed.
    pub fn all(&mut self) -> Vec<Incident> {
        self.engine.finish(&mut self.host);
        self.notices.extend(self.engine.drain());
        let incidents = self.notices.iter().filter_map(|n| match n {
            Notice::Incident(incident) => Some((**incident).clone()),
            _ => None,
        });
        incidents.collect()
    }

    pub fn failures(&mut self) -> Vec<String> {
        self.all();
        let failures = self.notices.iter().filter_map(|n| match n {
            Notice::Failure(f) => Some(f.cause.clone()),
            _ => None,
        });
        failures.collect()
    }

    /// The one incident there is.
    #[track_caller]
    pub fn incident(&mut self) -> Incident {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    /// The one incident has this cause with this confidence.
    #[track_caller]
    pub fn expect(&mut self, cause: &str, confidence: Confidence) -> Incident {
        let incident = self.incident();
        assert_eq!((incident.cause.as_str(), incident.confidence), (cause, confidence), "{incident:#?}");
        if confidence == Confidence::Certain {
            self.with_losses();
        }
        incident
    }

    /// The same story, but some of it may have been lost: then nothing is certain.
    #[track_caller]
    fn with_losses(&mut self) {
        let mut engine = Engine::new();
        for seen in &self.seen {
            if matches!(seen.fact, Fact::Client(_)) {
                engine.lost(seen.at, 1);
            }
            engine.observe(seen.clone(), &mut self.host);
        }
        engine.finish(&mut self.host);
        for notice in engine.drain() {
            if let Notice::Incident(incident) = notice {
                assert_ne!(incident.confidence, Confidence::Certain, "records were lost: {incident:#?}");
            }
        }
    }
}

pub fn listening(cookie: Cookie, endpoint: Endpoint, pid: u32) -> Listening {
    Listening {
        cookie,
        endpoint,
        netns: 7,
        pid,
        comm: "uvicorn".into(),
        cgroup: 40 + u64::from(pid),
        queue: 0,
        limit: 128,
        is_proxy: false,
    }
}

pub fn packet(flow: Flow, reason: Option<&str>) -> Packet {
    Packet {
        flow,
        reason: reason.map(str::to_owned),
        location: Some(0xffff_ffff_8100_0000),
        tcp_flags: 4,
        has_socket: false,
        state: 0,
    }
}
