//! The name of a container, from what its runtime left lying about: the command line of the process that watches it
//! (podman, CRI-O), or a file (Docker, containerd). Never asked for over a socket, never required.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proc::{Procfs, read_some};

/// Containers whose names are kept; beyond, all are forgotten and asked for again.
const KNOWN: usize = 1024;
/// A runtime may write its file a moment after the start, so a name that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// From a process in a container up to the one that watches it.
const PARENTS: usize = 16;
/// containerd's description of a container, with every mount and capability, is the largest.
const LARGEST: u64 = 1 << 20;

#[derive(Default)]
pub struct Containers {
    known: HashMap<String, (Option<String>, Instant)>,
}

impl Containers {
    /// The name of the container with this whole id, in which `pid` runs.
    pub fn name(&mut self, proc: &Procfs, pid: u32, id: &str) -> Option<String> {
        if let Some((name, asked)) = self.known.get(id)
            && (name.is_some() || asked.elapsed() < AGAIN)
        {
            return name.clone();
        }
        // Our own root may be a container's; that of the first process is the host's.
        let name = watcher(proc, pid, id).or_else(|| file(&proc.file(1, "root"), id));
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(id.to_owned(), (name.clone(), Instant::now()));
        name
    }
}

/// `conmon -c ID … -n NAME …`, the parent of a container's first process.
fn watcher(proc: &Procfs, pid: u32, id: &str) -> Option<String> {
    let mut pid = pid;
    for _ in 0..PARENTS {
        pid = proc.stat(pid).map(|stat| stat.parent).filter(|parent| *parent > 1)?;
        if proc.stat(pid).is_some_and(|stat| stat.name == "conmon") {
            let words = proc.read(pid, "cmdline")?;
            let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
            let after = |flag: &[u8]| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
            let its_own = after(b"-c").is_some_and(|word| *word == id.as_bytes());
            return its_own.then(|| after(b"-n").map(|name| told(&String::from_utf8_lossy(name))))?;
        }
    }
    None
}

fn file(root: &Path, id: &str) -> Option<String> {
    let read = |path: PathBuf| -> Option<Value> { serde_json::from_slice(&read_some(&path, LARGEST)?).ok() };
    if let Some(docker) = read(root.join("var/lib/docker/containers").join(id).join("config.v2.json")) {
        return docker["Name"].as_str().map(|name| told(name.trim_start_matches('/')));
    }
    ["run/containerd", "run/k3s/containerd"].iter().find_map(|place| {
        let tasks = root.join(place).join("io.containerd.runtime.v2.task/k8s.io");
        let notes = &read(tasks.join(id).join("config.json"))?["annotations"];
        let note = |key: &str| notes[format!("io.kubernetes.cri.{key}")].as_str();
        Some(format!("{}/{}/{}", note("sandbox-namespace")?, note("sandbox-name")?, note("container-name")?))
    })
}

/// A name as people know it: Kubernetes writes `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`, told as NAMESPACE/POD/CONTAINER.
fn told(name: &str) -> String {
    let parts: Vec<&str> = name.split('_').collect();
    match parts[..] {
        ["k8s", container, pod, namespace, _, _] => format!("{namespace}/{pod}/{container}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e";

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path.replace("ID", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_watching_process_names_its_own_container_only() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, name, parent) in [(40, "nginx", 30), (30, "nginx", 20), (20, "conmon", 1)] {
            put(dir.path(), &format!("{pid}/stat"), &stat(pid, name, parent));
        }
        put(dir.path(), "20/cmdline", &format!("/usr/bin/conmon\0--api-version\x001\0-c\0{ID}\0-n\0shop-web\0-x\0"));
        let proc = Procfs::new(dir.path());
        assert_eq!(watcher(&proc, 40, ID), Some("shop-web".into()));
        assert_eq!(watcher(&proc, 40, &ID.replace('3', "4")), None);
        assert_eq!(watcher(&proc, 20, ID), None);
    }

    fn stat(pid: u32, name: &str, parent: u32) -> String {
        format!("{pid} ({name}) S {parent} {}", "1 ".repeat(40))
    }

    #[test]
    fn files_of_docker_and_containerd_name_containers() {
        let dir = tempfile::tempdir().unwrap();
        let mut containers = Containers::default();
        let proc = Procfs::new(dir.path());
        assert_eq!(containers.name(&proc, 7, ID), None);
        put(dir.path(), "1/root/var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/shop","State":{}}"#);
        assert_eq!(file(&proc.file(1, "root"), ID), Some("shop".into()));
        assert_eq!(containers.name(&proc, 7, ID), None, "it is not looked for at each event");

        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.sandbox-name":"shop-7f9c","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        put(dir.path(), "1/root/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", config);
        let proc = Procfs::new(dir.path());
        let mut containers = Containers::default();
        assert_eq!(containers.name(&proc, 7, ID), Some("prod/shop-7f9c/app".into()));
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(containers.name(&proc, 7, ID), Some("prod/shop-7f9c/app".into()), "remembered after its end");
    }

    #[test]
    fn files_that_are_nonsense_name_nothing() {
        for text in ["", "{", "[]", r#"{"Name":7}"#, r#"{"annotations":{"io.kubernetes.cri.container-name":"x"}}"#] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), "var/lib/docker/containers/ID/config.v2.json", text);
            put(dir.path(), "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", text);
            assert_eq!(file(dir.path(), ID), None, "{text}");
        }
    }

    #[test]
    fn names_that_kubernetes_made_are_told_as_people_write_them() {
        assert_eq!(told("k8s_app_shop-7f9c_prod_2e5e1f3a-1f0e_0"), "prod/shop-7f9c/app");
        assert_eq!(told("my_shop_1"), "my_shop_1");
    }
}
