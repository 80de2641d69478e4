//! What is shipped in deploy/ against what is really exported, and a real Prometheus in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tests::full;
use super::*;
use crate::http::{Access, Door, Recent, Site, bind, serve};
use crate::kernel::capabilities::CAPABILITIES;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

/// Names of samples that are exported, with their labels.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let mut samples: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in full(100).render(Format::Classic).lines().filter(|l| !l.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = samples.entry(name.to_owned()).or_default();
        for part in rest.split(['{', ',']).filter_map(|part| part.split_once("=\"")) {
            labels.insert(part.0.to_owned());
        }
    }
    samples
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Metrics that a query uses, with the labels that its selector asks for.
fn used(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = ["trace502_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        // A name that begins in the middle of a word is another name.
        let begins = !rest[..at].ends_with(is_word);
        rest = &rest[at..];
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[name.len()..];
        let selector = rest.strip_prefix('{').and_then(|s| s.split_once('}')).map_or("", |(s, _)| s);
        let labels = selector.split(',').filter_map(|l| l.split(['=', '!']).next()).map(|l| l.trim().to_owned());
        if begins && !name.contains(':') {
            found.push((name, labels.filter(|l| !l.is_empty()).collect()));
        }
    }
    found
}

fn assert_exported(place: &str, query: &str) {
    let exported = exported();
    for (name, labels) in used(query) {
        let has = exported.get(&name).unwrap_or_else(|| panic!("{place}: {name} is not exported"));
        for label in labels {
            let ours = has.contains(&label) || ["instance", "job"].contains(&label.as_str());
            assert!(ours, "{place}: {name} has no label {label}");
        }
    }
}

#[test]
fn queries_are_read_right() {
    let query = r#"sum(rate(trace502_x_total{a="b", c=~"d"}[5m])) / process_y and my_process_z or trace502:rec"#;
    let expected =
        [("trace502_x_total".to_owned(), vec!["a".to_owned(), "c".to_owned()]), ("process_y".into(), vec![])];
    assert_eq!(used(query), expected);
}

#[test]
fn the_dashboard_asks_only_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(&read("grafana/trace502.json")).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            assert!(!used(query).is_empty(), "{title}: {query}");
            assert_exported(title, query);
            queries += 1;
        }
    }
    assert!(queries > 15);
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        assert_exported("variable", variable["definition"].as_str().unwrap_or_default());
    }
    // Every metric of ours is on it: what nobody sees is not worth its bytes.
    let text = dashboard.to_string();
    let hidden =
        ["trace502_build_info", "trace502_label_overflow_total", "trace502_proxy_processes", "trace502_history_"];
    for name in exported().into_keys().filter(|n| n.starts_with("trace502_")) {
        let base = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(text.contains(base) || hidden.iter().any(|h| name.starts_with(h)), "{name} is not shown");
    }
}

#[test]
fn the_rules_ask_only_for_what_is_exported_and_each_alert_is_tried() {
    let rules = read("prometheus/rules.yaml");
    let tried = read("prometheus/rules_test.yaml");
    assert_exported("rules.yaml", &rules);
    assert_exported("rules_test.yaml", &tried);
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in &alerts {
        let lines = |l: &&str| l.trim() == format!("alertname: {alert}");
        assert!(tried.lines().filter(|l| lines(l)).count() > 0, "{alert} is not tried");
    }
    assert_eq!(rules.matches("          runbook: |").count(), alerts.len(), "each has a runbook");
    for args in [["test", "rules", "rules_test.yaml"], ["check", "rules", "rules.yaml"]] {
        let out = Command::new("promtool").args(args).current_dir(deploy("prometheus")).output();
        let out = out.expect("promtool is in Debian's package `prometheus`; cargo xtask setup installs it");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{said}");
    }
    assert_eq!(read("kubernetes/chart/rules.yaml"), rules, "the chart brings the same rules");
}

#[test]
fn everything_shipped_grants_what_doctor_asks_for_and_no_more() {
    let mut wanted: BTreeSet<&str> = CAPABILITIES.iter().map(|c| c.name.trim_start_matches("CAP_")).collect();
    wanted.insert("SETPCAP");
    let named = |text: &str, line: &dyn Fn(&str) -> Option<String>| -> BTreeSet<String> {
        let words = text.lines().filter_map(line).collect::<Vec<_>>().join(" ");
        let words = words.split([' ', ',', '[', ']']).map(|w| w.trim_start_matches("CAP_").to_owned());
        words.filter(|w| !w.is_empty()).collect()
    };
    let after = |start: &'static str| move |line: &str| line.trim().strip_prefix(start).map(str::to_owned);
    let unit = named(&read("systemd/trace502.service"), &after("CapabilityBoundingSet="));
    let chart = named(&read("kubernetes/chart/templates/daemonset.yaml"), &after("add:"));
    let plain = named(&read("kubernetes/daemonset.yaml"), &|line| {
        let (item, _why) = line.trim().strip_prefix("- ")?.split_once(" # ")?;
        Some(item.to_owned())
    });
    let container = named(&read("container/Containerfile"), &|line| {
        Some(line.split_once("--cap-add=")?.1.trim_end_matches('\\').trim().to_owned())
    });
    for (place, has) in [("unit", unit), ("chart", chart), ("daemonset", plain), ("container", container)] {
        assert_eq!(has.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted, "{place}");
    }
}

#[test]
fn settings_shipped_are_settings_that_exist() {
    let manifest = read("kubernetes/daemonset.yaml");
    let file = manifest.split_once("agent.toml: |").unwrap().1.split_once("---").unwrap().0;
    let file: String = file.lines().map(|l| format!("{}\n", l.trim())).collect();
    let settings = crate::config::tests::file(&file).unwrap().settings;
    assert_eq!(settings.listen.len(), 1);
}

#[test]
fn the_docs_name_every_setting_metric_and_capability() {
    let docs = fs::read_to_string(deploy("../docs/agent.md")).unwrap();
    let rows = |start: String| docs.lines().find(|l| l.starts_with(&start)).map(str::to_owned);
    for opt in crate::config::options::OPTIONS {
        let row = rows(format!("| `{}` |", opt.key)).unwrap_or_else(|| panic!("{} has no row", opt.key));
        let live = opt.change == crate::config::options::Change::Live;
        assert!(row.contains(if live { "| live |" } else { "| restart |" }), "{row}");
        assert!(opt.default.iter().all(|word| row.contains(&format!("`{word}`"))), "{row}");
    }
    for kept in crate::privilege::KEPT {
        assert!(
            rows(format!("| `{}` | {}", kept.name, kept.why.split(';').next().unwrap())).is_some(),
            "{}",
            kept.name
        );
    }
    for name in exported().into_keys() {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(docs.contains(&format!("`{base}")), "{name} is not told");
    }
}

/// Ends with the test.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(dir: &Path, target: SocketAddr) -> Prometheus {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n\
             - job_name: trace502\n  static_configs: [{{ targets: ['{target}'] }}]\n",
            deploy("prometheus/rules.yaml").canonicalize().unwrap()
        );
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is in Debian's package `prometheus`; cargo xtask setup installs it");
        Prometheus { child, addr }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.addr).ok()?;
        stream.write_all(format!("GET /api/v1/{path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// Asks until the answer is as wanted.
    fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.ask(path).unwrap_or_default();
            if wanted(&answer["data"]) {
                return answer["data"].clone();
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_us_and_evaluates_our_rules() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(full(100));
    let site = Site { board: Board::default(), metrics: metrics.clone(), recent: Recent::default() };
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let (stop, stops) = tokio::sync::watch::channel(false);
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(vec![listener], site, Door::new(Access::default()), stops)).unwrap();
    });
    let prometheus = Prometheus::start(dir.path(), target);

    let up = prometheus.until("targets", |data| data["activeTargets"][0]["health"] == "up");
    assert_eq!(up["activeTargets"][0]["lastError"], "");
    let value = |data: &Value| data["result"][0]["value"][1].as_str().map(str::to_owned);
    prometheus.until("query?query=trace502_gateway_errors_total%7Bcause=%22no_listener%22%7D", |data| {
        value(data).as_deref() == Some("1")
    });
    prometheus.until("query?query=trace502:gateway_errors:increase10m", |data| data["result"][0].is_object());
    let rules = prometheus.until("rules", |data| {
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let mut all = groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default());
        groups.len() == 3 && all.all(|rule| rule["health"] == "ok")
    });
    assert!(rules.to_string().contains("UpstreamOutOfMemory"));
    // An exemplar is told of the moment of its error: now, for Prometheus to take it.
    let mut now = super::tests::incident("127.0.0.1:8000", "no_listener");
    now.time = when::rfc3339(when::now_micros());
    now.id = "seen-by-prometheus".into();
    metrics.notice(&Notice::Incident(Box::new(now)), Instant::now(), when::now_micros());
    let range = format!("start={}&end={}", when::now_micros() / 1_000_000 - 600, when::now_micros() / 1_000_000 + 600);
    prometheus.until(&format!("query_exemplars?query=trace502_gateway_errors_total&{range}"), |data| {
        data.to_string().contains("seen-by-prometheus")
    });
    stop.send(true).unwrap();
    server.join().unwrap();
}
