//! File, flags and table hold together.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn flags(args: &[&str]) -> Flags {
    Cli::try_parse_from(std::iter::once("agent").chain(args.iter().copied())).unwrap().flags
}

pub fn file(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Some((Path::new("/etc/t.toml"), text)), &Flags::default())
}

fn refused(text: &str) -> String {
    file(text).unwrap_err().to_string()
}

/// A value that differs from the default, for every option.
fn other_value(key: &str) -> &'static [&'static str] {
    match key {
        "listen" => &["127.0.0.1:1", "[::1]:2"],
        "token-file" | "history" => &["/x/y"],
        // Not valid alone; both are given together below.
        "tls-cert" | "tls-key" => &["/x/pem"],
        "history-max-age" | "series-idle" => &["90m"],
        "history-max-size" => &["3MiB"],
        "proxy" => &["my-proxy", "4711", "cgroup:/system.slice/shop.service"],
        "log" => &["nginx:/var/log/nginx/error.log", "off"],
        "head-bytes" => &["64"],
        "ring-size" => &["1MiB"],
        "connections" => &["20000"],
        "max-series" => &["1000"],
        "instance" => &["second"],
        _ => &["true"],
    }
}

#[test]
fn every_row_is_a_flag_a_key_and_a_setting() {
    let defaults = Config::parse(None, &Flags::default()).unwrap();
    let mut all_flags = Vec::new();
    let mut all_keys = String::new();
    for opt in OPTIONS {
        let words = other_value(opt.key);
        match opt.takes {
            Takes::Switch => {
                all_flags.push(format!("--{}", opt.key));
                all_keys.push_str(&format!("{} = true\n", opt.key));
            }
            Takes::One(_) => {
                all_flags.push(format!("--{}={}", opt.key, words[0]));
                all_keys.push_str(&format!("{} = {:?}\n", opt.key, words[0]));
            }
            Takes::Many(_) => {
                all_flags.push(format!("--{}={}", opt.key, words.join(",")));
                all_keys.push_str(&format!("{} = {words:?}\n", opt.key));
            }
        }
    }
    let typed: Vec<&str> = all_flags.iter().map(String::as_str).collect();
    let by_flags = Config::parse(None, &flags(&typed)).unwrap();
    let by_file = file(&all_keys).unwrap();
    assert_eq!(by_flags.settings, by_file.settings);

    let changes = defaults.settings.changes(&by_file.settings);
    let changed = changes.live.len() + changes.restart.len();
    assert_eq!(changed, OPTIONS.len(), "a row that changes nothing: {changes:?}");

    let again = file(&by_file.print()).unwrap();
    assert_eq!(again.settings, by_file.settings, "{}", by_file.print());
    assert_eq!(file(&defaults.print()).unwrap().settings, defaults.settings);
}

#[test]
fn a_log_is_named_by_format_and_absolute_path() {
    let settings = file("log = ['haproxy:/var/log/haproxy.log', 'off']").unwrap().settings;
    assert_eq!(
        settings.log.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["haproxy:/var/log/haproxy.log", "off"]
    );
    for (text, says) in [
        ("/var/log/x", "names no log format"),
        ("nginx:error.log", "no absolute path"),
        ("nginx:", "names no file"),
        ("\\u001b[2J:x", "names no log format"),
    ] {
        let error = file(&format!("log = [\"{text}\"]")).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\u{1b}'), "{error:?}");
    }
}

#[test]
fn a_reload_takes_up_the_live_keys_and_only_those() {
    let old = file("").unwrap().settings;
    let new = file(
        "max-series = 10\nproxy = ['x']\nring-size = '64KiB'\nlisten = '127.0.0.1:1'\nhistory-max-age = '1h'\n\
         history-max-size = '3MiB'\nseries-idle = '1m'\ntoken-file = '/t'\ntls-cert = '/c'\ntls-key = '/k'",
    )
    .unwrap()
    .settings;
    let changes = old.changes(&new);
    assert_eq!(changes.restart, ["listen", "ring-size"]);
    let live: Vec<&str> = OPTIONS.iter().filter(|o| o.change == options::Change::Live).map(|o| o.key).collect();
    assert_eq!(changes.live, live);
    let after = old.reloaded(&new);
    assert_eq!(old.changes(&after).live, live);
    assert!(old.changes(&after).restart.is_empty());
    assert_eq!(after.changes(&new).restart, ["listen", "ring-size"]);
}

#[test]
fn the_file_yields_to_flags_and_says_where_values_come_from() {
    let text = "\nmax-series = 100\nhead-bytes = 0\n";
    let config = Config::parse(Some((Path::new("/etc/t.toml"), text)), &flags(&["--max-series", "200"])).unwrap();
    assert_eq!(config.settings.max_series, 200);
    let printed = config.print();
    assert!(printed.contains("max-series = \"200\"  # flag"), "{printed}");
    assert!(printed.contains("head-bytes = \"0\"  # /etc/t.toml:3"), "{printed}");
    assert!(printed.contains("keep-privileges = false  # default"), "{printed}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    assert_eq!(refused("\nlisen = 'x'"), "/etc/t.toml:2: no such key `lisen`; did you mean `listen`?");
    assert!(refused("history_max_age = '1d'").contains("did you mean `history-max-age`?"));
    assert!(refused("retention = '1d'").contains("--print-config"));
    assert!(refused("[metrics]\nlisten = 'x'").contains("no such key `metrics`"));
}

#[test]
fn every_problem_is_told_at_once() {
    let error =
        file("listen = 9502\nring-size = '3MiB'\nkeep-privileges = 'yes'\nhead-bytes = 257\nx = 1").unwrap_err();
    assert_eq!(error.0.len(), 5, "{error}");
    assert!(error.to_string().contains("/etc/t.toml:1: listen: `9502` is no address with a port"), "{error}");
    assert!(error.to_string().contains("/etc/t.toml:3: keep-privileges: takes true or false"), "{error}");
}

#[test]
fn broken_toml_names_its_line() {
    assert!(
        refused("keep-privileges = true\nlisten = [").starts_with("/etc/t.toml:2:"),
        "{}",
        refused("keep-privileges = true\nlisten = [")
    );
    assert!(refused("instance = 'a'\ninstance = 'b'").starts_with("/etc/t.toml:2:"));
}

#[test]
fn more_cgroups_than_the_kernel_side_looks_at_are_refused() {
    let groups = |count: usize| (0..count).map(|n| format!("'cgroup:{n}'")).collect::<Vec<_>>().join(", ");
    assert_eq!(file(&format!("proxy = [{}]", groups(16))).unwrap().settings.proxy[15], "cgroup:15");
    let error = file(&format!("proxy = [{}]", groups(17))).unwrap_err().to_string();
    assert!(error.contains("17 cgroups; at most 16"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for text in [
        "listen = ['0.0.0.0:9502']",
        "listen = ['[::]:9502']",
        "listen = ['localhost:9502']",
        "tls-cert = '/c'",
        "tls-key = '/k'",
        "history = 'relative.db'",
        "history-max-size = '10k'",
        "history-max-age = '5'",
        "history-max-age = 'off'",
        "proxy = ['a/b']",
        "proxy = ['cgroup:/']",
        "proxy = ['cgroup:a/../b']",
        "proxy = [\"a\\u001b\"]",
        "instance = 'a b'",
        "max-series = 1",
        "max-series = 0x10",
        "ring-size = 1.5",
        "connections = 1023",
        "connections = 1048577",
        "connections = 'many'",
        "listen = [['127.0.0.1:1']]",
    ] {
        assert!(file(text).is_err(), "{text}");
    }
    assert!(file("listen = ['0.0.0.0:9502']\nlisten-without-token = true").is_ok());
    assert!(file("listen = ['0.0.0.0:9502']\ntoken-file = '/t'").is_ok());
}

#[test]
fn off_turns_things_off() {
    let settings = file("listen = 'off'\nhistory = 'off'").unwrap().settings;
    assert!(settings.listen.is_empty() && settings.history.is_none());
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), &Flags::default()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/x.toml: cannot be read"), "{missing}");
}
