//! `hf:ORG/REPOSITORY[@REVISION]`: which model of a hub, in which state.

use std::fmt;

use crate::Error;

/// What stands before an address of a hub, to tell it from a name of the catalogue.
pub const PREFIX: &str = "hf:";
const DEFAULT_REVISION: &str = "main";
/// The hub's own limit of each half of a name.
const LONGEST_NAME: usize = 96;
const LONGEST_REVISION: usize = 255;

/// A repository of a hub and a branch, tag or commit of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `ORG/REPOSITORY`.
    pub repository: String,
    /// `main` where none was named.
    pub revision: String,
}

impl Address {
    /// Reads `hf:ORG/REPOSITORY[@REVISION]`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let wrong = |problem: String| Error::Address { text: text.to_string(), problem };
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| wrong(format!("does not begin with {PREFIX}")))?;
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (rest, DEFAULT_REVISION),
        };
        Address::new(repository, revision).map_err(wrong)
    }

    /// A repository at a revision, both checked.
    ///
    /// # Errors
    /// Says which part is not a name.
    pub fn new(repository: &str, revision: &str) -> Result<Address, String> {
        let (organisation, name) =
            repository.split_once('/').ok_or_else(|| "the organisation before `/` is missing".to_string())?;
        for part in [organisation, name] {
            let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if part.is_empty()
                || part.len() > LONGEST_NAME
                || !plain
                || part.starts_with('.')
                || part.contains("..")
            {
                return Err(format!("`{part}` is no name of an organisation or a repository"));
            }
        }
        let plain = revision.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+".contains(c));
        if revision.is_empty() || revision.len() > LONGEST_REVISION || !plain || revision.contains("..") {
            return Err(format!("`{revision}` is no branch, tag or commit"));
        }
        Ok(Address { repository: repository.to_string(), revision: revision.to_string() })
    }

    /// The name of the repository without its organisation, in lower case: a folder's name.
    pub fn folder_name(&self) -> String {
        self.repository.rsplit('/').next().unwrap_or(&self.repository).to_lowercase()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repository)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let address = Address::parse("hf:utter-project/EuroLLM-1.7B@refs/pr/5").unwrap();
        assert_eq!(address.repository, "utter-project/EuroLLM-1.7B");
        assert_eq!(address.revision, "refs/pr/5");
        assert_eq!(address.to_string(), "hf:utter-project/EuroLLM-1.7B@refs/pr/5");
        assert_eq!(address.folder_name(), "eurollm-1.7b");
        assert_eq!(Address::parse("hf:a/b").unwrap().to_string(), "hf:a/b");
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for text in [
            "a/b",
            "hf:b",
            "hf:a/",
            "hf:/b",
            "hf:../b",
            "hf:a/..",
            "hf:a/b/c",
            "hf:a/b?x",
            "hf:a/b@",
            "hf:a/b@../c",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
