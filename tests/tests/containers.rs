//! A proxy and its upstream in real containers, each in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::MutexGuard;
use std::time::Duration;

use trace502::model::{Confidence, Incident, Process};
use trace502_tests::agent::{Agent, binary};
use trace502_tests::client::{Answer, Ask, ask_once};
use trace502_tests::daemon::{free, get};
use trace502_tests::guard::until;
use trace502_tests::netns::{self, Netns};
use trace502_tests::podman::{Container, Podman, Root, missing};
use trace502_tests::proxies::{Kind, Proxy};
use trace502_tests::route::Route;
use trace502_tests::world::{HOST, Ports, World, alone, sibling};

const NGINX: &str = "
daemon off; worker_processes 1; user www-data; pid /tmp/nginx.pid; error_log /tmp/error.log;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 127.0.0.1:8080; location / { proxy_pass http://UPSTREAM; } }
}
";
const MEMORY: &str = "48m";

/// One world of containers at a time; `None` where there can be none.
fn alone_with_podman() -> Option<MutexGuard<'static, ()>> {
    if let Some(program) = missing() {
        eprintln!("skipped: {program} is not installed; `cargo xtask setup --tests` installs it");
        return None;
    }
    alone()
}

/// Asks the proxy inside its namespace.
fn ask(netns: &Netns, at: SocketAddr, path: &str) -> Option<Answer> {
    let handle = netns.handle();
    let asked = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                netns::enter(&handle).unwrap();
                ask_once(at, &Ask::get(path)).ok()
            })
            .join()
    });
    asked.unwrap()
}

fn incident(agent: &Agent, path: &str) -> Incident {
    let records = agent.records(1, Duration::from_secs(20), |r| r.incident.request.path.as_deref() == Some(path));
    assert_eq!(records.len(), 1, "records of {path}; the agent said: {}", agent.log());
    records[0].incident.clone()
}

fn assert_is(process: &Process, container: &Container) {
    let label = (process.container.as_deref(), process.container_name.as_deref());
    assert_eq!(label, (Some(&container.id[..12]), Some(container.name.as_str())), "{process:?}");
}

/// The flags that the recipe tells its readers to run it with.
fn recommended(recipe: &str) -> Vec<String> {
    let lines = recipe.lines().skip_while(|line| !line.contains("podman run")).take_while(|line| line.contains("--"));
    let words = lines.flat_map(|line| line.trim_start_matches('#').split_whitespace());
    words.filter(|word| word.starts_with("--") && *word != "--rm").map(str::to_owned).collect()
}

/// Those of a list of capabilities that this machine has to give.
fn to_give(flag: &str) -> String {
    const SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let has = u64::from_str_radix(bounds.trim(), 16).unwrap() & 1 << SYS_RESOURCE != 0;
    if has { flag.to_owned() } else { flag.replace("SYS_RESOURCE,", "") }
}

#[test]
fn the_recipe_builds_and_the_agent_in_it_sees_the_host() {
    let Some(_alone) = alone_with_podman() else { return };
    let world = World::new(Ports::Plenty).unwrap();
    let podman = Podman::new(world.dir()).unwrap();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/Containerfile");
    let context = world.dir().join("context");
    std::fs::create_dir_all(context.join("target/release")).unwrap();
    std::fs::copy(binary().unwrap(), context.join("target/release/trace502")).unwrap();
    // In the place of Debian: its C library, and nothing else.
    let root = Root::new(world.dir().join("base"), &[binary().unwrap()]).unwrap();
    podman.build(&recipe, &root, &context, "localhost/trace502").unwrap();

    let flags: Vec<String> =
        recommended(&std::fs::read_to_string(recipe).unwrap()).iter().map(|flag| to_give(flag)).collect();
    assert!(flags.iter().any(|flag| flag.starts_with("--cap-add=BPF,PERFMON")) && flags.len() > 6, "{flags:?}");
    let kept = world.dir().join("kept");
    std::fs::create_dir_all(&kept).unwrap();
    let kept = format!("{}:/var/lib/trace502", kept.display());
    let (at, name) = (free().unwrap(), format!("test-{}", std::process::id()));
    let listen = at.to_string();
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    if Path::new("/sys/kernel/tracing/events").exists() {
        args.extend(["-v", "/sys/kernel/tracing:/sys/kernel/tracing:ro"]);
    }
    args.extend(["-v", &kept, "localhost/trace502", "agent", "--listen", &listen, "--instance", &name]);
    let agent = podman.start("watcher", &args).unwrap();
    let ready = until(Duration::from_secs(60), || get(at, "/readyz"));
    assert!(ready.is_some(), "{}", podman.logs(&agent));

    let nobody = format!("127.0.0.1:{}", world.port());
    let proxy = Proxy::start(Kind::Nginx, &world, &[Route::to("gone", nobody.clone())]).unwrap();
    assert_eq!(ask(&world.proxies, proxy.addr, "/gone/x"), Some(Answer::Status(502)));
    let told = format!(r#"upstream="{nobody}",status="502",cause="no_listener"}} 1"#);
    let told = until(Duration::from_secs(60), || get(at, "/metrics")?.contains(&told).then_some(()));
    assert!(told.is_some(), "{}\n{}", podman.logs(&agent), get(at, "/metrics").unwrap_or_default());
    assert!(world.dir().join("kept/history.db").is_file());
}

#[test]
fn proxy_and_upstream_in_containers_are_named_and_an_oom_kill_in_one_is_told() {
    let Some(_alone) = alone_with_podman() else { return };
    let world = World::new(Ports::Plenty).unwrap();
    let podman = Podman::new(world.dir()).unwrap();
    let address = format!("{HOST}:8000");
    let agent = Agent::start(world.dir().join("agent.log"), &[]).unwrap();
    agent.wait_ready(&world).unwrap();

    let root = Root::new(world.dir().join("shop"), &[sibling("upstream").unwrap()]).unwrap();
    let serve = format!("{address}=eat-memory");
    let shop = podman.run("shop-api", &root, &world.host, MEMORY, &["/bin/upstream", &serve]).unwrap();
    let root = Root::new(world.dir().join("web"), &["/usr/sbin/nginx".into()]).unwrap();
    root.write("etc/nginx.conf", &NGINX.replace("UPSTREAM", &address)).unwrap();
    let command = ["/bin/nginx", "-e", "/tmp/error.log", "-c", "/etc/nginx.conf"];
    let web = podman.run("shop-web", &root, &world.proxies, "256m", &command).unwrap();

    let at: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let well = || (ask(&world.proxies, at, "/well") == Some(Answer::Status(200))).then_some(());
    let up = until(Duration::from_secs(30), well);
    assert!(up.is_some(), "web: {}\nshop: {}", podman.logs(&web), podman.logs(&shop));

    assert_eq!(ask(&world.proxies, at, "/die"), Some(Answer::Status(502)));
    let died = incident(&agent, "/die");
    assert_eq!((died.cause.as_str(), died.confidence), ("upstream_oom_killed", Confidence::Certain), "{died:?}");
    assert_is(&died.proxy, &web);
    let upstream = died.upstream.as_ref().unwrap();
    assert_eq!(upstream.addr, address);
    let process = upstream.process.as_ref().unwrap();
    assert_is(process, &shop);
    assert_eq!((process.pid, process.name.as_str()), (shop.pid, "upstream"));
    assert!(died.summary.contains("48 MiB"), "{}", died.summary);
    assert!(died.fix.iter().any(|fix| fix.contains("container shop-api")), "{:?}", died.fix);

    // Podman knows that it was killed.
    let over = || (podman.inspect(&shop, "{{.State.Running}}").ok()? == "false").then_some(());
    assert!(until(Duration::from_secs(20), over).is_some(), "the container still runs");
    // Not OOMKilled, which this podman does not notice with control groups of version 1.
    assert_eq!(podman.inspect(&shop, "{{.State.ExitCode}}").unwrap(), "137");

    // Its container is over, and what it was is still known.
    assert_eq!(ask(&world.proxies, at, "/after"), Some(Answer::Status(502)));
    let after = incident(&agent, "/after");
    assert_eq!(after.cause, "upstream_oom_killed", "{after:?}");
    assert_is(after.upstream.as_ref().unwrap().process.as_ref().unwrap(), &shop);

    let strays = agent.records(1, Duration::ZERO, |r| r.incident.request.path.as_deref() == Some("/well"));
    assert!(strays.iter().all(|r| r.incident.cause != "unattributed"), "{strays:?}");
    agent.stop().unwrap();
}
