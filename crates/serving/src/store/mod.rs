//! The server's state in one embedded SQLite file: tenants, keys, heads of the audit log.
//!
//! All SQL of the crate stands in this folder, in the part of the language that PostgreSQL shares, so that another
//! database can take SQLite's place here and nowhere else; each file holds the tables of one concern. The schema grows by numbered migrations, each applied once
//! and in its own transaction. The file lives in a folder that only its owner can enter (mode 0700).

mod backup;
mod heads;
mod keys;
mod outbox;
mod tenants;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::error::ServingError;

pub use keys::KeyRow;
pub use tenants::{TenantRow, parse_policy};
pub use usage::{UsageRow, Used, UsedBy};

/// Name of the database inside the state folder.
pub const DATABASE_FILE: &str = "state.sqlite";

/// How long a statement waits for another process that writes (`eulalia keys new` beside a running server).
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Schema changes, oldest first; number n is the n-th entry, from 1. An entry never changes once released.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE tenants (
        id         TEXT PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE,
        created_at BIGINT NOT NULL
    );
    CREATE TABLE api_keys (
        id         TEXT PRIMARY KEY,
        tenant_id  TEXT NOT NULL REFERENCES tenants (id),
        label      TEXT NOT NULL,
        salt       TEXT NOT NULL,
        digest     TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        expires_at BIGINT,
        revoked_at BIGINT
    );
    CREATE TABLE audit_heads (
        log         TEXT NOT NULL,
        sequence    BIGINT NOT NULL,
        digest      TEXT NOT NULL,
        recorded_at BIGINT NOT NULL,
        PRIMARY KEY (log, sequence)
    );
    CREATE TABLE secrets (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
",
    "
    ALTER TABLE api_keys ADD COLUMN role TEXT NOT NULL DEFAULT 'user';
    ALTER TABLE api_keys ADD COLUMN scopes TEXT;
",
    "
    ALTER TABLE audit_heads ADD COLUMN time TEXT NOT NULL DEFAULT '';
    ALTER TABLE audit_heads ADD COLUMN key TEXT;
    ALTER TABLE audit_heads ADD COLUMN signature TEXT;
",
    "
    CREATE TABLE usage (
        day               BIGINT NOT NULL,
        tenant_id         TEXT NOT NULL,
        key_id            TEXT NOT NULL,
        model             TEXT NOT NULL,
        requests          BIGINT NOT NULL,
        refused           BIGINT NOT NULL,
        prompt_tokens     BIGINT NOT NULL,
        cached_tokens     BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        milliseconds      BIGINT NOT NULL,
        PRIMARY KEY (day, tenant_id, key_id, model)
    );
    CREATE TABLE usage_settled (
        log      TEXT PRIMARY KEY,
        sequence BIGINT NOT NULL
    );
    CREATE TABLE key_limits (
        key_id TEXT PRIMARY KEY REFERENCES api_keys (id),
        limits TEXT NOT NULL
    );
",
    "
    ALTER TABLE tenants ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE tenants ADD COLUMN removed_at BIGINT;
    ALTER TABLE api_keys ADD COLUMN last_used_day BIGINT;
    ALTER TABLE api_keys ADD COLUMN replaces TEXT;
",
    "
    CREATE TABLE audit_outbox (
        id       TEXT PRIMARY KEY,
        noted_at BIGINT NOT NULL,
        event    TEXT NOT NULL
    );
",
];

/// The open database. Shared between threads; statements run one at a time (each takes tens of microseconds).
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the state in `folder`, creating the folder (mode 0700) and the database where they are not there.
    pub fn open(folder: &Path) -> Result<Store, ServingError> {
        make_private_folder(folder)?;
        let path = folder.join(DATABASE_FILE);
        let mut connection = Connection::open(&path).map_err(at(&path, "opening"))?;
        connection.busy_timeout(LOCK_WAIT).map_err(at(&path, "setting the lock wait"))?;
        // Readers never wait for a writer, and a committed key survives a power cut.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(at(&path, "choosing the journal"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(at(&path, "choosing durability"))?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(at(&path, "switching on foreign keys"))?;
        migrate(&mut connection, &path)?;
        Ok(Store { path, connection: Mutex::new(connection) })
    }

    /// The state in `folder` for who only looks: nothing is made, migrated or locked. `None` where there is none.
    pub fn look(folder: &Path) -> Result<Option<Store>, ServingError> {
        let path = folder.join(DATABASE_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Without a log of changes nobody has it open, and looking needs none of the files that come with one.
        let connection = if folder.join(format!("{DATABASE_FILE}-wal")).exists() {
            Connection::open_with_flags(&path, flags)
        } else {
            let uri = format!("file:{}?immutable=1", escaped(&path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        };
        let connection = connection.map_err(at(&path, "opening"))?;
        connection.busy_timeout(LOCK_WAIT).map_err(at(&path, "setting the lock wait"))?;
        let (found, known) = (schema_number(&connection, &path)?, MIGRATIONS.len() as i64);
        if found != known {
            return Err(ServingError::OtherSchema { path, found, known });
        }
        Ok(Some(Store { path, connection: Mutex::new(connection) }))
    }

    /// The secret of that name, set to `new_value` if there is none yet.
    pub fn secret(&self, name: &str, new_value: &str) -> Result<String, ServingError> {
        let connection = self.connection();
        connection
            .execute(
                "INSERT INTO secrets (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                params![name, new_value],
            )
            .map_err(at(&self.path, "adding a secret"))?;
        connection
            .query_row("SELECT value FROM secrets WHERE name = ?1", [name], |row| row.get(0))
            .map_err(at(&self.path, "reading a secret"))
    }

    /// From now on a statement waits no longer than this for another process that writes.
    pub fn wait_at_most(&self, wait: Duration) -> Result<(), ServingError> {
        self.connection().busy_timeout(wait).map_err(at(&self.path, "setting the lock wait"))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A statement that panicked left no transaction open: its guard rolled it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), ServingError> {
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY)")
        .map_err(at(path, "reading the schema's number"))?;
    let applied = |connection: &Connection| schema_number(connection, path);
    let known = MIGRATIONS.len() as i64;
    let found = applied(connection)?;
    if found > known {
        return Err(ServingError::NewerSchema { path: path.to_path_buf(), found, known });
    }
    // Nothing is locked where nothing is left to do: another process may be writing.
    for (number, sql) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        // Immediate: of two processes that open a new database, the second waits and then finds it migrated.
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(at(path, "beginning a migration"))?;
        if applied(&transaction)? < number {
            transaction.execute_batch(sql).map_err(at(path, "migrating"))?;
            transaction
                .execute("INSERT INTO schema_migrations (number) VALUES (?1)", [number])
                .map_err(at(path, "migrating"))?;
        }
        transaction.commit().map_err(at(path, "migrating"))?;
    }
    Ok(())
}

fn schema_number(connection: &Connection, path: &Path) -> Result<i64, ServingError> {
    connection
        .query_row("SELECT COALESCE(MAX(number), 0) FROM schema_migrations", [], |row| row.get(0))
        .map_err(at(path, "reading the schema's number"))
}

/// A path as it stands in a URI of SQLite.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Creates `folder` for its owner alone, or checks that it is so.
pub(crate) fn make_private_folder(folder: &Path) -> Result<(), ServingError> {
    let trouble = |problem: String| ServingError::StateFolder { path: folder.to_path_buf(), problem };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| trouble(format!("cannot be created: {error}")))?;
        let metadata =
            std::fs::metadata(folder).map_err(|error| trouble(format!("cannot be read: {error}")))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(trouble(format!(
                "others may enter it (mode {mode:04o}), and it holds keys and the audit log; run `chmod 700` on it"
            )));
        }
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(folder).map_err(|error| trouble(format!("cannot be created: {error}")))?;
    Ok(())
}

fn at<'a>(path: &'a Path, operation: &'static str) -> impl FnOnce(rusqlite::Error) -> ServingError + 'a {
    move |source| ServingError::Database { path: path.to_path_buf(), operation, source }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_twice_migrates_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Store::open(&state).unwrap().tenant("Universität", "aa", 1).unwrap();
        let second = Store::open(&state).unwrap().tenant("Universität", "bb", 2).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("aa", "aa"));
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_private_or_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        Store::open(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = Store::open(&state).err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        store.connection().execute("INSERT INTO schema_migrations (number) VALUES (999)", []).unwrap();
        drop(store);
        assert!(matches!(Store::open(&state), Err(ServingError::NewerSchema { found: 999, .. })));
    }

    /// A database as the program left it when it knew `known` migrations, with a tenant, a key and a head.
    fn database_of(state: &Path, known: usize) {
        make_private_folder(state).unwrap();
        let connection = Connection::open(state.join(DATABASE_FILE)).unwrap();
        connection.execute_batch("CREATE TABLE schema_migrations (number BIGINT PRIMARY KEY)").unwrap();
        for (number, sql) in (1i64..).zip(&MIGRATIONS[..known]) {
            connection.execute_batch(sql).unwrap();
            connection.execute("INSERT INTO schema_migrations (number) VALUES (?1)", [number]).unwrap();
        }
        let rows = "
            INSERT INTO tenants (id, name, created_at) VALUES ('t1', 'Szkoła', 1);
            INSERT INTO api_keys (id, tenant_id, label, salt, digest, created_at, expires_at, revoked_at)
                VALUES ('k1', 't1', 'label', '00', '11', 2, NULL, 3);
            INSERT INTO audit_heads (log, sequence, digest, recorded_at) VALUES ('l1', 4, '22', 5);
            INSERT INTO secrets (name, value) VALUES ('s1', 'v1');";
        connection.execute_batch(rows).unwrap();
    }

    #[test]
    fn a_database_of_every_earlier_schema_is_migrated_with_what_it_holds() {
        for known in 1..=MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path().join("state");
            database_of(&state, known);
            for _ in 0..2 {
                let store = Store::open(&state).unwrap_or_else(|error| panic!("schema {known}: {error}"));
                let keys = store.keys().unwrap();
                assert_eq!((keys.len(), keys[0].tenant_name.as_str()), (1, "Szkoła"), "schema {known}");
                assert_eq!((keys[0].role.as_str(), keys[0].revoked_at), ("user", Some(3)));
                assert_eq!(store.tenant("Szkoła", "other", 9).unwrap(), "t1");
                let heads = store.audit_heads().unwrap();
                assert_eq!((heads[0].sequence, &heads[0].signature), (4, &None));
                assert_eq!(store.secret("s1", "other").unwrap(), "v1");
                let number: i64 = store
                    .connection()
                    .query_row("SELECT MAX(number) FROM schema_migrations", [], |row| row.get(0))
                    .unwrap();
                assert_eq!(number, MIGRATIONS.len() as i64);
            }
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_schema_before() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        database_of(&state, 1);
        // In the way of what a later migration makes.
        let connection = Connection::open(state.join(DATABASE_FILE)).unwrap();
        connection.execute_batch("CREATE TABLE audit_outbox (id TEXT)").unwrap();
        drop(connection);
        assert!(matches!(Store::open(&state), Err(ServingError::Database { operation: "migrating", .. })));
        let connection = Connection::open(state.join(DATABASE_FILE)).unwrap();
        connection.execute_batch("DROP TABLE audit_outbox").unwrap();
        drop(connection);
        assert_eq!(Store::open(&state).unwrap().keys().unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        Store::open(&state).unwrap();
        std::fs::write(state.join(DATABASE_FILE), b"not a database at all, but long enough to look").unwrap();
        assert!(matches!(Store::open(&state), Err(ServingError::Database { .. })));
    }
}
