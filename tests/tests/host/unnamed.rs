//! Proxies that are not known by their names: by the cgroup that they run in, and by what they do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trace502_tests::agent::Agent;
use trace502_tests::client::{Answer, Ask, ask_once};
use trace502_tests::daemon::PATIENCE;
use trace502_tests::guard;
use trace502_tests::netns;
use trace502_tests::service::{Draft, Service};
use trace502_tests::truth::Record;
use trace502_tests::world::{Place, Ports, World, alone};

/// What the executable is called: no proxy that anybody knows.
const NAME: &str = "t502-gateway";

/// Serves `/gone/`, where nobody listens, and `/here/`, which is well.
struct Gateway {
    at: SocketAddr,
    /// It ends with this.
    _service: Service,
}

/// nginx under another name.
fn gateway(world: &World, nobody: u16) -> Gateway {
    let dir = world.dir().join(NAME);
    std::fs::create_dir_all(&dir).unwrap();
    let program = dir.join(NAME);
    // A copy: what a link leads to would be told by its own name.
    std::fs::copy("/usr/sbin/nginx", &program).unwrap();
    let (port, here, at) = (world.port(), world.shared_at(Place::Loopback, "ok"), dir.display());
    let text = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         server {{ listen 127.0.0.1:{port};\n\
         location /gone/ {{ proxy_pass http://127.0.0.1:{nobody}; }}\n\
         location /here/ {{ proxy_pass http://{here}; }} }} }}\n"
    );
    let config = dir.join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let (log, config) = (dir.join("error.log").display().to_string(), config.display().to_string());
    let draft = Draft::program(world, &world.proxies, NAME, program, &["-e", &log, "-c", &config]);
    let service = draft.start_at(&format!("127.0.0.1:{port}")).unwrap();
    Gateway { at: ([127, 0, 0, 1], port).into(), _service: service }
}

const APP: &str = "\
const http = require('http');
const [port, upstream] = process.argv.slice(2);
http.createServer((request, response) => {
  const next = http.get(`http://${upstream}${request.url}`, (answer) => {
    answer.resume();
    answer.on('end', () => response.end('{}'));
  });
  next.on('error', () => { response.statusCode = 500; response.end(); });
}).listen(Number(port), '127.0.0.1');
";

/// An application that asks another service for each of its answers.
fn app(world: &World) -> Gateway {
    let script: PathBuf = world.dir().join("app.js");
    std::fs::write(&script, APP).unwrap();
    let port = world.port();
    let args = [script.display().to_string(), port.to_string(), world.shared_at(Place::Loopback, "ok")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let draft = Draft::program(world, &world.proxies, "t502-app", "/usr/bin/node", &args);
    let service = draft.start_at(&format!("127.0.0.1:{port}")).unwrap();
    Gateway { at: ([127, 0, 0, 1], port).into(), _service: service }
}

struct Scene {
    agent: Agent,
    world: Arc<World>,
    nobody: u16,
}

impl Scene {
    fn new(args: &[&str]) -> Scene {
        let world = World::new(Ports::Plenty).unwrap();
        world.shared(Place::Loopback, "ok");
        world.start_shared().unwrap();
        let agent = Agent::start(world.dir().join("agent.log"), args).unwrap();
        let nobody = world.port();
        Scene { world, nobody, agent }
    }

    fn ask(&self, at: SocketAddr, path: &str) -> Answer {
        let handle = self.world.proxies.handle();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                netns::enter(&handle).unwrap();
                ask_once(at, &Ask::get(path)).unwrap()
            });
            asked.join().unwrap()
        })
    }

    /// Asks for what fails until that is told.
    fn fails_and_is_told(&self, gateway: &Gateway) -> Record {
        let tries = std::cell::Cell::new(0);
        let told = guard::until(PATIENCE, || {
            tries.set(tries.get() + 1);
            let path = format!("/gone/{}", tries.get());
            assert_eq!(self.ask(gateway.at, &path), Answer::Status(502));
            let ours = |record: &Record| record.incident.request.path.as_deref() == Some(path.as_str());
            self.agent.records(1, Duration::from_secs(2), ours).pop()
        });
        told.unwrap_or_else(|| panic!("nothing is told: {}", self.agent.log()))
    }

    /// Asks for what is well, often, and ends the agent: nothing was told of that.
    fn stays_silent(self, at: SocketAddr) {
        for number in 0..100 {
            assert_eq!(self.ask(at, &format!("/here/{number}")), Answer::Status(200));
        }
        let told = self.agent.stop().unwrap();
        let asked =
            |record: &Record| record.incident.request.path.as_deref().is_some_and(|path| path.starts_with("/gone/"));
        assert!(told.iter().all(asked), "{:?}", told.iter().find(|record| !asked(record)));
    }
}

fn is_right(record: &Record, nobody: u16) {
    let (told, upstream) = (&record.incident, format!("127.0.0.1:{nobody}"));
    assert_eq!((told.status, told.cause.as_str(), told.proxy.name.as_str()), (Some(502), "no_listener", NAME));
    assert_eq!(
        told.upstream.as_ref().map(|upstream| upstream.addr.as_str()),
        Some(upstream.as_str()),
        "{}",
        record.line
    );
}

#[test]
fn a_proxy_of_another_name_is_known_by_its_cgroup() {
    let Some(_alone) = alone() else { return };
    let group = format!("cgroup:/{}/{NAME}.service", guard::prefix());
    if trace502_tests::cgroup::mounted(None).is_none() {
        return eprintln!("not looked at: no cgroup of version 2");
    }
    let scene = Scene::new(&["--proxy", &group]);
    let waits = || scene.agent.log().contains("waiting for it").then_some(());
    guard::until(PATIENCE, waits).unwrap_or_else(|| panic!("the group is there: {}", scene.agent.log()));
    let gateway = gateway(&scene.world, scene.nobody);
    is_right(&scene.fails_and_is_told(&gateway), scene.nobody);
    scene.stays_silent(gateway.at);
}

#[test]
fn a_proxy_of_another_name_is_found_by_what_it_does_and_a_healthy_application_stays_silent() {
    let Some(_alone) = alone() else { return };
    let scene = Scene::new(&["--any"]);
    let gateway = gateway(&scene.world, scene.nobody);
    is_right(&scene.fails_and_is_told(&gateway), scene.nobody);
    let app = app(&scene.world);
    scene.stays_silent(app.at);
}
