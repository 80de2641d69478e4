//! What `cargo xtask dist` packs, as those see it who install it.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use trace502_tests::agent;
use trace502_tests::guard::{TempDir, output};
use trace502_tests::world::sibling;

struct Packed {
    deb: PathBuf,
    tarball: PathBuf,
    dir: TempDir,
}

fn pack(part: &str, program: &Path) -> Packed {
    let dir = TempDir::of(part).unwrap();
    let manual = dir.path().join("manual");
    // Built along with the tests of the workspace.
    run(&sibling("examples/manual").unwrap(), &[&manual.display().to_string()]);
    let made = xtask::dist::pack(program, &manual, dir.path()).unwrap();
    let [deb, tarball] = made.try_into().unwrap();
    Packed { deb, tarball, dir }
}

fn run(program: &Path, args: &[&str]) -> String {
    output(Command::new(program).args(args)).unwrap()
}

fn words<'a>(command: &'a str, more: &'a [&'a str]) -> String {
    let all: Vec<&str> = command.split(' ').chain(more.iter().copied()).collect();
    run(Path::new(all[0]), &all[1..])
}

/// A root in which dpkg installs, as when an image is made: scripts run, and start nothing.
struct Target(PathBuf);

impl Target {
    fn new(root: PathBuf) -> Target {
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        Target(root)
    }

    fn dpkg(&self, args: &[&str]) {
        let root = format!("--root={}", self.0.display());
        // There is no libc6 in there, and no shell to change root for.
        words("dpkg --force-script-chrootless --force-depends --log=/dev/null", &[&[root.as_str()], args].concat());
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).symlink_metadata().is_ok()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

/// dpkg goes its own way for the superuser only, and Debian is where it is.
fn may_run() -> bool {
    // SAFETY: geteuid cannot fail.
    let good = xtask::packages::here() && unsafe { libc::geteuid() } == 0;
    if !good {
        eprintln!("skipped: installing a package needs dpkg and root");
    }
    good
}

#[test]
fn the_package_installs_upgrades_and_goes_as_it_should() {
    if !may_run() {
        return;
    }
    let packed = pack("deb", &agent::binary().unwrap());
    let deb = packed.deb.display().to_string();
    let field = |name: &str| words("dpkg-deb --field", &[&deb, name]).trim().to_owned();
    assert_eq!(field("Package"), "trace502");
    assert_eq!(field("Version"), format!("{}-1", xtask::dist::VERSION));
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));
    assert_eq!(words("dpkg-deb --info", &[&deb, "conffiles"]), "/etc/trace502/agent.toml\n");
    let contents = words("dpkg-deb --contents", &[&deb]);
    for line in contents.lines() {
        assert!(line.contains(" root/root ") || line.contains(" 0/0 "), "{line}");
    }
    assert!(contents.contains("-rwxr-xr-x") && contents.contains("./usr/bin/trace502"), "{contents}");

    // Not among the tools of the tests: it brings a hundred packages.
    if Command::new("lintian").arg("--version").output().is_ok() {
        let quiet = "lintian --allow-root --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs";
        words(quiet, &[&deb]);
    }

    let target = Target::new(packed.dir.path().join("root"));
    target.dpkg(&["--install", &deb]);
    let version = run(&target.0.join("usr/bin/trace502"), &["--version"]);
    assert_eq!(version.trim(), format!("trace502 {}", xtask::dist::VERSION));
    let wanted = "etc/systemd/system/multi-user.target.wants/trace502.service";
    assert!(target.has(wanted), "it runs after the next start");
    let root = format!("--root={}", target.0.display());
    words("dpkg --verify", &[&root, "trace502"]);

    // What the administrator changed stays, through an upgrade too.
    let settings = "etc/trace502/agent.toml";
    let changed = target.read(settings).replace("#series-idle = \"6h\"", "series-idle = \"7h\"");
    fs::write(target.0.join(settings), &changed).unwrap();
    target.dpkg(&["--install", &deb]);
    assert_eq!(target.read(settings), changed);
    let file = target.0.join(settings).display().to_string();
    let printed = run(&target.0.join("usr/bin/trace502"), &["agent", "--config", &file, "--print-config"]);
    assert!(
        printed.contains("series-idle = \"7h\"") && printed.contains("max-series = \"2000\"  # default"),
        "{printed}"
    );

    fs::create_dir_all(target.0.join("var/lib/trace502")).unwrap();
    fs::write(target.0.join("var/lib/trace502/history.db"), "").unwrap();
    target.dpkg(&["--remove", "trace502"]);
    assert!(!target.has("usr/bin/trace502") && !target.has("usr/share/doc/trace502"));
    assert!(target.has(settings) && target.has("var/lib/trace502/history.db"), "removal keeps what is the user's");
    target.dpkg(&["--purge", "trace502"]);
    for path in ["etc/trace502", "var/lib/trace502", wanted] {
        assert!(!target.has(path), "{path} stays behind");
    }
}

#[test]
fn the_tarball_runs_below_any_prefix_and_brings_pages_and_completions() {
    let packed = pack("tarball", &agent::binary().unwrap());
    let prefix = packed.dir.path().join("local");
    fs::create_dir_all(&prefix).unwrap();
    let at = prefix.display().to_string();
    words("tar --strip-components=1 -xzf", &[&packed.tarball.display().to_string(), "-C", &at]);
    let version = run(&prefix.join("bin/trace502"), &["--version"]);
    assert_eq!(version.trim(), format!("trace502 {}", xtask::dist::VERSION));
    let unit = fs::read_to_string(prefix.join("lib/systemd/system/trace502.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/trace502 agent"), "{unit}");
    assert!(prefix.join("share/doc/trace502/LICENSE-MIT").is_file());

    // Each verb has its page, and each page its text.
    let verbs = ["live", "agent", "record", "replay", "doctor", "causes", "history", "report"];
    for verb in verbs {
        let page = prefix.join(format!("share/man/man1/trace502-{verb}.1.gz"));
        let text = words("gzip -dc", &[&page.display().to_string()]);
        assert!(text.contains(&format!(".TH trace502-{verb} 1")) && text.contains(".SH OPTIONS"), "{text}");
    }
    let bash = prefix.join("share/bash-completion/completions/trace502").display().to_string();
    let script = format!(
        ". {bash}; COMP_WORDS=(trace502 ''); COMP_CWORD=1; _trace502 trace502 '' trace502; echo ${{COMPREPLY[@]}}"
    );
    let offered = words("bash -c", &[&script]);
    assert!(verbs.iter().all(|verb| offered.split_whitespace().any(|word| word == *verb)), "{offered}");
    for (place, name) in [("zsh/vendor-completions", "_trace502"), ("fish/vendor_completions.d", "trace502.fish")] {
        let text = fs::read_to_string(prefix.join("share").join(place).join(name)).unwrap();
        assert!(text.contains("history-max-age"), "{name}");
    }
}

#[test]
fn the_same_files_give_the_same_package() {
    let sums = ["first", "second"].map(|part| {
        // Any program will do, and a small one is packed sooner.
        let packed = pack(part, Path::new("/bin/true"));
        let files = [packed.deb.display().to_string(), packed.tarball.display().to_string()];
        let sums = words("sha256sum", &[&files[0], &files[1]]);
        sums.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(sums[0], sums[1]);
}
