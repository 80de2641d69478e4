use std::fs;

use super::*;

const ID: &str = "3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e3f4b0e7f9a1c5d6e";

fn named(path: &str) -> (Option<String>, Option<String>) {
    let path = path.replace("ID", ID);
    (unit(&path), container(&path))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn units_are_the_innermost_ones() {
    assert_eq!(named("/system.slice/nginx.service"), (some("nginx.service"), None));
    assert_eq!(named("/system.slice/system-php.slice/php@8.2.service/pool"), (some("php@8.2.service"), None));
    assert_eq!(
        named("/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service"),
        (some("shop.service"), None)
    );
    assert_eq!(named("/user.slice/user-0.slice/session-3.scope"), (some("session-3.scope"), None));
    assert_eq!(named("/"), (None, None));
    assert_eq!(named(""), (None, None));
}

#[test]
fn containers_of_every_runtime_are_known_by_their_id() {
    let id = some("3f4b0e7f9a1c");
    for path in [
        "/docker/ID",
        "/system.slice/docker-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_3.slice/cri-containerd-ID.scope",
        "/kubepods/besteffort/pod2e5e1f3a-1f0e-4c07-8f4d-0a0a0a0a0a0a/ID",
        "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope/container",
        "/machine.slice/libpod-ID.scope/container",
        "/libpod_parent/libpod-ID",
        "/ecs/0f0f/ID",
        "/../../docker-ID.scope",
    ] {
        assert_eq!(named(path), (None, id.clone()), "{path}");
    }
    assert_eq!(
        named("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID"),
        (some("containerd.service"), id.clone())
    );
    assert_eq!(named("/user.slice/user@1000.service/user.slice/libpod-ID.scope"), (some("user@1000.service"), id));
}

#[test]
fn a_container_that_runs_systemd_has_both() {
    assert_eq!(
        named("/machine.slice/machine-web\\x2d1.scope/payload/system.slice/nginx.service"),
        (some("nginx.service"), some("web-1"))
    );
    assert_eq!(named("/machine.slice/systemd-nspawn@web.service/payload").1, some("web"));
    assert_eq!(named("/lxc.payload.shop/system.slice/app.service"), (some("app.service"), some("shop")));
    assert_eq!(named("/lxc/shop").1, some("shop"));
}

#[test]
fn a_watcher_of_a_container_and_a_virtual_machine_are_no_container() {
    assert_eq!(named("/machine.slice/libpod-conmon-ID.scope"), (None, None));
    assert_eq!(named("/machine.slice/machine-qemu\\x2d1\\x2ddb.scope").1, None);
    // Hexadecimal by chance, or cut short.
    assert_eq!(named("/system.slice/session-deadbeef.scope").1, None);
}

#[test]
fn odd_lines_of_a_cgroup_file_are_passed_over() {
    let groups = Groups::parse(
        b"1:cpu,cpuacct:/a:b\nnonsense\n\n0::/x \xff\n9:name=systemd:/system.slice/d.service (deleted)\n::",
    );
    assert_eq!(groups.by_controller["cpuacct"], "/a:b");
    assert_eq!(groups.path(), Some("/system.slice/d.service"));
    assert_eq!(Groups::parse(b"0::/\n4:memory:/m\n").path(), Some("/m"));
    assert_eq!(Groups::parse(b"\xff\xff:").path(), None);
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn mounted(dir: &Path, version: u8) -> Mounts {
    let line = match version {
        1 => format!("30 1 0:26 / {} rw - cgroup cgroup rw,memory,cpu\n", dir.display()),
        _ => format!("30 1 0:26 / {} rw shared:9 - cgroup2 cgroup2 rw\n", dir.display()),
    };
    Mounts::parse(line.as_bytes())
}

#[test]
fn the_tightest_limit_on_the_way_up_counts_in_version_2() {
    let dir = tree(&[
        ("shop.slice/memory.max", "67108864\n"),
        ("shop.slice/memory.current", "66900000\n"),
        ("shop.slice/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("shop.slice/shop.service/memory.max", "max\n"),
        ("shop.slice/shop.service/memory.current", "1\n"),
        ("shop.slice/shop.service/cpu.stat", "usage_usec 5\nnr_periods 9\nnr_throttled 4\n"),
        ("shop.slice/cpu.stat", "nr_throttled 1\n"),
    ]);
    let (groups, mounts) = (Groups::parse(b"0::/shop.slice/shop.service\n"), mounted(dir.path(), 2));
    let facts = memory(&groups, &mounts).unwrap();
    let expected =
        MemoryFacts { cgroup: "/shop.slice".into(), limit: Some(67108864), usage: Some(66900000), kills: Some(2) };
    assert_eq!(facts, expected);
    assert_eq!(throttled(&groups, &mounts), Some(5));
}

#[test]
fn who_is_frozen_with_its_group_is_told() {
    let dir = tree(&[
        ("shop/cgroup.events", "populated 1\nfrozen 1\n"),
        ("well/cgroup.events", "populated 1\nfrozen 0\n"),
        ("old/freezer.state", "FROZEN\n"),
        ("thawed/freezer.state", "THAWED\n"),
    ]);
    let second = |name: &str| frozen(&Groups::parse(format!("0::/{name}\n").as_bytes()), &mounted(dir.path(), 2));
    assert!(second("shop") && !second("well") && !second("nothing"));
    let line = format!("30 1 0:26 / {} rw - cgroup cgroup rw,freezer\n", dir.path().display());
    let mounts = Mounts::parse(line.as_bytes());
    let first = |name: &str| frozen(&Groups::parse(format!("3:freezer:/{name}\n").as_bytes()), &mounts);
    assert!(first("old") && !first("thawed") && !first("nothing"));
}

#[test]
fn version_1_writes_no_limit_as_a_large_number() {
    let dir = tree(&[
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("a/memory.limit_in_bytes", "9223372036854771712\n"),
        ("a/memory.usage_in_bytes", "4096\n"),
        ("a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
    ]);
    let facts = memory(&Groups::parse(b"4:memory:/a\n0::/\n"), &mounted(dir.path(), 1)).unwrap();
    assert_eq!(facts, MemoryFacts { cgroup: "/a".into(), limit: None, usage: Some(4096), kills: Some(7) });
}

#[test]
fn a_group_that_is_gone_or_outside_the_mount_is_not_known() {
    let dir = tree(&[("a/memory.max", "1")]);
    let mounts = mounted(dir.path(), 2);
    assert_eq!(memory(&Groups::parse(b"0::/gone\n"), &mounts), None);
    assert_eq!(memory(&Groups::parse(b"0::/../../a\n"), &mounts), None);
    let below = Mounts::parse(format!("30 1 0:26 /docker/x {} rw - cgroup2 c rw\n", dir.path().display()).as_bytes());
    assert_eq!(memory(&Groups::parse(b"0::/docker/x/a\n"), &below).unwrap().limit, Some(1));
    assert_eq!(memory(&Groups::parse(b"0::/elsewhere/a\n"), &below), None);
    assert_eq!(Mounts::parse(b"garbage - \n - cgroup2\n1 2 3 4 - cgroup2 x y"), Mounts::default());
}

/// The memory hierarchy of this machine, whichever version it is, with a group that the test makes and removes.
#[test]
fn a_real_group_with_a_limit_is_read() {
    let mounts = Mounts::read(Path::new("/proc"));
    let mine = Groups::parse(&fs::read("/proc/self/cgroup").unwrap());
    let Some((top, own)) = mine.in_controller("memory", &mounts) else { return };
    let dir = own.join(format!("trace502-test-{}", std::process::id()));
    if fs::create_dir(&dir).is_err() {
        return; // not root
    }
    fs::write(dir.join("memory.limit_in_bytes"), "33554432").unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    let groups = Groups::parse(&fs::read(format!("/proc/{}/cgroup", child.id())).unwrap());
    let facts = memory(&groups, &mounts);
    let inside = members(&dir, 10);
    child.kill().unwrap();
    child.wait().unwrap();
    let removed = (0..200).any(|_| {
        let gone = fs::remove_dir(&dir).is_ok();
        if !gone {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        gone
    });
    assert!(removed, "{} stays behind", dir.display());
    let facts = facts.unwrap();
    assert_eq!(facts.limit, Some(33554432));
    assert_eq!(facts.kills, Some(0));
    assert_eq!(facts.cgroup, format!("/{}", dir.strip_prefix(top).unwrap().display()));
    assert_eq!(inside, [child.id()]);
}
