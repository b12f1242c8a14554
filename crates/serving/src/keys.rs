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

use provenance::context::timestamp;
use provenance::digest::keyed_digest;

use crate::error::ServingError;
use crate::identity::{Caller, Role, Scope, Scopes, TenantPolicy};
use crate::spelling::composed;
use crate::store::{KeyRow, Store, parse_policy};
use crate::tenants;

const PREFIX: &str = "eu-";
const SECONDS_OF_A_DAY: u64 = 86_400;
const ID_LENGTH: usize = 8;
const SECRET_LENGTH: usize = 33;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The keys of one state folder. Another process may add and revoke while a server runs: each request asks afresh.
pub struct KeyStore {
    store: Store,
    /// Policies by tenant, each with the text that it was read from: read anew when the text has changed.
    policies: Mutex<HashMap<String, (String, Arc<TenantPolicy>)>>,
    /// Keys that were used on a day that the database does not know of yet.
    used: Mutex<HashMap<String, u64>>,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct KeyOrder {
    pub tenant: String,
    /// What it is for, to tell keys apart.
    pub label: String,
    pub role: Role,
    /// Fewer scopes than the role has.
    pub scopes: Option<Scopes>,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
}

/// A key that is not stored yet.
pub(crate) struct PreparedKey {
    pub row: KeyRow,
    key: String,
    /// For the key that it replaces.
    old_ends_at: u64,
}

impl KeyOrder {
    /// With all scopes of the role, for ever.
    pub fn new(tenant: &str, label: &str, role: Role) -> KeyOrder {
        KeyOrder {
            tenant: tenant.to_string(),
            label: label.to_string(),
            role,
            scopes: None,
            expires_at: None,
        }
    }

    fn check(&self, now: u64) -> Result<(), ServingError> {
        check_name("tenant", &composed(&self.tenant))?;
        check_label(&self.label)?;
        check_expiry(self.expires_at, now)?;
        match self.scopes {
            Some(scopes) if scopes == Scopes::default() || scopes.and(self.role.scopes()) != scopes => {
                Err(ServingError::BadName {
                    what: "scopes",
                    found: scopes.names(),
                    expected: "scopes that the role has; `docs/reference/identity.md` lists them",
                })
            }
            _ => Ok(()),
        }
    }
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
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub created_at: u64,
    pub expires_at: Option<u64>,
    pub revoked_at: Option<u64>,
    /// The day (UTC) on which it last opened something, such as 2026-11-20.
    pub last_used_on: Option<String>,
    /// Id of the key that it was made to replace.
    pub replaces: Option<String>,
}

impl From<KeyRow> for KeyRecord {
    fn from(row: KeyRow) -> KeyRecord {
        let scopes = scopes_of(&row).map_or(Vec::new(), |(_, scopes)| scopes.iter().collect());
        let date = |day: u64| timestamp(day.saturating_mul(SECONDS_OF_A_DAY)).chars().take(10).collect();
        KeyRecord {
            id: row.id,
            tenant: row.tenant_name,
            label: row.label,
            role: row.role,
            scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_on: row.last_used_day.map(date),
            replaces: row.replaces,
        }
    }
}

impl KeyStore {
    /// Opens the keys of a state folder, which is created (mode 0700) if it is not there.
    pub fn open(state_folder: &Path) -> Result<KeyStore, ServingError> {
        Ok(KeyStore { store: Store::open(state_folder)?, policies: Mutex::default(), used: Mutex::default() })
    }

    /// Changes keys from the command line, and leaves for the audit log what was done: both, or neither. `action` is such
    /// as `key_revoked`, `target` gives the id of what was changed, `now` is in seconds since 1970.
    pub fn noting<T>(
        &self,
        now: u64,
        action: &str,
        change: impl FnOnce(&KeyStore) -> Result<T, ServingError>,
        target: impl FnOnce(&T) -> String,
    ) -> Result<T, ServingError> {
        self.store().noting(now, action, || change(self), target)
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
        self.make(&KeyOrder { expires_at, ..KeyOrder::new(tenant, label, role) }, now)
    }

    /// Makes a key as ordered. The tenant is created on its first key.
    pub fn make(&self, order: &KeyOrder, now: u64) -> Result<NewKey, ServingError> {
        order.check(now)?;
        if self.store.tenant_named(&order.tenant)?.is_none() {
            check_new_tenant_name(&order.tenant)?;
        }
        self.store.tenant(&order.tenant, &random_hex(8)?, now)?;
        self.add(self.prepare(order, now)?)
    }

    /// A key as ordered, for a tenant that there is; nothing is stored before [`KeyStore::add`].
    pub(crate) fn prepare(&self, order: &KeyOrder, now: u64) -> Result<PreparedKey, ServingError> {
        order.check(now)?;
        let tenant = tenants::show(&self.store, &order.tenant)?;
        let (key, salt) = (Secret::new()?, random_hex(16)?);
        let row = KeyRow {
            id: key.id().to_string(),
            tenant_id: tenant.id,
            tenant_name: tenant.name,
            label: order.label.clone(),
            digest: salted_digest(&salt, &key.0),
            salt,
            created_at: now,
            expires_at: order.expires_at,
            revoked_at: None,
            role: order.role.name().to_string(),
            scopes: order.scopes.map(Scopes::names),
            policy: String::new(),
            last_used_day: None,
            replaces: None,
        };
        Ok(PreparedKey { row, key: key.0, old_ends_at: 0 })
    }

    /// A key in the place of the one of that id, with the same rights and the same length of life; the old one opens for
    /// `grace` seconds more.
    pub fn rotate(&self, id: &str, grace: u64, now: u64) -> Result<NewKey, ServingError> {
        self.add(self.prepare_rotation(id, grace, now)?)
    }

    /// What [`KeyStore::rotate`] would store.
    pub(crate) fn prepare_rotation(
        &self,
        id: &str,
        grace: u64,
        now: u64,
    ) -> Result<PreparedKey, ServingError> {
        let id = bare_id(id);
        let old = self.store.key(&id)?.filter(|row| is_usable(row, now));
        let old = old.ok_or(ServingError::NoSuchKey { id })?;
        let (key, salt) = (Secret::new()?, random_hex(16)?);
        let life = old.expires_at.map(|expires_at| expires_at.saturating_sub(old.created_at));
        let row = KeyRow {
            id: key.id().to_string(),
            digest: salted_digest(&salt, &key.0),
            salt,
            created_at: now,
            expires_at: life.map(|life| now.saturating_add(life)),
            last_used_day: None,
            replaces: Some(old.id.clone()),
            ..old
        };
        Ok(PreparedKey { row, key: key.0, old_ends_at: now.saturating_add(grace) })
    }

    /// Stores a prepared key.
    pub(crate) fn add(&self, prepared: PreparedKey) -> Result<NewKey, ServingError> {
        let PreparedKey { row, key, old_ends_at } = prepared;
        if self.store.add_key(&row, old_ends_at)? {
            return Ok(NewKey { id: row.id, key });
        }
        // Somebody was faster.
        tenants::show(&self.store, &row.tenant_name)?;
        let old = row.replaces.as_ref().map(|old| self.store.key(old)).transpose()?.flatten();
        match old.filter(|old| old.revoked_at.is_some()) {
            Some(old) => Err(ServingError::NoSuchKey { id: old.id }),
            // One in 10^14: not worth another way through.
            None => Err(ServingError::Random(format!("the name {} came twice; try again", row.id))),
        }
    }

    /// Gives a key another label or another end, in seconds since 1970; what is `None` stays.
    pub fn change(
        &self,
        id: &str,
        label: Option<&str>,
        expires_at: Option<u64>,
        now: u64,
    ) -> Result<(), ServingError> {
        let id = bare_id(id);
        check_label(label.unwrap_or_default())?;
        check_expiry(expires_at, now)?;
        if self.store.change_key(&id, label, expires_at)? {
            Ok(())
        } else {
            Err(ServingError::NoSuchKey { id })
        }
    }

    /// All keys, oldest first, revoked and expired ones included.
    pub fn list(&self) -> Result<Vec<KeyRecord>, ServingError> {
        Ok(self.store.keys()?.into_iter().map(KeyRecord::from).collect())
    }

    /// What is known of one key.
    pub fn show(&self, id: &str) -> Result<KeyRecord, ServingError> {
        let id = bare_id(id);
        self.store.key(&id)?.map(KeyRecord::from).ok_or(ServingError::NoSuchKey { id })
    }

    /// Revokes the key of that id (`eu-` before it and the secret after it are tolerated). From the next request on it
    /// opens nothing.
    pub fn revoke(&self, id: &str, now: u64) -> Result<(), ServingError> {
        let id = bare_id(id);
        if self.store.revoke_key(&id, now)? { Ok(()) } else { Err(ServingError::NoSuchKey { id }) }
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
        self.caller_on(usable, now)
    }

    /// Writes down which keys were used today for the first time. One write a day and key: an answer never waits for it.
    pub(crate) fn write_used(&self) -> Result<(), ServingError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() { Ok(()) } else { self.store.note_used(&used.into_iter().collect::<Vec<_>>()) }
    }

    fn caller_on(&self, row: Option<KeyRow>, now: u64) -> Result<Option<Caller>, ServingError> {
        let today = now / SECONDS_OF_A_DAY;
        if let Some(row) = row.as_ref().filter(|row| row.last_used_day != Some(today)) {
            self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id.clone(), today);
        }
        self.caller(row)
    }

    /// Who a key's row stands for; a role that this program does not know opens nothing.
    fn caller(&self, row: Option<KeyRow>) -> Result<Option<Caller>, ServingError> {
        let Some(row) = row else { return Ok(None) };
        let Some((role, scopes)) = scopes_of(&row) else { return Ok(None) };
        let policy = self.policy(&row.tenant_id, row.policy)?;
        Ok(Some(Caller { tenant: row.tenant_id, key_id: row.id, role, scopes, policy }))
    }

    /// Id and policy of the tenant of that name, if there is one.
    pub(crate) fn tenant(&self, name: &str) -> Result<Option<(String, Arc<TenantPolicy>)>, ServingError> {
        let tenant = self.store.tenant_named(name)?.filter(|tenant| tenant.removed_at.is_none());
        Ok(tenant.map(|tenant| (tenant.id, Arc::new(tenant.policy))))
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
        self.caller_on(self.store.key(id)?.filter(|row| is_usable(row, now)), now)
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
fn scopes_of(row: &KeyRow) -> Option<(Role, Scopes)> {
    let role = Role::from_name(&row.role)?;
    let scopes = match &row.scopes {
        None => role.scopes(),
        Some(names) => {
            let named: Vec<Scope> = names.split_whitespace().filter_map(Scope::from_name).collect();
            role.scopes().and(Scopes::of(&named))
        }
    };
    Some((role, scopes))
}

/// A key's id, however it was written.
fn bare_id(id: &str) -> String {
    id.strip_prefix(PREFIX).unwrap_or(id).chars().take(ID_LENGTH).collect()
}

/// A whole new key.
struct Secret(String);

impl Secret {
    fn new() -> Result<Secret, ServingError> {
        Ok(Secret(format!("{PREFIX}{}", random_base62(ID_LENGTH + SECRET_LENGTH)?)))
    }

    fn id(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + ID_LENGTH]
    }
}

fn salted_digest(salt: &str, key: &str) -> String {
    keyed_digest(salt.as_bytes(), key.as_bytes()).to_string()
}

fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}

fn check_label(label: &str) -> Result<(), ServingError> {
    if label.is_empty() { Ok(()) } else { check_name("label", label) }
}

fn check_expiry(expires_at: Option<u64>, now: u64) -> Result<(), ServingError> {
    match expires_at {
        Some(expires_at) if expires_at <= now => Err(ServingError::BadName {
            what: "expiry",
            found: timestamp(expires_at),
            expected: "a time to come",
        }),
        _ => Ok(()),
    }
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

/// The name of a tenant that is not there yet: nobody reads two names as one, since what cannot be seen would make them differ.
pub(crate) fn check_new_tenant_name(name: &str) -> Result<(), ServingError> {
    let name = &*composed(name);
    check_name("tenant", name)?;
    match name.trim() != name || name.chars().any(is_unseen) {
        false => Ok(()),
        true => Err(ServingError::BadName {
            what: "tenant",
            found: name.chars().take(40).flat_map(char::escape_default).collect(),
            expected: "a name without spaces at its ends and without characters that cannot be seen",
        }),
    }
}

/// Characters without a shape of their own: soft hyphens, joiners, marks of direction, fillers, tags.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}'
    )
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
    fn a_rotated_key_hands_over_and_ends() {
        let (_folder, keys) = keys();
        let order = KeyOrder {
            scopes: Some(Scopes::of(&[Scope::Status])),
            expires_at: Some(1_100),
            ..KeyOrder::new("Úrad", "a", Role::User)
        };
        let old = keys.make(&order, 100).unwrap();
        let new = keys.rotate(&old.id, 50, 200).unwrap();
        assert!(new.id != old.id && keys.authenticate(&new.key, 200).unwrap().is_some());
        assert!(keys.authenticate(&old.key, 249).unwrap().is_some());
        assert!(keys.authenticate(&old.key, 250).unwrap().is_none());
        let record = keys.show(&new.id).unwrap();
        assert_eq!((record.expires_at, record.replaces), (Some(1_200), Some(old.id.clone())));
        assert_eq!((record.tenant.as_str(), record.scopes), ("Úrad", vec![Scope::Status]));
        assert!(matches!(keys.rotate(&old.id, 50, 250), Err(ServingError::NoSuchKey { .. })));
        // A grace beyond the old key's own end does not lengthen its life.
        let third = keys.rotate(&new.id, 9_999, 300).unwrap();
        assert_eq!(keys.show(&new.id).unwrap().expires_at, Some(1_200));
        keys.revoke(&third.id, 301).unwrap();
        assert!(keys.rotate(&third.id, 1, 302).is_err());
    }

    #[test]
    fn what_is_taken_away_meanwhile_stays_away() {
        let (_folder, keys) = keys();
        let order = |tenant: &str| KeyOrder::new(tenant, "", Role::User);
        let old = keys.make(&order("Úrad"), 1).unwrap();
        let rotated = keys.prepare_rotation(&old.id, 50, 2).unwrap();
        keys.revoke(&old.id, 3).unwrap();
        assert!(matches!(keys.add(rotated), Err(ServingError::NoSuchKey { id }) if id == old.id));
        let new = keys.prepare(&order("Úrad"), 4).unwrap();
        tenants::remove(keys.store(), "Úrad", 5).unwrap();
        assert!(matches!(keys.add(new), Err(ServingError::NoSuchTenant { .. })));
        assert_eq!(keys.usable(6).unwrap(), 0);
        // A name that is taken.
        let other = keys.make(&order("Amt"), 7).unwrap();
        let mut twice = keys.prepare(&order("Amt"), 8).unwrap();
        twice.row.id = other.id;
        assert!(matches!(keys.add(twice), Err(ServingError::Random(_))));
    }

    #[test]
    fn scopes_narrow_and_never_widen() {
        let (_folder, keys) = keys();
        let ordered = |role, scopes: &[Scope]| KeyOrder {
            scopes: Some(Scopes::of(scopes)),
            ..KeyOrder::new("a", "", role)
        };
        let new = keys.make(&ordered(Role::Admin, &[Scope::Audit]), 1).unwrap();
        let caller = keys.authenticate(&new.key, 2).unwrap().unwrap();
        assert!(caller.scopes.iter().eq([Scope::Audit]));
        for (role, scopes) in
            [(Role::User, &[Scope::Administer][..]), (Role::User, &[]), (Role::Metrics, &Scope::ALL)]
        {
            assert!(matches!(keys.make(&ordered(role, scopes), 1), Err(ServingError::BadName { .. })));
        }
    }

    #[test]
    fn the_day_of_use_is_remembered() {
        let (_folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, None, 100).unwrap();
        keys.write_used().unwrap();
        assert_eq!(keys.show(&new.id).unwrap().last_used_on, None);
        keys.authenticate(&new.key, 1_795_217_940).unwrap();
        keys.write_used().unwrap();
        assert_eq!(keys.show(&new.id).unwrap().last_used_on.as_deref(), Some("2026-11-20"));
        keys.authenticate(&new.key, 1_795_217_941).unwrap();
        assert!(keys.used.lock().unwrap().is_empty(), "once a day");
    }

    #[test]
    fn a_key_gets_another_label_and_end() {
        let (_folder, keys) = keys();
        let new = keys.new_key("a", "b", Role::User, None, 100).unwrap();
        keys.change(&new.id, Some("čítáreň"), None, 101).unwrap();
        keys.change(&new.id, None, Some(200), 101).unwrap();
        let record = keys.show(&new.id).unwrap();
        assert_eq!((record.label.as_str(), record.expires_at), ("čítáreň", Some(200)));
        assert!(keys.change(&new.id, None, Some(5), 101).is_err());
        assert!(keys.change("unknown1", Some("c"), None, 101).is_err());
    }

    #[test]
    fn names_are_visible_text() {
        let (_folder, keys) = keys();
        for bad in ["", "  ", "a\nb", &"x".repeat(101)] {
            assert!(keys.new_key(bad, "label", Role::User, None, 1).is_err(), "{bad:?}");
        }
        for unseen in
            ["Amt ", "\u{3000}Amt", "A\u{200B}mt", "Amt\u{202E}", "\u{FEFF}Amt", "A\u{AD}mt", "Amt\u{E0041}"]
        {
            assert!(keys.new_key(unseen, "label", Role::User, None, 1).is_err(), "{unseen:?}");
        }
        keys.new_key("Ελληνικό Πανεπιστήμιο", "ключ", Role::User, None, 1).unwrap();
        keys.new_key("tenant", "", Role::User, None, 1).unwrap();
    }
}
