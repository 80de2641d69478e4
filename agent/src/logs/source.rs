//! Which logs to follow: as the user wrote them, or as a running proxy has them open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::Format;

/// A log and its format: `nginx:/var/log/nginx/error.log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    pub format: Format,
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    #[error("`{0}` names no log format: write nginx:FILE, nginx-access:FILE, haproxy:FILE, apache:FILE or caddy:FILE")]
    Format(String),
    #[error("`{0}` names no file: write the path of the log after the colon")]
    Path(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (format, path) = text.split_once(':').unwrap_or((text, ""));
        let format = match format {
            "nginx" => Format::Nginx,
            "nginx-access" => Format::NginxAccess,
            "haproxy" => Format::Haproxy,
            "apache" | "apache2" | "httpd" => Format::Apache,
            "caddy" => Format::Caddy,
            _ => return Err(SourceError::Format(text.to_owned())),
        };
        if path.is_empty() {
            return Err(SourceError::Path(text.to_owned()));
        }
        Ok(Self { format, path: path.into() })
    }
}

/// What the user says of logs: one to follow, or that none shall be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Follow(Source),
    Off,
}

impl FromStr for Word {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text == "off" { Ok(Word::Off) } else { text.parse().map(Word::Follow) }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Follow(source) => source.fmt(f),
            Word::Off => f.write_str("off"),
        }
    }
}

/// The logs to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub sources: Vec<Source>,
    /// Also those that running proxies have open.
    pub find: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { sources: Vec::new(), find: true }
    }
}

impl<'a> FromIterator<&'a Word> for Wanted {
    fn from_iter<I: IntoIterator<Item = &'a Word>>(words: I) -> Self {
        let mut wanted = Wanted::default();
        for word in words {
            match word {
                Word::Follow(source) => wanted.sources.push(source.clone()),
                Word::Off => wanted.find = false,
            }
        }
        wanted
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.format {
            Format::Nginx => "nginx",
            Format::NginxAccess => "nginx-access",
            Format::Haproxy => "haproxy",
            Format::Apache => "apache",
            Format::Caddy => "caddy",
        };
        write!(f, "{format}:{}", self.path.display())
    }
}

/// The logs worth following among the files that a process appends to.
pub fn discover(process: &str, appended: &[PathBuf]) -> Vec<Source> {
    let format = match process {
        "nginx" | "openresty" => Format::Nginx,
        "apache2" | "httpd" => Format::Apache,
        _ => return Vec::new(),
    };
    let told = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.ends_with("error.log") || name.ends_with("error_log"))
    };
    appended.iter().filter(|path| told(path)).map(|path| Source { format, path: path.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_by_its_format_and_its_path() {
        let source: Source = "nginx:/var/log/nginx/error.log".parse().unwrap();
        assert_eq!((source.format, source.path.to_str()), (Format::Nginx, Some("/var/log/nginx/error.log")));
        assert_eq!(source.to_string(), "nginx:/var/log/nginx/error.log");
        for format in ["nginx", "nginx-access", "haproxy", "apache", "caddy"] {
            let text = format!("{format}:/a:b");
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert!(matches!("varnish:/x".parse::<Source>(), Err(SourceError::Format(_))));
        assert!(matches!("/var/log/x".parse::<Source>(), Err(SourceError::Format(_))));
        assert!(matches!("nginx:".parse::<Source>(), Err(SourceError::Path(_))));
        assert!(matches!("nginx".parse::<Source>(), Err(SourceError::Path(_))));
    }

    #[test]
    fn off_only_turns_off_the_search() {
        let words: Vec<Word> = ["caddy:/a", "off"].iter().map(|word| word.parse().unwrap()).collect();
        assert_eq!(Wanted::from_iter(&words), Wanted { sources: vec!["caddy:/a".parse().unwrap()], find: false });
        assert!(Wanted::default().find);
        assert_eq!(words.iter().map(ToString::to_string).collect::<Vec<_>>(), ["caddy:/a", "off"]);
    }

    #[test]
    fn of_what_a_proxy_has_open_its_error_logs_count() {
        let open = ["/var/log/nginx/access.log", "/var/log/nginx/shop.error.log"].map(PathBuf::from);
        assert_eq!(discover("nginx", &open), ["nginx:/var/log/nginx/shop.error.log".parse().unwrap()]);
        assert_eq!(discover("python3", &open), []);
    }
}
