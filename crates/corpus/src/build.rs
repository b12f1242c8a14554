//! The corpus stage from end to end. Each phase reads what the one before wrote into the scratch folder, in pieces that
//! any number of threads and processes share (`team`), and that stand where they are when a run is stopped.
//!
//! 1. *Examine* (`shards`, `examine`): rights, encoding, language, personal data, quality; keys for what follows.
//! 2. *Find duplicates* (`duplicates`), exact and near, and paragraphs that stand in many documents (`boilerplate`),
//!    and passages that stand in several (`passages`).
//! 3. *Clean* (`clean`): take those out, judge what changed again; find duplicates again, because texts changed.
//! 4. *Decide* (`decide`) what becomes of each document, and *write* (`write`).

use std::path::{Path, PathBuf};

use documents::InputDigest;
use provenance::{Context, StageOutput};

use crate::balance::Choose;
use crate::block;
use crate::boilerplate;
use crate::clean::{self, Changes};
use crate::decide::{self, Fates, Judged, Standing};
use crate::decontaminate::Decontamination;
use crate::duplicates::{self, Duplicate};
use crate::error::Error;
use crate::examine::Examiner;
use crate::holding::Holding;
use crate::passages;
use crate::reason::Reason;
use crate::scoring;
use crate::settings::{Settings, SmallLanguage};
use crate::shards::{self, ExaminedShards};
use crate::site_rules;
use crate::statistics::Statistics;
use crate::team::Team;
use crate::write::{self, Decided};

/// What the stage reports, and what the manifest's content holds: the same as `statistics.json`.
pub type Report = Statistics;

/// The digests of everything that decides the artefact besides the settings: the input files, corpora made earlier, and
/// the files that the settings name, each under the key of its setting.
pub fn digest_inputs(settings: &Settings, inputs: &[PathBuf]) -> Result<Vec<InputDigest>, Error> {
    let mut digests = documents::digest_inputs(inputs)?;
    for mut existing in documents::digest_inputs(&settings.existing)? {
        existing.name = format!("existing/{}", existing.name);
        digests.push(existing);
    }
    for (key, path) in settings.files() {
        let read_error = |source| Error::Read { path: path.to_path_buf(), source };
        let files = match path.is_dir() {
            true => {
                let names = provenance::digest::files_below_with_links(path).map_err(read_error)?;
                names.into_iter().map(|name| (format!("{key}/{name}"), path.join(name))).collect()
            }
            false => vec![(key.to_string(), path.to_path_buf())],
        };
        for (name, file) in files {
            let bytes = std::fs::read(&file).map_err(read_error)?;
            let sha256 = provenance::digest::sha256(&bytes);
            digests.push(InputDigest { name, bytes: bytes.len() as u64, sha256 });
        }
    }
    Ok(digests)
}

/// Makes the corpus of these inputs (files or folders) in `output.payload`.
pub fn build(
    settings: &Settings,
    inputs: &[PathBuf],
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    make(settings, inputs, None, output, context)
}

/// Makes a corpus of about so many documents, the first ones of each file: what the settings would do, seen in a minute.
pub fn build_sample(
    settings: &Settings,
    inputs: &[PathBuf],
    documents: u64,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    // A sample is too small for a held-out part of every language.
    let settings = Settings { small_language: SmallLanguage::TrainOnly, ..settings.clone() };
    let files = documents::list_input_files(inputs)?.len() as u64;
    make(&settings, inputs, Some(documents.div_ceil(files.max(1))), output, context)
}

fn make(
    settings: &Settings,
    inputs: &[PathBuf],
    limit: Option<u64>,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check()?;
    if settings.balance.choose == Choose::Score && settings.good_texts.is_empty() {
        let expected = "\"random\", or `good_texts` to score with";
        return Err(Error::Setting { key: "balance.choose", expected, found: "\"score\"".to_string() });
    }
    let mut examiner = Examiner::new(settings)?;
    let shards = shards::list(&settings.existing, inputs)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(context.threads)
        .build()
        .map_err(|error| Error::Threads { threads: context.threads, detail: error.to_string() })?;
    let team = Team::join(context, &output.scratch)?;
    pool.install(|| {
        for site_file in site_rules::gather(inputs, &team)? {
            examiner.rights.add_site_file(&site_file);
        }
        let ExaminedShards { mut holding, damaged_files } =
            shards::examine(&examiner, &shards, limit, &team)?;
        if holding.blocks.iter().all(|block| block.head.existing || block.head.records == 0) {
            return Err(Error::NoDocuments);
        }
        let mut duplicates = find_duplicates(&holding, &[], settings, &team, "first")?;
        let removals = find_boilerplate(&holding, &duplicates, settings, &team)?;
        let passages = find_passages(&holding, &duplicates, settings, &team)?;
        let cleaned = clean::clean(&examiner, &holding, &Changes { removals, passages }, &team)?;
        holding.extend(cleaned)?;
        duplicates.extend(find_duplicates(&holding, &duplicates, settings, &team, "second")?);
        let standing = Standing::of(&holding, &duplicates)?;
        let scores = scoring::find(&holding, &standing, settings, &team)?;
        let judged = Judged { holding: &holding, duplicates: &duplicates, standing, scores: &scores };
        let decided = decide(&examiner, judged, damaged_files, &team);
        warn_of_unreadable(&holding, context);
        let (fates, statistics) = decided?;
        let decided = Decided {
            examiner: &examiner,
            holding: &holding,
            fates: &fates,
            duplicates: &duplicates,
            scores: &scores,
        };
        let names = write::write(&decided, &team)?;
        assemble(&names, &statistics, output, &team)?;
        Ok(statistics)
    })
}

/// The duplicates of one round, found by one process and read by all. In the second round those of the first are gone,
/// and so are documents with a fault and those that a cleaned one stands for.
fn find_duplicates(
    holding: &Holding,
    before: &[Duplicate],
    settings: &Settings,
    team: &Team,
    round: &str,
) -> Result<Vec<Duplicate>, Error> {
    let path = team.scratch.join(format!("duplicates-{round}"));
    team.once(&path, || {
        team.context.progress.begin(&format!("find duplicates, {round} round"), None, "documents");
        let mut gone = vec![false; holding.len()];
        before.iter().for_each(|duplicate| gone[duplicate.document as usize] = true);
        if round != "first" {
            for origin in decide::replacements(holding)?.keys() {
                gone[*origin as usize] = true;
            }
            for (document, _) in decide::faults(holding, &gone)? {
                gone[document as usize] = true;
            }
        }
        let found = duplicates::find(holding, &gone, settings)?;
        team.context.progress.end();
        team.commit(&path, &duplicates::to_bytes(&found))
    })?;
    duplicates::read(&path)
}

/// The paragraphs to take out, counted over what is no duplicate.
fn find_boilerplate(
    holding: &Holding,
    duplicates: &[Duplicate],
    settings: &Settings,
    team: &Team,
) -> Result<Vec<boilerplate::Removal>, Error> {
    let path = team.scratch.join("boilerplate");
    team.once(&path, || {
        team.context.progress.begin("count paragraphs", None, "documents");
        let mut gone = vec![false; holding.len()];
        duplicates.iter().for_each(|duplicate| gone[duplicate.document as usize] = true);
        let found = boilerplate::find(holding, &gone, settings.boilerplate_documents)?;
        team.context.progress.end();
        team.commit(&path, bytemuck::cast_slice(&found))
    })?;
    Ok(block::collect(&read(&path)?))
}

/// The hashes of passages that documents share with earlier ones.
fn find_passages(
    holding: &Holding,
    duplicates: &[Duplicate],
    settings: &Settings,
    team: &Team,
) -> Result<Vec<passages::Shared>, Error> {
    if settings.repeated_passage_words == 0 {
        return Ok(Vec::new());
    }
    let path = team.scratch.join("passages");
    team.once(&path, || {
        team.context.progress.begin("find repeated passages", None, "documents");
        let mut gone = vec![false; holding.len()];
        duplicates.iter().for_each(|duplicate| gone[duplicate.document as usize] = true);
        let found = passages::find(holding, &gone, settings.repeated_passage_words)?;
        team.context.progress.end();
        team.commit(&path, bytemuck::cast_slice(&found))
    })?;
    Ok(block::collect(&read(&path)?))
}

/// The fates and the counts, made by one process and read by all.
fn decide(
    examiner: &Examiner,
    judged: Judged,
    damaged_files: u64,
    team: &Team,
) -> Result<(Fates, Statistics), Error> {
    let (fates, statistics) = (team.scratch.join("fates"), team.scratch.join("statistics.json"));
    let holding = judged.holding;
    team.once(&statistics, || {
        let (found, mut counts) = decide::decide(&judged, examiner.settings, damaged_files)?;
        let sets = examiner.decontamination.iter().flat_map(Decontamination::statistics);
        counts.decontamination = sets.map(|(name, set)| (name.to_string(), set.clone())).collect();
        team.commit(&fates, &found.to_bytes())?;
        let mut json = serde_json::to_vec_pretty(&counts).expect("counts always serialise");
        json.push(b'\n');
        team.commit(&statistics, &json)
    })?;
    let counts = serde_json::from_slice(&read(&statistics)?)
        .map_err(|_| Error::BadBlock { path: statistics.clone() })?;
    Ok((Fates::read(&fates, holding)?, counts))
}

/// Puts the finished files into the artefact, where each process has its own.
fn assemble(
    names: &[PathBuf],
    statistics: &Statistics,
    output: &StageOutput,
    team: &Team,
) -> Result<(), Error> {
    for name in names {
        let to = output.payload.join(name);
        if let Some(folder) = to.parent() {
            team.storage().create_folder(folder)?;
        }
        team.storage().link(&team.scratch.join("written").join(name), &to)?;
    }
    let mut json = serde_json::to_vec_pretty(statistics).expect("counts always serialise");
    json.push(b'\n');
    team.commit(&output.payload.join("statistics.json"), &json)
}

fn warn_of_unreadable(holding: &Holding, context: &Context) {
    let Some(first) = decide::first_unreadable(holding) else { return };
    let dropped = holding.blocks.iter().flat_map(|block| &block.head.dropped);
    let count: u64 =
        dropped.filter(|(_, reason, _)| *reason == Reason::Unreadable).map(|(_, _, count)| count).sum();
    let warning = match count {
        1 => format!("a record is unreadable and was dropped: {first}"),
        _ => format!("{count} records are unreadable and were dropped, the first: {first}"),
    };
    context.progress.warn(&warning);
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}
