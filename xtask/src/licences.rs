//! Whether everything that is linked in may be linked in: the licences that cargo's metadata name.
use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// Asks nothing of users but to keep a notice.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Fails with the list of packages whose licence is not among those allowed.
pub fn check() -> Result<()> {
    let metadata = shell::capture(shell::cargo().args(["metadata", "--format-version=1", "--all-features"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata name no packages")?;
    let refused: Vec<String> = packages.iter().filter_map(refused).collect();
    if !refused.is_empty() {
        bail!("licences that are not allowed:\n  {}", refused.join("\n  "));
    }
    println!("licences: {} packages, all allowed", packages.len());
    Ok(())
}

fn refused(package: &Value) -> Option<String> {
    let licence = package["license"].as_str().unwrap_or("none named");
    let name = package["name"].as_str().unwrap_or("a package without a name");
    (!allowed(licence)).then(|| format!("{name}: {licence}"))
}

/// Evaluates an SPDX expression: OR is a choice, AND is not. The old `MIT/Apache-2.0` means OR.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = either(&mut words);
    verdict && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>) -> bool {
    let mut verdict = both(words);
    while words.next_if_eq(&"OR").is_some() {
        verdict |= both(words);
    }
    verdict
}

fn both(words: &mut Words<'_>) -> bool {
    let mut verdict = single(words);
    while words.next_if_eq(&"AND").is_some() {
        verdict &= single(words);
    }
    verdict
}

fn single(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => {
            let verdict = either(words);
            words.next_if_eq(&")").is_some() && verdict
        }
        Some(name) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().unwrap_or_default();
            ALLOWED.contains(&format!("{name} WITH {exception}").as_str())
        }
        Some(name) => ALLOWED.contains(&name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn a_choice_needs_one_allowed_licence_and_a_sum_needs_all() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-2.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in
            ["", "GPL-3.0-only", "MPL-2.0", "MIT AND LGPL-2.1-only", "(MIT", "MIT)", "GPL-2.0 WITH LLVM-exception"]
        {
            assert!(!allowed(bad), "{bad}");
        }
    }
}
