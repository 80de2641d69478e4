//! What a proxy written in Go says inside TLS, where its hooks stand twice and where there is no room for its calls.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};

use trace502::decode;
use trace502::kernel::tls_library::Visible;
use trace502::kernel::{Kernel, Options, Ring};
use trace502::model::*;
use trace502_ebpf::{PROC_LOOSE, PROC_PROXY};
use trace502_tests::client::{Answer, Ask, Client, trusting};
use trace502_tests::netns;
use trace502_tests::proxies::{Kind, Proxy};
use trace502_tests::route::Route;
use trace502_tests::world::{Place, Ports, World, alone};

/// Caddy before nobody and before somebody, and probes that see nobody else.
struct Scene {
    kernel: Kernel,
    ring: Ring,
    caddy: Proxy,
    world: Arc<World>,
}

impl Scene {
    fn new(options: &Options) -> Scene {
        let world = World::new(Ports::Plenty).unwrap();
        let gone = Route::to("gone", format!("127.0.0.1:{}", world.port()));
        let here = Route::to("here", world.shared_at(Place::Loopback, "ok"));
        world.start_shared().unwrap();
        let caddy = Proxy::start(Kind::Caddy, &world, &[gone, here]).unwrap();
        let mut kernel = Kernel::load(options).unwrap();
        kernel.track(caddy.pid(), PROC_PROXY | PROC_LOOSE).unwrap();
        let seen = kernel.watch_tls(caddy.pid());
        assert!(matches!(seen, Visible::Hooked(_)), "{seen:?}");
        kernel.find_existing();
        let ring = Ring::new(kernel.take_ring().unwrap());
        Scene { kernel, ring, caddy, world }
    }

    /// Runs this for as many clients at once.
    fn clients(&self, count: usize, each: impl Fn(usize, &mut Client) + Sync) {
        let (handle, each) = (self.world.proxies.handle(), &each);
        let trust = trusting(&self.world.certs.cert("ca")).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], self.caddy.secure));
        std::thread::scope(|scope| {
            for number in 0..count {
                let (handle, trust) = (handle.clone(), trust.clone());
                scope.spawn(move || {
                    netns::enter(&handle).unwrap();
                    each(number, &mut Client::secure(at, &trust).unwrap());
                });
            }
        });
    }

    /// The paths of the errors that were told. What a client has read was told before.
    fn told(&mut self) -> Vec<String> {
        let (ring, names) = (&mut self.ring, &self.kernel.names);
        let mut told = Vec::new();
        ring.drain(usize::MAX, |record| {
            if let Fact::Client(error) = decode::decode(record, names).unwrap().fact {
                assert_eq!(error.outcome, ClientOutcome::Status(502));
                let head = String::from_utf8(error.conn.request_head).unwrap();
                told.push(head.split(' ').nth(1).unwrap_or_default().to_owned());
            }
        });
        told
    }
}

#[test]
fn an_answer_counts_once_while_the_hooks_of_two_versions_stand() {
    let Some(_alone) = alone() else { return };
    let mut scene = Scene::new(&Options::default());
    let before = scene.kernel.unhook(scene.caddy.pid());
    assert!(matches!(scene.kernel.watch_tls(scene.caddy.pid()), Visible::Hooked(_)));
    let paths: Vec<String> = (0..5).map(|number| format!("/gone/{number}")).collect();
    let ask = |client: &mut Client| {
        for path in &paths {
            assert_eq!(client.ask(&Ask::get(path)), Answer::Status(502));
        }
    };
    scene.clients(1, |_, client| ask(client));
    assert_eq!(scene.told(), paths, "while both stand");
    scene.kernel.let_go(before);
    scene.clients(1, |_, client| ask(client));
    assert_eq!(scene.told(), paths, "with the new ones alone, or nearly so");
}

#[test]
fn nothing_wrong_is_told_of_a_client_some_of_whose_calls_there_was_no_room_for() {
    let Some(_alone) = alone() else { return };
    let mut scene = Scene::new(&Options { room: Some(4), ..Options::default() });
    let all = Barrier::new(16);
    // Every second request is answered well, so that an error which is told of the request before is seen to be wrong.
    scene.clients(16, |number, client| {
        // All of them are connected, and Caddy waits for what each of them says.
        all.wait();
        for turn in 0..50 {
            assert_eq!(client.ask(&Ask::get(format!("/here/{number}-{turn}"))), Answer::Status(200));
            assert_eq!(client.ask(&Ask::get(format!("/gone/{number}-{turn}"))), Answer::Status(502));
        }
    });
    assert!(scene.kernel.lost()[0] > 0, "there was room for all");
    let told = scene.told();
    let right: BTreeSet<&String> = told.iter().filter(|path| path.starts_with("/gone/")).collect();
    assert_eq!(right.len(), told.len(), "{told:?}");
}
