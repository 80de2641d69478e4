//! A watch that keeps to proxies while their processes become other programs.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trace502::logs;
use trace502::watch::{Choice, Stop, Wanted, Watch, WatchError};

use crate::rig::*;

/// Named like this the test program is a proxy.
const NAME: &str = "t502-follow";

/// Not a test: plays a proxy that becomes, at a word, what it is told.
#[test]
#[ignore = "run by other tests as their child"]
fn child_becomes() {
    if std::env::var_os("T502_CHILD").is_none() {
        return;
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let error = match line.trim() {
        "sleep" => Command::new("sleep").arg("60").exec(),
        program => command(program.as_ref()).exec(),
    };
    panic!("{error}");
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "following::child_becomes", "--ignored"]).env("T502_CHILD", "1");
    command
}

/// A watch and a proxy that it has found, in a folder that goes with them.
struct Scene {
    watch: Watch,
    stop: Stop,
    child: Child,
    dir: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let dir = std::env::temp_dir().join(format!("t502-following-{}", std::process::id()));
        let logs = logs::Wanted { find: false, ..logs::Wanted::default() };
        let choice = Choice { proxies: Wanted::new([NAME]).unwrap(), logs, ..Choice::default() };
        let watch = Watch::start(&choice, |_| Ok::<_, WatchError>(None)).unwrap();
        let mut command = command(&copy(&dir, "one"));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (stop, _) = Stop::new().unwrap();
        let mut scene = Scene { watch, stop, child, dir };
        scene.until("proxy", |scene| scene.is_proxy());
        scene
    }

    fn is_proxy(&self) -> bool {
        self.watch.proxies().contains_key(&self.child.id())
    }

    fn become_(&mut self, program: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{program}").unwrap();
    }

    fn until(&mut self, what: &str, done: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "no {what}");
            self.watch.step(&self.stop, &mut Vec::new());
        }
        assert!(self.child.try_wait().unwrap().is_none(), "the process lives");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A copy of this program: another file.
fn copy(dir: &Path, place: &str) -> PathBuf {
    let to = dir.join(place).join(NAME);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &to).unwrap();
    to
}

/// Whether a link of this process stands in that file, where the kernel tells (6.17).
fn hooked(file: &Path) -> bool {
    let about = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).ok();
    let mut links = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().filter_map(about);
    links.any(|about| about.lines().any(|line| line.starts_with("path:") && line.ends_with(file.to_str().unwrap())))
}

#[test]
fn a_process_of_a_proxy_that_becomes_another_program_is_forgotten() {
    let _rig = rig();
    let mut scene = Scene::new();
    let one = scene.dir.join("one").join(NAME);
    scene.become_("sleep");
    scene.until("end of the proxy", |scene| !scene.is_proxy());
    scene.until("end of its hooks", |_| !hooked(&one));
}

#[test]
fn a_proxy_that_becomes_its_next_version_is_hooked_again() {
    let _rig = rig();
    let mut scene = Scene::new();
    let (one, two) = (scene.dir.join("one").join(NAME), copy(&scene.dir, "two"));
    if !hooked(&one) {
        return eprintln!("not looked at: this kernel does not tell where its links stand");
    }
    scene.become_(two.to_str().unwrap());
    scene.until("hooks in the next version", |_| hooked(&two));
    scene.until("end of the hooks in the old one", |_| !hooked(&one));
    assert!(scene.is_proxy());
}
