//! Every metric of the agent moves when what it counts happens: a real nginx, real faults, a real Prometheus with our
//! rules.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::sync::Arc;

use trace502_tests::client::{Answer, Ask, ask_once};
use trace502_tests::daemon::{Daemon, Prometheus};
use trace502_tests::netns;
use trace502_tests::proxies::{Kind, Proxy};
use trace502_tests::route::Route;
use trace502_tests::service::{Draft, Service};
use trace502_tests::world::{Ports, World, alone};

struct Scene {
    world: Arc<World>,
    proxy: Proxy,
}

impl Scene {
    fn ask(&self, path: &str) -> Answer {
        let (handle, addr) = (self.world.proxies.handle(), self.proxy.addr);
        let asked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    netns::enter(&handle).unwrap();
                    ask_once(addr, &Ask::get(path)).unwrap()
                })
                .join()
        });
        asked.unwrap()
    }

    fn ask_for(&self, status: u16, path: &str) {
        assert_eq!(self.ask(path), Answer::Status(status), "{path}");
    }
}

/// A service that is well until asked for `/die`.
fn mortal(world: &World, name: &str, at: &str, conduct: &str, memory: Option<u64>) -> Service {
    let mut draft = Draft::upstream(world, &world.proxies, name, &[&format!("{at}={conduct}")]).unwrap();
    draft.memory = memory;
    draft.start_at(at).unwrap()
}

#[test]
fn every_metric_moves_and_prometheus_evaluates_our_rules_on_them() {
    let Some(_alone) = alone() else { return };
    let world = World::new(Ports::Plenty).unwrap();
    let at = || format!("127.0.0.1:{}", world.port());
    let (well, nobody, hungry, crasher, leaver, resetter) = (at(), at(), at(), at(), at(), at());
    let routes = [
        Route::to("well", well.clone()),
        Route::to("nobody", nobody.clone()),
        Route::to("hungry", hungry.clone()).patient(),
        Route::to("crasher", crasher.clone()).patient(),
        Route::to("leaver", leaver.clone()).patient(),
        Route::to("resetter", resetter.clone()),
        Route::to("rescued", "").servers(&[nobody.clone(), well.clone()]),
        Route::to("own", "").special(trace502_tests::route::Special::Own502),
    ];
    let daemon = Daemon::start(world.dir(), &[]).unwrap();
    let prometheus = Prometheus::start(world.dir(), daemon.addr).unwrap();
    let proxy = Proxy::start(Kind::Nginx, &world, &routes).unwrap();
    let _well = mortal(&world, "well", &well, "ok", None);
    let _resetter = mortal(&world, "resetter", &resetter, "reset", None);
    let scene = Scene { world: world.clone(), proxy };

    // Healthy traffic: connects are counted, and nothing else.
    for _ in 0..20 {
        scene.ask_for(200, "/well/x");
    }
    let connects = format!(r#"trace502_upstream_connect_seconds_count{{proxy="nginx",upstream="{well}"}}"#);
    daemon.until(&connects, |n| n == 20.0).unwrap();
    let below_a_second =
        format!(r#"trace502_upstream_connect_seconds_bucket{{le="1.048576",proxy="nginx",upstream="{well}"}}"#);
    assert_eq!(daemon.sample(&below_a_second), Some(20.0));
    daemon.until(&connects.replace("_count", "_sum"), |sum| sum > 0.0 && sum < 1.0).unwrap();

    let errors = |upstream: &str, cause: &str| {
        format!(r#"trace502_gateway_errors_total{{proxy="nginx",upstream="{upstream}",status="502",cause="{cause}"}}"#)
    };
    let failures = |upstream: &str, cause: &str| {
        format!(r#"trace502_upstream_failures_total{{proxy="nginx",upstream="{upstream}",cause="{cause}"}}"#)
    };
    scene.ask_for(502, "/nobody/x");
    daemon.until(&errors(&nobody, "no_listener"), |n| n == 1.0).unwrap();
    daemon.until(&failures(&nobody, "no_listener"), |n| n == 1.0).unwrap();
    // A failed attempt that a retry made good is a failure and no error. nginx takes its servers in turn.
    for _ in 0..2 {
        scene.ask_for(200, "/rescued/x");
    }
    daemon.until(&failures(&nobody, "no_listener"), |n| n >= 2.0).unwrap();
    assert_eq!(daemon.sample(&errors(&nobody, "no_listener")), Some(1.0));

    scene.ask_for(502, "/resetter/x");
    daemon.until(&errors(&resetter, "upstream_reset"), |n| n == 1.0).unwrap();
    let resets = format!(r#"trace502_resets_total{{proxy="nginx",upstream="{resetter}",side="upstream",reason=""#);
    daemon.until(&resets, |n| n == 1.0).unwrap();

    // Ends of processes that listened, each in its way.
    let deaths = |name: &str, how: &str| format!(r#"trace502_process_deaths_total{{name="{name}",how="{how}"}}"#);
    for (name, at, conduct, memory, how) in [
        ("crasher", &crasher, "segv", None, "signal"),
        ("leaver", &leaver, "exit:3", None, "exit"),
        ("hungry", &hungry, "eat-memory", Some(48 << 20), "oom"),
    ] {
        let service = mortal(&world, name, at, conduct, memory);
        scene.ask_for(502, &format!("/{name}/die"));
        daemon.until(&deaths(name, how), |n| n == 1.0).unwrap();
        service.gone();
    }
    daemon.until(&errors(&hungry, "upstream_oom_killed"), |n| n == 1.0).unwrap();

    // An error without an upstream is told apart, by its reason.
    scene.ask_for(502, "/own/x");
    let why = daemon.until("trace502_unattributed_total{why=", |n| n >= 1.0);
    let own = daemon.sample(r#"trace502_gateway_errors_total{proxy="nginx",upstream="none",status="502","#);
    assert!(why.is_ok() || own == Some(1.0), "{}", daemon.metrics());

    let told = daemon.sample("trace502_attribution_seconds_count").unwrap();
    let counted: f64 = daemon
        .metrics()
        .lines()
        .filter(|line| line.starts_with("trace502_gateway_errors_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(told, counted);
    daemon.until("trace502_history_incidents_total", |n| n == counted).unwrap();
    // The engine reports each second.
    daemon.until(r#"trace502_events_total{kind="client"}"#, |n| n >= counted).unwrap();
    for start in [
        r#"trace502_probe_attached{probe="#,
        r#"trace502_build_info{version="#,
        "trace502_proxy_processes{proxy=\"nginx\"}",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(daemon.sample(start).is_some_and(|n| n > 0.0), "{start}\n{}", daemon.metrics());
    }
    let lost: Vec<String> =
        daemon.metrics().lines().filter(|l| l.starts_with("trace502_events_lost_total")).map(String::from).collect();
    assert!(
        lost.iter().any(|line| line.contains("decode")) && lost.iter().all(|line| line.ends_with(" 0")),
        "{lost:?}"
    );

    // Prometheus has it, and our rules say what they should: a second kill is an increase.
    let job = |name: &str| name.replacen('{', r#"{job="trace502","#, 1);
    prometheus.until(&job(&deaths("hungry", "oom")), |n| n == 1.0).unwrap();
    let service = mortal(&world, "hungry", &hungry, "eat-memory", Some(48 << 20));
    scene.ask_for(502, "/hungry/die");
    service.gone();
    prometheus.until(r#"trace502:process_deaths:increase10m{name="hungry",how="oom"}"#, |n| n > 0.0).unwrap();
    prometheus
        .until(r#"ALERTS{alertname="UpstreamOutOfMemory",name="hungry",alertstate="firing"}"#, |n| n == 1.0)
        .unwrap();
    prometheus
        .until("histogram_quantile(0.9, trace502_upstream_connect_seconds_bucket)", |n| n > 0.0 && n < 1.0)
        .unwrap();
    prometheus.until("trace502:attributed:ratio1h", |n| n > 0.0).unwrap();
    let rules = prometheus.ask("rules");
    let groups = rules["groups"].as_array().cloned().unwrap_or_default();
    let all: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
    assert!(all.len() > 15, "{rules}");
    for rule in all {
        assert!(rule["health"] == "ok", "{rule}");
    }
}
