//! The domain block list: sites of which no document is used, whatever its licence.
//!
//! One domain a line; `#` begins a comment. `site.example` stands for the site and all below it (`www.site.example`, never
//! `othersite.example`), `*.site.example` for what is below it alone. Names in other scripts may be written either way.
//! A suffix under which everyone can register (`co.uk`) is refused in its plain form: it is hardly ever meant.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::addresses::{ascii_domain, domain_and_parents};
use crate::error::Error;

#[derive(Debug, Default)]
pub struct BlockList {
    /// Domains that are blocked with all below them.
    domains: HashSet<String>,
    /// Domains of which only what is below them is blocked.
    below: HashSet<String>,
}

impl BlockList {
    pub fn read(path: &Path) -> Result<BlockList, Error> {
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        let mut list = BlockList::default();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if !entry.is_empty() {
                list.add(entry).map_err(|problem| Error::BlockList {
                    path: path.to_path_buf(),
                    line: index + 1,
                    problem,
                })?;
            }
        }
        Ok(list)
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        if let Some(domain) = entry.strip_prefix("*.") {
            self.below.insert(plain_domain(domain)?);
            return Ok(());
        }
        let domain = plain_domain(entry)?;
        if is_public_suffix(&domain) {
            return Err(format!(
                "everyone can register below `{entry}`; write `*.{entry}` if all of it is to be blocked"
            ));
        }
        self.domains.insert(domain);
        Ok(())
    }

    /// Whether a host (in the form of [`ascii_domain`]) is blocked.
    pub fn blocks(&self, host: &str) -> bool {
        !(self.domains.is_empty() && self.below.is_empty())
            && (domain_and_parents(host).any(|domain| self.domains.contains(domain))
                || domain_and_parents(host).skip(1).any(|domain| self.below.contains(domain)))
    }
}

/// The comparable form of a domain; the error says why it is none.
pub fn plain_domain(text: &str) -> Result<String, String> {
    let domain = ascii_domain(text.trim().trim_end_matches('.'));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    match !domain.is_empty() && domain.split('.').all(is_label) {
        true => Ok(domain),
        false => Err(format!("expected a plain domain such as `site.example`, found {text:?}")),
    }
}

/// Whether everyone can register below the domain.
pub fn is_public_suffix(domain: &str) -> bool {
    static SUFFIXES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let lines = include_str!("../data/public_suffixes.txt").lines().filter(|line| !line.starts_with('#'));
        lines.flat_map(str::split_whitespace).collect()
    });
    !domain.contains('.') || SUFFIXES.contains(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_blocked_with_all_below_them() {
        let mut list = BlockList::default();
        for entry in ["site.example", "*.hosts.example", "Bücher.example", "xn--hxajbheg2az3al.example"] {
            list.add(entry).unwrap();
        }
        let check =
            |host: &str, expected: bool| assert_eq!(list.blocks(&ascii_domain(host)), expected, "{host}");
        check("site.example", true);
        check("www.Site.example", true);
        check("othersite.example", false);
        check("hosts.example", false);
        check("a.hosts.example", true);
        check("xn--bcher-kva.example", true);
        check("shop.bücher.example", true);
        check("παράδειγμα.example", true);
        check("example", false);
    }

    #[test]
    fn what_is_no_site_is_refused() {
        let problem = |entry: &str| BlockList::default().add(entry).unwrap_err();
        assert!(problem("co.uk").contains("*.co.uk"));
        assert!(problem("eu").contains("*.eu"));
        assert!(problem("https://a.example/").contains("plain domain"));
        assert!(problem("a b").contains("plain domain"));
        assert!(BlockList::default().add("*.co.uk").is_ok());
    }
}
