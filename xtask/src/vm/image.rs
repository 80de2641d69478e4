//! The guest's files, and the archive that the kernel unpacks them from.
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::libraries;
use super::modules::Module;
use super::serial::Marker;
use crate::shell;

const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/usr/bin/busybox";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
/// Folders that every system has, and mount points.
const FOLDERS: [&str; 9] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/log", "/var/lib", "/busybox"];

#[derive(Debug)]
enum Node {
    Folder,
    Link(PathBuf),
    Host { path: PathBuf, mode: u32 },
    Bytes { content: Vec<u8>, mode: u32 },
}

/// A tree of files, by their place in the guest.
#[derive(Debug, Default)]
pub struct Image {
    nodes: BTreeMap<PathBuf, Node>,
    /// What busybox can do, for commands that need no program of the host.
    applets: Vec<String>,
}

impl Image {
    pub fn new() -> Self {
        let applets = shell::capture(std::process::Command::new("busybox").arg("--list")).unwrap_or_default();
        Self { nodes: BTreeMap::new(), applets: applets.lines().map(Into::into).collect() }
    }

    pub fn has(&self, guest: &Path) -> bool {
        self.nodes.contains_key(&place(guest))
    }

    /// Whether a shell in the guest would find this program.
    pub fn provides(&self, name: &str) -> bool {
        const BUILTINS: [&str; 4] = ["exit", "cd", "ulimit", "exec"];
        let path = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
        path.iter().any(|folder| self.has(&Path::new(folder).join(name)))
            || self.applets.iter().any(|applet| applet == name)
            || BUILTINS.contains(&name)
    }

    /// A file or a folder with all in it; libraries are added later, for all at once.
    pub fn add(&mut self, host: &Path, guest: &Path) -> Result<()> {
        if !guest.is_absolute() {
            bail!("{} is no absolute path for a file in the guest", guest.display());
        }
        let file = fs::metadata(host).with_context(|| format!("cannot put {} into the guest", host.display()))?;
        if file.is_dir() {
            return self.add_folder(host, guest);
        }
        if !file.is_file() {
            bail!("{} is neither a file nor a folder", host.display());
        }
        let mode = file.permissions().mode() & 0o7777;
        self.put(guest, Node::Host { path: host.into(), mode });
        Ok(())
    }

    fn add_folder(&mut self, host: &Path, guest: &Path) -> Result<()> {
        self.put(guest, Node::Folder);
        for entry in fs::read_dir(host).with_context(|| format!("cannot read {}", host.display()))? {
            let entry = entry?;
            let inside = guest.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.put(&inside, Node::Link(fs::read_link(entry.path())?));
            } else if kind.is_dir() || kind.is_file() {
                self.add(&entry.path(), &inside)?;
            }
        }
        Ok(())
    }

    /// The libraries of everything that was added.
    pub fn add_libraries(&mut self) -> Result<()> {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::Host { path, .. } => Some(path.clone()),
            _ => None,
        });
        let programs: Vec<PathBuf> = files.filter(|path| libraries::is_elf(path)).collect();
        for library in libraries::of(&programs)? {
            if !self.has(&library) {
                self.add(&library, &library)?;
            }
        }
        Ok(())
    }

    /// What every guest has: busybox, the first process, its command and modules, and a few files of /etc.
    pub fn add_system(&mut self, modules: &[Module], command: &str, marker: &Marker) -> Result<()> {
        let busybox = shell::which("busybox").context("busybox is not installed")?;
        for library in libraries::of(std::slice::from_ref(&busybox))? {
            self.add(&library, &library)?;
        }
        self.add(&busybox, Path::new(BUSYBOX))?;
        for folder in FOLDERS {
            self.put(Path::new(folder), Node::Folder);
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            self.put(&Path::new("/usr").join(folder), Node::Folder);
            self.nodes.insert(Path::new("/").join(folder), Node::Link(Path::new("usr").join(folder)));
        }
        for (path, content) in
            [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/hosts", HOSTS), ("/etc/nsswitch.conf", NSSWITCH)]
        {
            if !self.has(Path::new(path)) {
                self.bytes(path, content, 0o644);
            }
        }
        if !self.has(Path::new("/usr/bin/sh")) {
            self.put(Path::new("/usr/bin/sh"), Node::Link("busybox".into()));
        }
        self.bytes("/init", INIT, 0o755);
        self.bytes("/command", command, 0o644);
        self.bytes("/marker", marker.as_str(), 0o644);
        let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
        self.bytes("/modules/order", order, 0o644);
        for module in modules {
            self.bytes(&format!("/modules/{}.ko", module.name), module.content.clone(), 0o644);
        }
        Ok(())
    }

    fn bytes(&mut self, guest: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.put(Path::new(guest), Node::Bytes { content: content.into(), mode });
    }

    /// Adds a node and the folders over it; a folder never replaces what is there.
    fn put(&mut self, guest: &Path, node: Node) {
        let guest = place(guest);
        for folder in guest.ancestors().skip(1).filter(|folder| *folder != Path::new("/")) {
            self.nodes.entry(folder.into()).or_insert(Node::Folder);
        }
        if matches!(node, Node::Folder) {
            self.nodes.entry(guest).or_insert(node);
        } else {
            self.nodes.insert(guest, node);
        }
    }

    /// Writes the archive, uncompressed: unpacking costs an emulated machine more than reading.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = Archive { out: BufWriter::new(file), written: 0, inode: 1 };
        for (place, node) in &self.nodes {
            let name = place.strip_prefix("/").unwrap_or(place).as_os_str().as_encoded_bytes();
            let done = match node {
                Node::Folder => out.entry(name, 0o040_755, b""),
                Node::Link(target) => out.entry(name, 0o120_777, target.as_os_str().as_encoded_bytes()),
                Node::Bytes { content, mode } => out.entry(name, 0o100_000 | mode, content),
                Node::Host { path, mode } => {
                    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                    out.entry(name, 0o100_000 | mode, &content)
                }
            };
            done.with_context(|| format!("cannot write {}", path.display()))?;
        }
        out.entry(b"TRAILER!!!", 0, b"")
            .and_then(|()| out.out.flush())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where a path of the host really is in a guest, whose top-level folders of programs are links into /usr.
fn place(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::Normal(name) => parts.push(name),
            _ => {}
        }
    }
    let merged = parts.first().is_some_and(|first| ["bin", "sbin", "lib", "lib64"].iter().any(|name| first == name));
    let start = Path::new(if merged { "/usr" } else { "/" });
    start.join(parts.iter().collect::<PathBuf>())
}

/// The "newc" format of cpio, as the kernel's documentation of the initramfs has it.
struct Archive<W> {
    out: W,
    written: usize,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::Error::other("a name of 4 GiB or more"))?;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.inode += 1;
        self.raw(b"070701")?;
        self.raw(header.as_bytes())?;
        self.raw(name)?;
        self.raw(b"\0")?;
        self.pad()?;
        self.raw(content)?;
        self.pad()
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.raw(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_merged_into_usr_as_the_guest_has_them() {
        assert_eq!(place(Path::new("/lib/x/libc.so.6")), Path::new("/usr/lib/x/libc.so.6"));
        assert_eq!(place(Path::new("/usr/lib/../bin/sh")), Path::new("/usr/bin/sh"));
        assert_eq!(place(Path::new("/library")), Path::new("/library"));
    }

    #[test]
    fn archive_entries_are_aligned_and_carry_name_mode_and_content() {
        let mut archive = Archive { out: Vec::new(), written: 0, inode: 1 };
        archive.entry(b"ab", 0o100_644, b"hello").unwrap();
        archive.entry(b"c", 0o040_755, b"").unwrap();
        let out = archive.out;
        assert_eq!(&out[..14], b"07070100000001");
        assert_eq!(&out[14..22], b"000081a4");
        assert_eq!(&out[54..62], b"00000005");
        // 110 bytes of header, "ab\0" and padding, then the content and padding.
        assert_eq!(&out[110..124], b"ab\0\0\0\0hello\0\0\0"[..].get(..14).unwrap());
        let second = out[116..].windows(6).position(|window| window == b"070701").unwrap() + 116;
        assert_eq!(second % 4, 0);
        assert_eq!(out.len() % 4, 0);
    }

    #[test]
    fn a_folder_does_not_replace_what_was_put_there() {
        let mut image = Image::default();
        image.bytes("/etc/x/conf", "a", 0o644);
        image.put(Path::new("/etc/x"), Node::Folder);
        assert!(image.has(Path::new("/etc/x/conf")) && image.has(Path::new("/etc")));
        assert!(matches!(image.nodes[Path::new("/etc/x")], Node::Folder));
    }
}
