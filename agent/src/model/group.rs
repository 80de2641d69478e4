//! The path of a cgroup, as the user names one whose processes are proxies.

use std::fmt;

use trace502_ebpf::GROUP_PATH;

/// What a word begins with that names a cgroup and no process.
pub const PREFIX: &str = "cgroup:";
/// Where it is mounted nearly everywhere: people copy whole paths.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified/", "/sys/fs/cgroup/"];

/// Below the root of the hierarchy, with a slash in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupPath(String);

impl GroupPath {
    /// `word` without its prefix: a path below the root, or one in the file system.
    pub fn parse(word: &str) -> Result<GroupPath, String> {
        let below = MOUNTS.iter().find_map(|mount| word.strip_prefix(mount)).unwrap_or(word);
        let path = format!("/{}", below.trim_matches('/'));
        let told = word.escape_debug();
        if path == "/" || MOUNTS.iter().any(|mount| mount.trim_end_matches('/') == word) {
            return Err(format!("`{PREFIX}{told}` is every process of the host; --any finds proxies by what they do"));
        }
        if path.len() >= GROUP_PATH {
            return Err(format!("the path of a cgroup has at most {} bytes", GROUP_PATH - 1));
        }
        if path.chars().any(char::is_control) || path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("`{PREFIX}{told}` is no path of a cgroup; write {PREFIX}system.slice/shop.service"));
        }
        Ok(GroupPath(path))
    }

    /// Whether the cgroup with this path is this one, or below it.
    pub fn holds(&self, cgroup: &str) -> bool {
        cgroup.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How far below the root it is.
    pub fn level(&self) -> u32 {
        self.0.split('/').count() as u32 - 1
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_named_from_the_root_or_from_its_mount() {
        let path = |word| GroupPath::parse(word).map(|path| path.0);
        for word in
            ["system.slice/shop.service", "/system.slice/shop.service/", "/sys/fs/cgroup/system.slice/shop.service"]
        {
            assert_eq!(path(word).as_deref(), Ok("/system.slice/shop.service"), "{word}");
        }
        assert_eq!(path("/sys/fs/cgroup/unified/shop").as_deref(), Ok("/shop"));
        assert_eq!(GroupPath::parse("a/b/c").unwrap().level(), 3);
    }

    #[test]
    fn what_is_no_cgroup_is_refused_with_a_way_out() {
        for word in ["", "/", "/sys/fs/cgroup", "/sys/fs/cgroup/"] {
            assert!(GroupPath::parse(word).unwrap_err().contains("--any"), "{word}");
        }
        for word in ["a/../b", "a//b", "./a", "a\u{1b}[31m"] {
            assert!(GroupPath::parse(word).unwrap_err().contains("no path of a cgroup"), "{word}");
        }
        assert!(GroupPath::parse(&"x".repeat(255)).unwrap_err().contains("at most 255 bytes"));
    }

    #[test]
    fn it_holds_what_is_below_it_and_no_namesake() {
        let path = GroupPath::parse("system.slice/shop").unwrap();
        assert!(path.holds("/system.slice/shop") && path.holds("/system.slice/shop/worker"));
        assert!(!path.holds("/system.slice/shop2") && !path.holds("/system.slice"));
    }
}
