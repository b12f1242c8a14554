//! The installation's Ed25519 key (RFC 8032), which signs the heads of the audit log.
//!
//! The private half is made at the first start and stands in the state folder, PKCS #8 in PEM, for its owner alone. The
//! public half goes to whoever checks the log: PEM as well, so that other tools can read it. What is signed is plain
//! text, and `openssl pkeyutl -verify -rawin` says the same as `eulalia verify`.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provenance::Storage;
use provenance::digest::sha256;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::error::ServingError;

/// Name of the private key's file inside the state folder.
pub const KEY_FILE: &str = "audit-signing-key.pem";

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What stands before the 32 bytes of an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The private half.
pub struct AuditKey(Ed25519KeyPair);

impl AuditKey {
    /// Reads the key of a state folder.
    pub fn read(state_folder: &Path) -> Result<AuditKey, ServingError> {
        let path = state_folder.join(KEY_FILE);
        let trouble = |problem: String| ServingError::AuditKey { path: path.clone(), problem };
        if !path.is_file() {
            return Err(trouble("there is no key; the first start of `eulalia serve` makes it".to_string()));
        }
        let key = PrivatePkcs8KeyDer::from_pem_file(&path)
            .map_err(|error| trouble(format!("expected a private key in PEM: {error}")))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
            .map_err(|error| trouble(format!("expected an Ed25519 key in PKCS #8: {error}")))?;
        Ok(AuditKey(pair))
    }

    /// Reads the key of a state folder, or makes it.
    pub fn read_or_make(state_folder: &Path, storage: &Storage) -> Result<AuditKey, ServingError> {
        let path = state_folder.join(KEY_FILE);
        if !path.exists() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| ServingError::Random(error.to_string()))?;
            let text = pem("PRIVATE KEY", &[&PRIVATE_PREFIX[..], &seed].concat());
            // Aside first: the name appears once the file is whole and closed to others.
            let aside = path.with_extension("partial");
            storage.write(&aside, text.as_bytes())?;
            close_to_others(&aside)?;
            storage.rename(&aside, &path)?;
        }
        AuditKey::read(state_folder)
    }

    /// Signs a text; the signature in Base64.
    pub fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.0.sign(text.as_bytes()))
    }

    /// The public half.
    pub fn public(&self) -> AuditPublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        AuditPublicKey(bytes)
    }
}

/// Lets the owner of a file alone read it.
pub fn close_to_others(path: &Path) -> Result<(), ServingError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|error| {
            ServingError::AuditKey { path: path.to_path_buf(), problem: format!("cannot be closed: {error}") }
        })?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// The public half: what an auditor checks the heads of a log with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuditPublicKey([u8; 32]);

impl AuditPublicKey {
    /// Reads a file as [`AuditPublicKey::pem`] writes it.
    pub fn from_file(path: &Path) -> Result<AuditPublicKey, ServingError> {
        let trouble = |problem: String| ServingError::AuditKey { path: PathBuf::from(path), problem };
        let read = SubjectPublicKeyInfoDer::from_pem_file(path)
            .map_err(|error| trouble(format!("expected a public key in PEM: {error}")))?;
        let bytes = read.strip_prefix(&PUBLIC_PREFIX[..]).and_then(|bytes| bytes.try_into().ok());
        bytes.map(AuditPublicKey).ok_or_else(|| {
            trouble("expected an Ed25519 public key, as `eulalia audit key` prints it".to_string())
        })
    }

    /// The key as a file: `-----BEGIN PUBLIC KEY-----`.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &[&PUBLIC_PREFIX[..], &self.0].concat())
    }

    /// What heads call the key: the first 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        sha256(&self.0).short()
    }

    /// Whether `signature` (Base64) is the key's over this text.
    pub fn signed(&self, text: &str, signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, self.0).verify(text.as_bytes(), &signature).is_ok()
        })
    }
}

impl fmt::Debug for AuditPublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AuditPublicKey({})", self.id())
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    // Both keys fit one line of 64 characters.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AuditKey::read(folder.path()).is_err());
        let made = AuditKey::read_or_make(folder.path(), &Storage::disk()).unwrap();
        let again = AuditKey::read_or_make(folder.path(), &Storage::disk()).unwrap();
        assert_eq!(made.public(), again.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = folder.path().join(KEY_FILE).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(folder.path().join(KEY_FILE), "no key").unwrap();
        assert!(AuditKey::read_or_make(folder.path(), &Storage::disk()).is_err());
    }

    #[test]
    fn what_another_key_signed_or_another_text_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = AuditKey::read_or_make(one.path(), &Storage::disk()).unwrap();
        let other = AuditKey::read_or_make(other.path(), &Storage::disk()).unwrap();
        let signature = one.sign("Η κεφαλή");
        assert!(one.public().signed("Η κεφαλή", &signature));
        assert!(!one.public().signed("Η κεφαλη", &signature));
        assert!(!other.public().signed("Η κεφαλή", &signature));
        assert!(!one.public().signed("Η κεφαλή", "not Base64"));
    }

    #[test]
    fn the_example_of_rfc_8410_is_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let private = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        std::fs::write(folder.path().join(KEY_FILE), private).unwrap();
        let public = AuditKey::read(folder.path()).unwrap().public();
        let expected = "-----BEGIN PUBLIC KEY-----\n\
                        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(public.pem(), expected);
        let path = folder.path().join("public.pem");
        std::fs::write(&path, expected).unwrap();
        assert_eq!(AuditPublicKey::from_file(&path).unwrap(), public);
        std::fs::write(&path, expected.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VuAyEA")).unwrap();
        assert!(AuditPublicKey::from_file(&path).is_err());
    }
}
