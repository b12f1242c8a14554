//! Checking a whole log: every line, the chain through all segments, and the signed heads.
//!
//! Two copies of the heads are compared with the lines: those of the state database, and those beside the segments. The
//! database gets each head first, so it knows all that the file knows; if it does not, an older database was put in its
//! place. An auditor's copy of the folder has no database, and is checked with the public key that the auditor was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use provenance::Digest;
use provenance::digest::sha256_file;

use super::chain::{Announced, Chain};
use super::head::{AuditHead, heads_path, read_heads};
use super::key::{AuditKey, AuditPublicKey};
use super::retention::lock_shared;
use super::segment::{segment_path, segments};
use crate::error::ServingError;
use crate::store::{DATABASE_FILE, Store};

/// What a whole audit log amounts to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuditSummary {
    /// Random name of the log.
    pub log: String,
    /// Number of the last event.
    pub events: u64,
    /// Number of the first event that is there; those before it were removed when their time was over.
    pub first_event: u64,
    /// Events of which only the digest is there, since their time was over.
    pub erased: u64,
    pub segments: u64,
    /// Times of the first and last event that are there, as the clock showed them.
    pub first_time: String,
    pub last_time: String,
    /// SHA-256 of the last line.
    pub head: String,
    /// Signed heads that agree with the lines.
    pub signed_heads: u64,
    /// Id of the key that signed them.
    pub key: String,
    /// Whether the key was given by who asked, or is the one that stands beside the log.
    pub key_was_given: bool,
    /// Events after the newest signed head: those the chain alone holds together.
    pub events_after_head: u64,
    /// Whether the heads were compared with a state database.
    pub database: bool,
    /// Bytes of a last line without an end: one that is being written, or that a crash cut off.
    pub torn_bytes: u64,
}

/// Checks the log of a state folder (`log_folder` inside it), or a copy of a log without a state.
/// `key` is the public key of who asks; without one the state's own is taken.
pub fn verify_audit(
    log_folder: &Path,
    state_folder: Option<&Path>,
    key: Option<AuditPublicKey>,
) -> Result<AuditSummary, ServingError> {
    let unreadable =
        |path: &Path, problem: String| ServingError::AuditUnreadable { path: path.to_path_buf(), problem };
    let public = match (key, state_folder) {
        (Some(key), _) => key,
        (None, Some(state_folder)) => AuditKey::read(state_folder)?.public(),
        (None, None) => {
            let problem = "a copy of a log is checked with its installation's public key: give it with --audit-key \
                           (`eulalia audit key` prints it)";
            return Err(unreadable(log_folder, problem.to_string()));
        }
    };
    let _lock = lock_shared(log_folder);
    // In this order: what is read later knows more, while a server writes.
    let (in_file, _) = read_heads(log_folder)?;
    let in_database = match state_folder.filter(|folder| folder.join(DATABASE_FILE).is_file()) {
        Some(state_folder) => Some(Store::open(state_folder)?.audit_heads()?),
        None => None,
    };
    let segments = segments(log_folder)?;
    let mut heads = Heads::default();
    let file = heads_path(log_folder);
    if let Some(unsigned) = in_file.iter().find(|head| head.signature.is_none()) {
        return Err(unreadable(&file, format!("the head of event {} is not signed", unsigned.sequence)));
    }
    heads.add(&in_file, &public, &file)?;
    if let (Some(in_database), Some(state_folder)) = (&in_database, state_folder) {
        heads.add(in_database, &public, &state_folder.join(DATABASE_FILE))?;
    }
    let first_segment = segments.first().copied().unwrap_or(1);
    let mut chain =
        if first_segment == 1 { Chain::from_the_beginning() } else { Chain::trusting_the_first_line() };
    let (mut torn_bytes, mut gone) = (0, Gone::default());
    for (expected, &segment) in (first_segment..).zip(&segments) {
        if segment != expected {
            let path = segment_path(log_folder, expected);
            return Err(unreadable(&path, "this segment is missing".to_string()));
        }
        let path = segment_path(log_folder, segment);
        if torn_bytes > 0 {
            let problem = format!("segment {} before it ends in the middle of a line", segment - 1);
            return Err(unreadable(&path, problem));
        }
        let erased_before = chain.erased;
        (_, torn_bytes) = chain.follow(&path, |chain| {
            gone.note(chain);
            heads.compare(chain)
        })?;
        if chain.erased > erased_before {
            gone.with_erased_lines.push(segment);
        }
    }
    let (Some(log), Some(first_time)) = (&chain.log, &chain.first_time) else {
        return Err(unreadable(log_folder, "there is no whole line of an audit log".to_string()));
    };
    let own: Vec<&AuditHead> = heads.of(log).collect();
    let newest = own.iter().map(|head| head.sequence).max().unwrap_or(0);
    if newest > chain.sequence {
        let problem = format!(
            "the log ends at event {}, but a head was kept of event {newest}: lines at the end are missing",
            chain.sequence
        );
        return Err(unreadable(log_folder, problem));
    }
    if let (Some(in_database), Some(state_folder)) = (&in_database, state_folder) {
        compare_copies(log, &in_file, in_database).map_err(|(in_database_file, problem)| {
            let file = state_folder.join(DATABASE_FILE);
            unreadable(&if in_database_file { file } else { heads_path(log_folder) }, problem)
        })?;
    }
    let signed: BTreeSet<u64> =
        own.iter().filter(|head| head.signature.is_some()).map(|head| head.sequence).collect();
    let Some(newest_signed) = signed.last() else {
        let problem = "none of its heads is signed: whoever can write here could have written all of it";
        return Err(unreadable(log_folder, problem.to_string()));
    };
    gone.check(log_folder, first_segment, *newest_signed)?;
    Ok(AuditSummary {
        log: log.clone(),
        events: chain.sequence,
        first_event: gone.first_event,
        erased: chain.erased,
        segments: segments.len() as u64,
        first_time: first_time.clone(),
        last_time: chain.time.clone(),
        head: chain.head.to_string(),
        signed_heads: signed.len() as u64,
        key: public.id(),
        key_was_given: key.is_some(),
        events_after_head: chain.sequence - newest_signed,
        database: in_database.is_some(),
        torn_bytes,
    })
}

/// Each head of the file must stand in the database; each of the database in the file, but the newest, after which a
/// crash may have come, and those from before there were signatures. The error says whether the database is at fault.
fn compare_copies(log: &str, in_file: &[AuditHead], in_database: &[AuditHead]) -> Result<(), (bool, String)> {
    let numbers = |heads: &[AuditHead]| -> BTreeSet<u64> {
        let own = heads.iter().filter(|head| head.log == log && head.signature.is_some());
        own.map(|head| head.sequence).collect()
    };
    let (file, database) = (numbers(in_file), numbers(in_database));
    if let Some(unknown) = file.difference(&database).next() {
        let problem = format!(
            "the head of event {unknown} is not in it, though it stands beside the log: an older database was put in \
             its place, or heads were removed"
        );
        return Err((true, problem));
    }
    // `newest` may not have reached the file.
    let newest = database.last().copied().unwrap_or(0);
    match database.difference(&file).find(|&&sequence| sequence < newest) {
        Some(missing) => {
            Err((false, format!("the head of event {missing} is missing, though the database has it")))
        }
        None => Ok(()),
    }
}

/// The heads that lines are compared with, by log and number.
#[derive(Default)]
struct Heads(BTreeMap<String, BTreeMap<u64, AuditHead>>);

impl Heads {
    /// Adds heads whose signatures hold, and refuses others.
    fn add(&mut self, heads: &[AuditHead], key: &AuditPublicKey, source: &Path) -> Result<(), ServingError> {
        for head in heads {
            let broken = |problem: String| ServingError::AuditUnreadable {
                path: source.to_path_buf(),
                problem: format!("the head of event {} of the log {}: {problem}", head.sequence, head.log),
            };
            if let Some(signature) = &head.signature {
                if signature.key != key.id() {
                    return Err(broken(format!(
                        "it is signed with the key {}, not with {}",
                        signature.key,
                        key.id()
                    )));
                }
                if !head.is_signed_by(key) {
                    return Err(broken("its signature does not hold: it was altered or forged".to_string()));
                }
            }
            let known = self.0.entry(head.log.clone()).or_default();
            match known.get(&head.sequence) {
                Some(other) if other.digest != head.digest => {
                    return Err(broken(
                        "another head of this event names another digest: the log was written twice"
                            .to_string(),
                    ));
                }
                Some(signed) if signed.signature.is_some() => {}
                _ => drop(known.insert(head.sequence, head.clone())),
            }
        }
        Ok(())
    }

    fn compare(&self, chain: &Chain) -> Result<(), String> {
        let head = chain.log.as_ref().and_then(|log| self.0.get(log)?.get(&chain.sequence));
        match head {
            Some(head) if head.digest != chain.head.to_string() => Err(format!(
                "its digest is not the one that the head of {} names: this line or one before it was altered",
                head.time
            )),
            _ => Ok(()),
        }
    }

    fn of(&self, log: &str) -> impl Iterator<Item = &AuditHead> {
        self.0.get(log).into_iter().flat_map(BTreeMap::values)
    }
}

/// What is not there any more, and what the log says of it.
#[derive(Default)]
struct Gone {
    first_event: u64,
    /// Digest before the first line that is there.
    before_first: Option<Digest>,
    /// Segments in which erased lines were met.
    with_erased_lines: Vec<u64>,
    /// Announcements, each with the number of its line.
    announced: Vec<(u64, Announced)>,
}

impl Gone {
    fn note(&mut self, chain: &Chain) {
        if self.first_event == 0 {
            self.first_event = chain.sequence;
            self.before_first = Some(chain.previous);
        }
        self.announced.extend(chain.announced.clone().map(|announced| (chain.sequence, announced)));
    }

    /// Whatever is gone must have been announced in a line that a signed head covers.
    fn check(&self, folder: &Path, first_segment: u64, newest_signed: u64) -> Result<(), ServingError> {
        let broken = |segment: u64, problem: String| {
            Err(ServingError::AuditUnreadable { path: segment_path(folder, segment), problem })
        };
        let signed: Vec<&Announced> = self
            .announced
            .iter()
            .filter(|(sequence, _)| *sequence <= newest_signed)
            .map(|(_, announced)| announced)
            .collect();
        let removed = |announced: &&Announced| match announced {
            Announced::Removed { segment, sequence, digest } if *segment + 1 == first_segment => {
                *sequence + 1 == self.first_event && Some(*digest) == self.before_first
            }
            // The end of the program came between two files.
            Announced::Removed { segment, .. } => *segment >= first_segment,
            Announced::Erased { .. } => false,
        };
        if first_segment > 1 && !signed.iter().any(removed) {
            let problem =
                "this segment is missing, and no signed line of the log says that its time was over";
            return broken(first_segment - 1, problem.to_string());
        }
        for &segment in &self.with_erased_lines {
            let path = segment_path(folder, segment);
            let file = sha256_file(&path).map_err(|error| ServingError::AuditUnreadable {
                path: path.clone(),
                problem: error.to_string(),
            })?;
            if !signed.contains(&&Announced::Erased { segment, file }) {
                let problem = "lines were erased in it, and no signed line of the log names the digest that it has now: \
                               it was altered";
                return broken(segment, problem.to_string());
            }
        }
        Ok(())
    }
}
