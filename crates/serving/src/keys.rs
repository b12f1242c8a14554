//! API keys: who may ask. A key is made once, shown once, and afterwards known only by a salted digest.
//!
//! A key reads `eu-` + 8 letters and digits that name it (not secret: lists and logs show them) + 33 letters and digits
//! that are secret: 33 · log₂ 62 = 196 random bits. Stored are a random salt and HMAC-SHA-256(salt, whole key). A slow
//! password hash would add nothing: it defends guessable passwords, and 2¹⁹⁶ keys cannot be tried at any speed, while a
//! server has to check a key on every request. Digests are compared in constant time, and an unknown name costs the same
//! work as a known one, so that the time of an answer says nothing about which names exist.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use provenance::digest::keyed_digest;

use crate::error::ServingError;
use crate::identity::{Caller, Role, Scope, Scopes, TenantPolicy};
use crate::store::{KeyRow, Store, parse_policy};

const PREFIX: &str = "eu-";
const ID_LENGTH: usize = 8;
const SECRET_LENGTH: usize = 33;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The keys of one state folder. Another process may add and revoke while a server runs: each request asks afresh.
pub struct KeyStore {
    store: Store,
    /// Policies by tenant, each with the text that it was read from: read anew when the text has changed.
    policies: Mutex<HashMap<String, (String, Arc<TenantPolicy>)>>,
}

/// A key at the only moment it can be read.
pub struct NewKey {
    /// What to call it in `revoke` and what the audit log shows.
    pub id: String,
    /// The whole key, to hand to its user.
    pub key: String,
}

/// What may be known of a key after it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyRecord {
    pub id: String,
    pub tenant: String,
    pub label: String,
    pub role: String,
    /// Seconds since 1970.
    pub created_at: u64,
    pub expires_at: Option<u64>,
    pub revoked_at: Option<u64>,
}

impl KeyStore {
    /// Opens the keys of a state folder, which is created (mode 0700) if it is not there.
    pub fn open(state_folder: &Path) -> Result<KeyStore, ServingError> {
        Ok(KeyStore { store: Store::open(state_folder)?, policies: Mutex::default() })
    }

    /// Makes a key for `tenant` (created on its first key) with a role's scopes. `now` and `expires_at` are seconds since 1970.
    pub fn new_key(
        &self,
        tenant: &str,
        label: &str,
        role: Role,
        expires_at: Option<u64>,
        now: u64,
    ) -> Result<NewKey, ServingError> {
        check_name("tenant", tenant)?;
        if !label.is_empty() {
            check_name("label", label)?;
        }
        if let Some(expires_at) = expires_at
            && expires_at <= now
        {
            return Err(ServingError::BadName {
                what: "expiry",
                found: provenance::context::timestamp(expires_at),
                expected: "a time to come",
            });
        }
        let tenant_id = self.store.tenant(tenant, &random_hex(8)?, now)?;
        loop {
            let id = random_base62(ID_LENGTH)?;
            let key = format!("{PREFIX}{id}{}", random_base62(SECRET_LENGTH)?);
            let salt = random_hex(16)?;
            let row = KeyRow {
                id: id.clone(),
                tenant_id: tenant_id.clone(),
                tenant_name: tenant.to_string(),
                label: label.to_string(),
                digest: salted_digest(&salt, &key),
                salt,
                created_at: now,
                expires_at,
                revoked_at: None,
                role: role.name().to_string(),
                scopes: None,
                policy: String::new(),
            };
            if self.store.add_key(&row)? {
                return Ok(NewKey { id, key });
            }
        }
    }

    /// All keys, oldest first, revoked and expired ones included.
    pub fn list(&self) -> Result<Vec<KeyRecord>, ServingError> {
        let records = self.store.keys()?.into_iter().map(|row| KeyRecord {
            id: row.id,
            tenant: row.tenant_name,
            label: row.label,
            role: row.role,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        });
        Ok(records.collect())
    }

    /// Revokes the key of that id (`eu-` before it and the secret after it are tolerated). From the next request on it
    /// opens nothing.
    pub fn revoke(&self, id: &str, now: u64) -> Result<(), ServingError> {
        let bare: String = id.strip_prefix(PREFIX).unwrap_or(id).chars().take(ID_LENGTH).collect();
        if self.store.revoke_key(&bare, now)? { Ok(()) } else { Err(ServingError::NoSuchKey { id: bare }) }
    }

    /// How many keys would open the server now.
    pub fn usable(&self, now: u64) -> Result<usize, ServingError> {
        Ok(self.store.keys()?.iter().filter(|row| is_usable(row, now)).count())
    }

    /// Whose key this is, if it is a whole, unexpired, unrevoked key.
    pub fn authenticate(&self, presented: &str, now: u64) -> Result<Option<Caller>, ServingError> {
        let Some(id) = key_id(presented) else { return Ok(None) };
        let row = self.store.key(id)?;
        // Unknown names take the same path: a digest is computed and compared all the same.
        let (salt, expected) = row.as_ref().map_or((NO_SALT, NO_DIGEST), |row| (&row.salt, &row.digest));
        let matches = equal_in_constant_time(salted_digest(salt, presented).as_bytes(), expected.as_bytes());
        let usable = row.filter(|row| matches && is_usable(row, now));
        self.caller(usable)
    }

    /// Who a key's row stands for; a role that this program does not know opens nothing.
    fn caller(&self, row: Option<KeyRow>) -> Result<Option<Caller>, ServingError> {
        let Some((row, role, scopes)) = row.and_then(rights) else { return Ok(None) };
        let policy = self.policy(&row.tenant_id, row.policy)?;
        Ok(Some(Caller { tenant: row.tenant_id, key_id: row.id, role, scopes, policy }))
    }

    /// The policy that the text says.
    fn policy(&self, tenant: &str, text: String) -> Result<Arc<TenantPolicy>, ServingError> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, policy)) = policies.get(tenant)
            && *known == text
        {
            return Ok(policy.clone());
        }
        let policy = Arc::new(parse_policy(tenant, &text)?);
        policies.insert(tenant.to_string(), (text, policy.clone()));
        Ok(policy)
    }

    /// Who the key of that id stands for, if it still opens anything: for who has shown it before.
    pub(crate) fn caller_of(&self, id: &str, now: u64) -> Result<Option<Caller>, ServingError> {
        self.caller(self.store.key(id)?.filter(|row| is_usable(row, now)))
    }

    /// The database that the keys stand in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

const NO_SALT: &str = "00000000000000000000000000000000";
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The public name inside a key of the right form.
fn key_id(presented: &str) -> Option<&str> {
    let rest = presented.strip_prefix(PREFIX)?;
    let well_formed =
        rest.len() == ID_LENGTH + SECRET_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    well_formed.then(|| &rest[..ID_LENGTH])
}

fn is_usable(row: &KeyRow, now: u64) -> bool {
    row.revoked_at.is_none() && row.expires_at.is_none_or(|expires_at| now < expires_at)
}

/// What a key's row permits; a role that this program does not know opens nothing.
fn rights(row: KeyRow) -> Option<(KeyRow, Role, Scopes)> {
    let role = Role::from_name(&row.role)?;
    let scopes = match &row.scopes {
        None => role.scopes(),
        Some(names) => {
            let named: Vec<Scope> = names.split_whitespace().filter_map(Scope::from_name).collect();
            role.scopes().and(Scopes::of(&named))
        }
    };
    Some((row, role, scopes))
}

fn salted_digest(salt: &str, key: &str) -> String {
    keyed_digest(salt.as_bytes(), key.as_bytes()).to_string()
}

fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}

/// Names go into lists and terminals: short, visible characters of any script.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), ServingError> {
    let fits = !name.trim().is_empty() && name.chars().count() <= 100 && !name.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(ServingError::BadName {
            what,
            found: name.chars().take(40).flat_map(char::escape_default).collect(),
            expected: "1 to 100 characters without control characters",
        })
    }
}

fn random_bytes<const N: usize>() -> Result<[u8; N], ServingError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ServingError::Random(error.to_string()))?;
    Ok(bytes)
}

/// Random seed for a request that named none.
pub(crate) fn random_seed() -> Result<u64, ServingError> {
    Ok(u64::from_le_bytes(random_bytes()?))
}

/// `bytes` random bytes (at most 32) in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> Result<String, ServingError> {
    Ok(random_bytes::<32>()?[..bytes].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Uniform letters and digits: bytes above the last multiple of 62 are thrown away, or some letters would be likelier.
fn random_base62(length: usize) -> Result<String, ServingError> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for byte in random_bytes::<64>()? {
            if byte < 248 && text.len() < length {
                text.push(char::from(BASE62[usize::from(byte) % 62]));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, KeyStore) {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(&folder.path().join("state")).unwrap();
        (folder, keys)
    }

    #[test]
    fn a_key_opens_until_it_is_revoked() {
        let (_folder, keys) = keys();
        let new = keys.new_key("Ministerstvo", "skúška", Role::User, None, 100).unwrap();
        assert_eq!(new.key.len(), 3 + ID_LENGTH + SECRET_LENGTH);
        let caller = keys.authenticate(&new.key, 101).unwrap().unwrap();
        assert_eq!(caller.key_id, new.id);
        assert_ne!(caller.tenant, "Ministerstvo", "requests carry a pseudonym");
        keys.revoke(&new.id, 102).unwrap();
        assert_eq!(keys.authenticate(&new.key, 103).unwrap(), None);
        assert_eq!(keys.usable(103).unwrap(), 0);
    }

    #[test]
    fn a_key_expires() {
        let (_folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, Some(200), 100).unwrap();
        assert!(keys.authenticate(&new.key, 199).unwrap().is_some());
        assert!(keys.authenticate(&new.key, 200).unwrap().is_none());
        assert!(keys.new_key("a", "b", Role::User, Some(100), 100).is_err());
    }

    #[test]
    fn wrong_keys_open_nothing() {
        let (_folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, None, 100).unwrap();
        let mut other_end = new.key.clone();
        let last = if other_end.pop() == Some('A') { 'B' } else { 'A' };
        other_end.push(last);
        let unknown_id = format!("eu-00000000{}", &new.key[11..]);
        let longer = format!("{}A", new.key);
        for wrong in
            ["", "eu-", "eu-x", &new.key[3..], &other_end, &unknown_id, &longer, "eu-ß'; DROP TABLE api_keys"]
        {
            assert_eq!(keys.authenticate(wrong, 101).unwrap(), None, "{wrong}");
        }
    }

    #[test]
    fn the_database_does_not_hold_the_key() {
        let (folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, None, 100).unwrap();
        drop(keys);
        for entry in std::fs::read_dir(folder.path().join("state")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let secret = &new.key.as_bytes()[3 + ID_LENGTH..];
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }

    #[test]
    fn revoking_takes_the_id_as_lists_show_it() {
        let (_folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, None, 100).unwrap();
        assert!(matches!(keys.revoke("unknown1", 101), Err(ServingError::NoSuchKey { .. })));
        keys.revoke(&format!("eu-{}", new.id), 101).unwrap();
        assert_eq!(keys.list().unwrap()[0].revoked_at, Some(101));
    }

    #[test]
    fn names_are_visible_text() {
        let (_folder, keys) = keys();
        for bad in ["", "  ", "a\nb", &"x".repeat(101)] {
            assert!(keys.new_key(bad, "label", Role::User, None, 1).is_err(), "{bad:?}");
        }
        keys.new_key("Ελληνικό Πανεπιστήμιο", "ключ", Role::User, None, 1).unwrap();
        keys.new_key("tenant", "", Role::User, None, 1).unwrap();
    }
}
