//! Checking a whole log: every line, the chain through all segments, the signed heads, and the files that lines name.
//! Whatever does not fit is listed, and the rest looked at all the same.
//!
//! Two copies of the heads are compared with the lines: those of the state database, and those beside the segments. The
//! database gets each head first, so it knows all that the file knows; if it does not, an older database was put in its
//! place. An auditor's copy of the folder has no database, and is checked with the public key that the auditor was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use provenance::Digest;
use provenance::digest::sha256_file;

use super::chain::{Announced, Chain};
use super::content::ContentCheck;
use super::head::{AuditHead, heads_path, read_heads};
use super::key::{AuditKey, AuditPublicKey};
use super::retention::lock_shared;
use super::segment::{segment_path, segments};
use crate::error::ServingError;
use crate::store::{DATABASE_FILE, Store};

/// Faults that are told one by one; of further ones there is the number.
const MOST_FAULTS: usize = 100;

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
    /// Sealed conversations that are there as the log names them.
    pub contents: u64,
    /// Sealed conversations that the log names and that were not looked for: a copy without them.
    pub contents_elsewhere: u64,
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
    /// Logs that the state database has heads of and that are not in this folder, with the number of their last known event.
    pub earlier_logs: BTreeMap<String, u64>,
}

/// What does not fit in a log: at least one thing.
#[derive(Debug, Default)]
pub struct AuditFaults {
    /// The first hundred.
    pub listed: Vec<ServingError>,
    /// How many there are in all.
    pub count: u64,
}

impl AuditFaults {
    fn add(&mut self, fault: ServingError) {
        self.count += 1;
        if self.listed.len() < MOST_FAULTS {
            self.listed.push(fault);
        }
    }
}

impl From<ServingError> for AuditFaults {
    fn from(fault: ServingError) -> AuditFaults {
        AuditFaults { listed: vec![fault], count: 1 }
    }
}

/// As [`find_faults`]; of several faults the first.
pub fn verify_audit(
    log_folder: &Path,
    state_folder: Option<&Path>,
    key: Option<AuditPublicKey>,
) -> Result<AuditSummary, ServingError> {
    find_faults(log_folder, state_folder, key).map_err(|faults| {
        let none = || ServingError::AuditFailed("it has a fault that is not known".to_string());
        faults.listed.into_iter().next().unwrap_or_else(none)
    })
}

/// Checks the log of a state folder (`log_folder` inside it), or a copy of a log without a state, to its end whatever is
/// found on the way. `key` is the public key of who asks; without one the state's own is taken.
pub fn find_faults(
    log_folder: &Path,
    state_folder: Option<&Path>,
    key: Option<AuditPublicKey>,
) -> Result<AuditSummary, AuditFaults> {
    let public = match (key, state_folder) {
        (Some(key), _) => key,
        (None, Some(state_folder)) => AuditKey::read(state_folder)?.public(),
        (None, None) => {
            let problem = "a copy of a log is checked with its installation's public key: give it with --audit-key \
                           (`eulalia audit key` prints it)";
            return Err(unreadable(log_folder, problem).into());
        }
    };
    let mut faults = AuditFaults::default();
    let _lock = lock_shared(log_folder);
    // In this order: what is read later knows more, while a server writes.
    let file = heads_path(log_folder);
    let in_file = match read_heads(log_folder) {
        Ok((heads, _)) => heads,
        Err(fault) => {
            faults.add(fault);
            Vec::new()
        }
    };
    let database = state_folder.map(|folder| folder.join(DATABASE_FILE)).filter(|path| path.is_file());
    let in_database = match (&database, state_folder) {
        (Some(_), Some(folder)) => match Store::open(folder).and_then(|store| store.audit_heads()) {
            Ok(heads) => Some(heads),
            Err(fault) => {
                faults.add(fault);
                None
            }
        },
        _ => None,
    };
    let mut heads = Heads::default();
    for unsigned in in_file.iter().filter(|head| head.signature.is_none()) {
        faults.add(unreadable(&file, format!("the head of event {} is not signed", unsigned.sequence)));
    }
    heads.add(&in_file, &public, &file, &mut faults);
    if let (Some(in_database), Some(database)) = (&in_database, &database) {
        heads.add(in_database, &public, database, &mut faults);
    }
    let followed = Followed::follow(log_folder, state_folder.is_none(), &heads, &mut faults)?;
    let chain = &followed.chain;
    let (Some(log), Some(first_time)) = (&chain.log, &chain.first_time) else {
        faults.add(unreadable(log_folder, "there is no whole line of an audit log"));
        return Err(faults);
    };
    let others = |heads: &[AuditHead]| -> BTreeMap<String, u64> {
        let mut newest = BTreeMap::new();
        for head in heads.iter().filter(|head| head.log != *log) {
            let sequence = newest.entry(head.log.clone()).or_insert(head.sequence);
            *sequence = head.sequence.max(*sequence);
        }
        newest
    };
    for (other, sequence) in others(&in_file) {
        let problem = format!(
            "a head of event {sequence} of the log {other} stands here, and none of its lines: they were removed"
        );
        faults.add(unreadable(&file, problem));
    }
    let own: Vec<&AuditHead> = heads.of(log).collect();
    let newest = own.iter().map(|head| head.sequence).max().unwrap_or(0);
    if newest > chain.sequence {
        let problem = format!(
            "the log ends at event {}, but a head was kept of event {newest}: lines at the end are missing",
            chain.sequence
        );
        faults.add(unreadable(log_folder, problem));
    }
    if let (Some(in_database), Some(database)) = (&in_database, &database) {
        compare_copies(log, (&file, &in_file), (database, in_database), &mut faults);
    }
    let signed: BTreeSet<u64> =
        own.iter().filter(|head| head.signature.is_some()).map(|head| head.sequence).collect();
    let newest_signed = signed.last().copied();
    if newest_signed.is_none() {
        let problem = "none of its heads is signed: whoever can write here could have written all of it";
        faults.add(unreadable(log_folder, problem));
    }
    let newest_signed = newest_signed.unwrap_or(0);
    followed.gone.check(log_folder, followed.first_segment, newest_signed, &mut faults);
    if faults.count > 0 {
        return Err(faults);
    }
    Ok(AuditSummary {
        log: log.clone(),
        events: chain.sequence,
        first_event: followed.gone.first_event,
        erased: chain.erased,
        segments: followed.segments,
        contents: followed.contents,
        contents_elsewhere: followed.contents_elsewhere,
        first_time: first_time.clone(),
        last_time: chain.time.clone(),
        head: chain.head.to_string(),
        signed_heads: signed.len() as u64,
        key: public.id(),
        key_was_given: key.is_some(),
        events_after_head: chain.sequence.saturating_sub(newest_signed),
        database: in_database.is_some(),
        torn_bytes: followed.torn_bytes,
        earlier_logs: in_database.as_deref().map(others).unwrap_or_default(),
    })
}

fn unreadable(path: &Path, problem: impl Into<String>) -> ServingError {
    ServingError::AuditUnreadable { path: path.to_path_buf(), problem: problem.into() }
}

/// All lines, followed to the end.
struct Followed {
    chain: Chain,
    gone: Gone,
    first_segment: u64,
    segments: u64,
    torn_bytes: u64,
    contents: u64,
    contents_elsewhere: u64,
}

impl Followed {
    fn follow(
        folder: &Path,
        is_copy: bool,
        heads: &Heads,
        faults: &mut AuditFaults,
    ) -> Result<Followed, ServingError> {
        let segments = segments(folder)?;
        let first_segment = segments.first().copied().unwrap_or(1);
        let mut chain =
            if first_segment == 1 { Chain::from_the_beginning() } else { Chain::trusting_the_first_line() };
        let (mut gone, mut contents) = (Gone::default(), ContentCheck::new(folder, is_copy));
        let (mut torn_bytes, mut expected) = (0, first_segment);
        for &segment in &segments {
            if segment != expected {
                // However many: whoever can name a file can name it with any number.
                let last = if segment - expected > 1 {
                    format!(", as all up to {}", segment - 1)
                } else {
                    String::new()
                };
                let problem = format!("this segment is missing{last}");
                faults.add(unreadable(&segment_path(folder, expected), problem));
                chain.trust_the_next_line();
            }
            expected = segment.saturating_add(1);
            let path = segment_path(folder, segment);
            if torn_bytes > 0 {
                let problem = format!("segment {} before it ends in the middle of a line", segment - 1);
                faults.add(unreadable(&path, problem));
            }
            let erased_before = chain.erased;
            let seen = |chain: &Chain, fault: &mut dyn FnMut(ServingError)| {
                gone.note(chain);
                if let Err(problem) = contents.look(chain) {
                    fault(problem);
                }
                heads.compare(chain)
            };
            match chain.follow_on(&path, seen, &mut |fault| faults.add(fault)) {
                Ok((_, torn)) => torn_bytes = torn,
                Err(fault) => {
                    faults.add(fault);
                    torn_bytes = 0;
                    chain.trust_the_next_line();
                }
            }
            if chain.erased > erased_before {
                gone.with_erased_lines.push(segment);
            }
        }
        Ok(Followed {
            chain,
            gone,
            first_segment,
            segments: segments.len() as u64,
            torn_bytes,
            contents: contents.whole,
            contents_elsewhere: contents.elsewhere,
        })
    }
}

/// Each head of the file must stand in the database; each of the database in the file, but the newest, after which a
/// crash may have come, and those from before there were signatures.
fn compare_copies(
    log: &str,
    (file, in_file): (&Path, &[AuditHead]),
    (database, in_database): (&Path, &[AuditHead]),
    faults: &mut AuditFaults,
) {
    let numbers = |heads: &[AuditHead]| -> BTreeSet<u64> {
        let own = heads.iter().filter(|head| head.log == log && head.signature.is_some());
        own.map(|head| head.sequence).collect()
    };
    let (in_file, in_database) = (numbers(in_file), numbers(in_database));
    for unknown in in_file.difference(&in_database) {
        let problem = format!(
            "the head of event {unknown} is not in it, though it stands beside the log: an older database was put in \
             its place, or heads were removed"
        );
        faults.add(unreadable(database, problem));
    }
    // `newest` may not have reached the file.
    let newest = in_database.last().copied().unwrap_or(0);
    for missing in in_database.difference(&in_file).filter(|&&sequence| sequence < newest) {
        let problem = format!("the head of event {missing} is missing, though the database has it");
        faults.add(unreadable(file, problem));
    }
}

/// The heads that lines are compared with, by log and number.
#[derive(Default)]
struct Heads(BTreeMap<String, BTreeMap<u64, AuditHead>>);

impl Heads {
    /// Adds heads whose signatures hold; others are faults.
    fn add(&mut self, heads: &[AuditHead], key: &AuditPublicKey, source: &Path, faults: &mut AuditFaults) {
        for head in heads {
            if let Err(problem) = self.add_one(head, key) {
                let which = format!("the head of event {} of the log {}", head.sequence, head.log);
                faults.add(unreadable(source, format!("{which}: {problem}")));
            }
        }
    }

    fn add_one(&mut self, head: &AuditHead, key: &AuditPublicKey) -> Result<(), String> {
        if let Some(signature) = &head.signature {
            if signature.key != key.id() {
                return Err(format!("it is signed with the key {}, not with {}", signature.key, key.id()));
            }
            if !head.is_signed_by(key) {
                return Err("its signature does not hold: it was altered or forged".to_string());
            }
        }
        let known = self.0.entry(head.log.clone()).or_default();
        match known.get(&head.sequence) {
            Some(other) if other.digest != head.digest => {
                let problem = "another head of this event names another digest: the log was written twice";
                return Err(problem.to_string());
            }
            Some(signed) if signed.signature.is_some() => {}
            _ => drop(known.insert(head.sequence, head.clone())),
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
    fn check(&self, folder: &Path, first_segment: u64, newest_signed: u64, faults: &mut AuditFaults) {
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
            faults.add(unreadable(&segment_path(folder, first_segment - 1), problem));
        }
        for &segment in &self.with_erased_lines {
            let path = segment_path(folder, segment);
            let file = match sha256_file(&path) {
                Ok(file) => file,
                Err(error) => {
                    faults.add(unreadable(&path, error.to_string()));
                    continue;
                }
            };
            if !signed.contains(&&Announced::Erased { segment, file }) {
                let problem = "lines were erased in it, and no signed line of the log names the digest that it has now: \
                               it was altered";
                faults.add(unreadable(&path, problem));
            }
        }
    }
}
