//! How the user names proxies that no list knows: a word of `--proxy`.

use super::group::{GroupPath, PREFIX};

/// A container's whole id is the longest name there is.
const LONGEST: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyWord {
    Pid(u32),
    /// Of the executable.
    Name(String),
    /// Every process in it.
    Group(GroupPath),
}

impl ProxyWord {
    pub fn parse(word: &str) -> Result<ProxyWord, String> {
        let told = word.escape_debug();
        if let Some(path) = word.strip_prefix(PREFIX) {
            return GroupPath::parse(path).map(ProxyWord::Group);
        }
        if word.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
            return Err(format!("`{told}`: write {PREFIX} in small letters"));
        }
        if let Some((_, name)) = word.rsplit_once('/')
            && !name.is_empty()
        {
            return Err(format!("`{told}` is a path; write the name alone, `{}`", name.escape_debug()));
        }
        match word.parse() {
            Ok(0) => Err("no process has the pid 0".into()),
            Ok(pid) => Ok(ProxyWord::Pid(pid)),
            Err(_) if (1..=LONGEST).contains(&word.len()) && !word.chars().any(|c| c.is_control() || c == '/') => {
                Ok(ProxyWord::Name(word.to_owned()))
            }
            Err(_) => Err(format!("`{told}` is no process name or pid")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pids_names_or_cgroups() {
        assert_eq!(ProxyWord::parse("812"), Ok(ProxyWord::Pid(812)));
        assert_eq!(ProxyWord::parse("my proxy"), Ok(ProxyWord::Name("my proxy".into())));
        let group = GroupPath::parse("system.slice/shop.service").unwrap();
        assert_eq!(ProxyWord::parse("cgroup:/system.slice/shop.service"), Ok(ProxyWord::Group(group)));
    }

    #[test]
    fn what_names_nobody_is_refused_with_a_way_out() {
        let why = |word: &str| ProxyWord::parse(word).unwrap_err();
        assert!(why("Cgroup:shop").contains("small letters"));
        assert!(why("/usr/sbin/nginx").contains("write the name alone, `nginx`"));
        assert!(why("0").contains("pid 0"));
        for word in ["", "a\u{1b}[31m", "sbin/", "/", &"x".repeat(65)] {
            assert!(why(word).contains("no process name or pid"), "{word:?}");
        }
        assert!(!why("\u{1b}[31m").contains('\u{1b}'), "nothing raw reaches a terminal");
    }
}
