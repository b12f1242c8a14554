//! Keys: recipients `age1…`, which anybody may know, and identities `AGE-SECRET-KEY-1…`, which open files. Both are X25519
//! keys (RFC 7748) in Bech32 (BIP 173).

use std::fmt;
use std::path::Path;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use provenance::{Clock, Storage};
use x25519_dalek::{PublicKey, StaticSecret};

use super::random;
use crate::audit::close_to_others;
use crate::error::ServingError;
use crate::store::make_private_folder;

const RECIPIENT: &str = "age";
const IDENTITY: &str = "age-secret-key-";
/// A file of identities is no longer; one has about 200 bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// Keys that are read from one file.
const MOST_IDENTITIES: usize = 100;

/// Whom a file is sealed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Reads `age1…` with distrust. The error says why nothing can be sealed for it, and never repeats a secret key.
    pub fn parse(text: &str) -> Result<Recipient, String> {
        let recipient = Recipient::read(text)?;
        // Whatever is agreed on with a point of low order is the same for everybody.
        let probe = StaticSecret::from(random()?).diffie_hellman(&PublicKey::from(recipient.0));
        if probe.was_contributory() {
            return Ok(recipient);
        }
        let shown: String = text.chars().take(70).collect();
        Err(format!("`{shown}`: no secret can be shared with this key (a point of low order)"))
    }

    /// Reads one that was checked before.
    pub fn read(text: &str) -> Result<Recipient, String> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(
                "this is a secret key, which nobody but its holder should have: make another pair, and \
                        give the public key (age1…)"
                    .to_string(),
            );
        }
        let shown: String = text.chars().take(70).collect();
        if !text.starts_with("age1") {
            return Err(format!("`{shown}`: expected an X25519 public key of age (age1…)"));
        }
        decode(RECIPIENT, text).map(Recipient).map_err(|problem| format!("`{shown}`: {problem}"))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32>(Hrp::parse_unchecked(RECIPIENT), &self.0);
        formatter.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A key that opens files. Wiped from memory when it goes.
pub struct Identity(StaticSecret);

impl Identity {
    /// A new one.
    pub fn make() -> Result<Identity, ServingError> {
        random().map(|bytes| Identity(StaticSecret::from(bytes))).map_err(ServingError::Random)
    }

    /// Reads `AGE-SECRET-KEY-1…`. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Identity, String> {
        if !text.starts_with("AGE-SECRET-KEY-1") {
            return Err("expected an X25519 secret key of age (AGE-SECRET-KEY-1…)".to_string());
        }
        decode(IDENTITY, text).map(|key| Identity(StaticSecret::from(key)))
    }

    /// Reads a file as `eulalia audit keygen` and `age-keygen` write it: one key a line; lines that begin with `#` say
    /// something to people.
    pub fn read_file(path: &Path) -> Result<Vec<Identity>, ServingError> {
        let trouble = |problem: String| ServingError::AuditKey { path: path.to_path_buf(), problem };
        let length = std::fs::metadata(path).map_err(|error| trouble(error.to_string()))?.len();
        if length > LONGEST_FILE {
            return Err(trouble(format!("{length} bytes are too many for a file of secret keys")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| trouble(error.to_string()))?;
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let keys = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let parsed = keys.map(|(line, number)| {
            Identity::parse(line).map_err(|problem| trouble(format!("line {number}: {problem}")))
        });
        let identities = parsed.collect::<Result<Vec<_>, _>>()?;
        match identities.len() {
            0 => Err(trouble("there is no secret key in it (a line AGE-SECRET-KEY-1…)".to_string())),
            found if found > MOST_IDENTITIES => {
                Err(trouble(format!("expected at most {MOST_IDENTITIES} secret keys, found {found}")))
            }
            _ => Ok(identities),
        }
    }

    /// Writes it to a new file that its owner alone can read.
    pub fn save(&self, path: &Path, storage: &Storage, clock: &Clock) -> Result<(), ServingError> {
        let trouble = |problem: String| ServingError::AuditKey { path: path.to_path_buf(), problem };
        if path.symlink_metadata().is_ok() {
            return Err(trouble(
                "it is there already; a key that is written over is lost: give another name".into(),
            ));
        }
        let text = format!(
            "# created: {}\n# public key: {}\n{}\n",
            clock.timestamp(),
            self.recipient(),
            self.secret_text()?
        );
        // Behind a closed door until it is closed itself.
        let door = path.with_added_extension("partial");
        make_private_folder(&door)?;
        let inside = door.join("key");
        storage.write(&inside, text.as_bytes())?;
        close_to_others(&inside)?;
        storage.rename(&inside, path)?;
        Ok(storage.remove_folder(&door)?)
    }

    /// The secret key itself, as it stands in files.
    pub fn secret_text(&self) -> Result<String, ServingError> {
        bech32::encode_upper::<Bech32>(Hrp::parse_unchecked(IDENTITY), self.0.as_bytes())
            .map_err(|error| ServingError::Random(error.to_string()))
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }

    /// What is shared with another key; `None` with one of low order.
    pub(super) fn agree(&self, share: &[u8; 32]) -> Option<[u8; 32]> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*share));
        shared.was_contributory().then(|| shared.to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity of {}", self.recipient())
    }
}

/// 32 bytes in Bech32 with this word before them.
fn decode(word: &str, text: &str) -> Result<[u8; 32], String> {
    let parsed = CheckedHrpstring::new::<Bech32>(text)
        .map_err(|error| format!("a letter is wrong or missing: {error}"))?;
    if parsed.hrp() != Hrp::parse_unchecked(word) {
        return Err("a key of another kind: only X25519 keys are used here".to_string());
    }
    let bytes: Vec<u8> = parsed.byte_iter().take(33).collect();
    <[u8; 32]>::try_from(bytes).map_err(|bytes| {
        let found = if bytes.len() > 32 { "more".to_string() } else { bytes.len().to_string() };
        format!("expected a key of 32 bytes, found {found}")
    })
}
