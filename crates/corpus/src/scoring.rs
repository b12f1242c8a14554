//! The phase between the last search for duplicates and the decisions: a model for each language is trained on the owner's
//! good texts and a sample of what is still in, and every document gets its score.

use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};

use documents::{ReadOptions, read_documents};
use languages::{LANGUAGE_COUNT, Language};
use rayon::prelude::*;

use crate::block::{collect, first_eight};
use crate::decide::Standing;
use crate::encoding;
use crate::error::Error;
use crate::holding::Holding;
use crate::reason::rounded;
use crate::score::{self, Features, MINIMUM_GOOD_PIECES, MissingLanguage, Model, NO_SCORE, ScoreStatistics};
use crate::settings::Settings;
use crate::team::Team;
use crate::words::{Words, hash_of_sequence, mix};

/// The scores of all documents of a holding.
#[derive(Debug, Default)]
pub struct Scores {
    /// In ten-thousandths; `NO_SCORE` for documents that are out already, or whose language is not scored. Empty where the
    /// settings name no good texts.
    scores: Vec<u16>,
    /// The lowest score that is kept, by language.
    cuts: Cuts,
    pub statistics: BTreeMap<String, ScoreStatistics>,
}

impl Scores {
    pub fn of(&self, document: u32) -> Option<u16> {
        self.scores.get(document as usize).copied().filter(|score| *score != NO_SCORE)
    }

    /// The score that documents of a language need.
    pub fn cut(&self, language: Language) -> u16 {
        self.cuts[language.index()]
    }

    /// Whether a document falls below its language's cut.
    pub fn is_too_low(&self, document: u32, language: Language) -> bool {
        self.of(document).is_some_and(|score| score < self.cut(language))
    }
}

/// The scores: models made by one process, blocks shared among all.
pub fn find(
    holding: &Holding,
    standing: &Standing,
    settings: &Settings,
    team: &Team,
) -> Result<Scores, Error> {
    if settings.good_texts.is_empty() {
        return Ok(Scores::default());
    }
    let progress = &team.context.progress;
    let models_path = team.scratch.join("score-models");
    team.once(&models_path, || {
        progress.begin("train scores", None, "languages");
        let models = train(holding, standing, settings)?;
        progress.end();
        team.commit(&models_path, &models_to_bytes(&models))
    })?;
    let models = models_from_bytes(&read(&models_path)?);
    let models = models.ok_or_else(|| Error::BadBlock { path: models_path.clone() })?;

    let folder = team.scratch.join("scores");
    team.storage().create_folder(&folder)?;
    let paths: Vec<PathBuf> =
        (0..holding.blocks.len()).map(|block| folder.join(format!("{block:06}"))).collect();
    progress.begin("score", Some(paths.len() as u64), "blocks");
    team.each(&paths, |number| {
        let scores = score_block(holding, standing, &models, number)?;
        team.commit(&paths[number], bytemuck::cast_slice(&scores))?;
        progress.advance(1);
        Ok(())
    })?;
    progress.end();
    let mut scores: Vec<u16> = Vec::with_capacity(holding.len());
    for path in &paths {
        scores.extend(collect::<u16>(&read(path)?));
    }
    if scores.len() != holding.len() {
        return Err(Error::BadBlock { path: folder });
    }
    let (statistics, cuts) = statistics(holding, &models, &scores, settings);
    Ok(Scores { scores, cuts, statistics })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

/// A model, and what it was trained with.
struct Trained {
    model: Model,
    good_pieces: u64,
    sample_documents: u64,
}

/// The models by language; none where a language is not scored.
type Models = Vec<Option<Trained>>;

fn train(holding: &Holding, standing: &Standing, settings: &Settings) -> Result<Models, Error> {
    let good = good_texts(settings)?;
    let missing: Vec<String> = settings
        .languages
        .iter()
        .filter(|language| good[language.index()].len() < MINIMUM_GOOD_PIECES)
        .map(|language| format!("`{language}` ({})", good[language.index()].len()))
        .collect();
    let all_missing = missing.len() == settings.languages.len();
    if !missing.is_empty() && (all_missing || settings.score.missing_language == MissingLanguage::Stop) {
        return Err(Error::GoodTexts { needed: MINIMUM_GOOD_PIECES, found: missing.join(", ") });
    }
    let samples = sample(holding, standing, settings)?;
    let models = good.into_par_iter().zip(samples).map(|(good, documents)| {
        if good.len() < MINIMUM_GOOD_PIECES || documents.is_empty() {
            return Ok(None);
        }
        let mut words = Words::default();
        let ordinary = documents.iter().map(|&document| {
            words.read(&holding.text(document)?);
            Ok(score::features(&words))
        });
        let ordinary: Vec<Features> = ordinary.collect::<Result<_, Error>>()?;
        Ok(Some(Trained {
            model: Model::train(&good, &ordinary, settings.seed),
            good_pieces: good.len() as u64,
            sample_documents: ordinary.len() as u64,
        }))
    });
    models.collect()
}

/// The owner's good texts in pieces, by language, in an order that follows from their words.
fn good_texts(settings: &Settings) -> Result<Vec<Vec<Features>>, Error> {
    let mut pieces: Vec<Vec<Features>> = vec![Vec::new(); LANGUAGE_COUNT];
    let mut words = Words::default();
    for record in read_documents(&settings.good_texts, ReadOptions::default())? {
        let document = match record?.document {
            Ok(document) => document,
            Err(bad) => return Err(Error::BadGoodText { place: bad.to_string() }),
        };
        let labelled = document.language.as_deref().and_then(|label| Language::from_code(label).ok());
        let Some(language) = labelled.or_else(|| languages::identify(&document.text).language) else {
            continue;
        };
        let text =
            encoding::repair(&document.text).ok().flatten().map_or(document.text, |repaired| repaired.text);
        words.read(&text);
        pieces[language.index()].extend(score::pieces(&words));
    }
    for pieces in &mut pieces {
        let content = |piece: &Features| {
            hash_of_sequence(&piece.iter().map(|bucket| u64::from(*bucket)).collect::<Vec<_>>())
        };
        pieces.sort_by_cached_key(|piece| mix(settings.seed) ^ content(piece));
        pieces.dedup();
    }
    Ok(pieces)
}

/// By language, the documents that stand for ordinary text: those with the lowest keys of what is still in.
fn sample(holding: &Holding, standing: &Standing, settings: &Settings) -> Result<Vec<Vec<u32>>, Error> {
    let mut lowest: Vec<BinaryHeap<(u64, u64, u32)>> = vec![BinaryHeap::new(); LANGUAGE_COUNT];
    let salt = mix(settings.seed ^ 0x5c0e);
    for (number, block) in holding.blocks.iter().enumerate() {
        for (document, row) in (holding.starts[number]..).zip(block.rows()?) {
            if standing.is_in(document) {
                let heap = &mut lowest[usize::from(row.language)];
                heap.push((mix(salt ^ first_eight(&row.digest)), row.id_hash, document));
                if heap.len() > settings.score.sample_documents {
                    heap.pop();
                }
            }
        }
    }
    let documents = |heap: BinaryHeap<(u64, u64, u32)>| {
        heap.into_sorted_vec().into_iter().map(|(_, _, document)| document)
    };
    Ok(lowest.into_iter().map(|heap| documents(heap).collect()).collect())
}

fn score_block(
    holding: &Holding,
    standing: &Standing,
    models: &Models,
    number: usize,
) -> Result<Vec<u16>, Error> {
    let block = &holding.blocks[number];
    let mut words = Words::default();
    let documents = holding.starts[number]..holding.starts[number + 1];
    let score = |(document, place): (u32, u32)| match &models[block.language(place).index()] {
        Some(trained) if standing.is_in(document) => {
            words.read(&holding.text(document)?);
            Ok(trained.model.score(&words))
        }
        _ => Ok(NO_SCORE),
    };
    documents.zip(0..).map(score).collect()
}

type Cuts = [u16; LANGUAGE_COUNT];

fn statistics(
    holding: &Holding,
    models: &Models,
    scores: &[u16],
    settings: &Settings,
) -> (BTreeMap<String, ScoreStatistics>, Cuts) {
    let mut of_languages: Vec<Vec<u16>> = vec![Vec::new(); LANGUAGE_COUNT];
    for (block, starts) in holding.blocks.iter().zip(holding.starts.windows(2)) {
        for &(language, first, end) in &block.head.languages {
            let scores = &scores[(starts[0] + first) as usize..(starts[0] + end) as usize];
            of_languages[language.index()].extend(scores.iter().filter(|score| **score != NO_SCORE));
        }
    }
    let (mut statistics, mut cuts) = (BTreeMap::new(), [0; LANGUAGE_COUNT]);
    for (language, trained) in Language::all().zip(models) {
        let Some(Trained { model, good_pieces, sample_documents }) = trained else { continue };
        let scores = &of_languages[language.index()];
        let cut = score::cut(scores, &settings.score);
        cuts[language.index()] = cut;
        let of_language = ScoreStatistics {
            good_pieces: *good_pieces,
            sample_documents: *sample_documents,
            good_above_ordinary: rounded(model.good_above_ordinary),
            cut: score::as_share(cut),
            histogram: score::histogram(scores),
        };
        statistics.insert(language.to_string(), of_language);
    }
    (statistics, cuts)
}

/// One after the other by language: a byte that says whether there is a model, its counts, its numbers.
fn models_to_bytes(models: &Models) -> Vec<u8> {
    let mut bytes = Vec::new();
    for trained in models {
        bytes.push(u8::from(trained.is_some()));
        if let Some(trained) = trained {
            bytes.extend_from_slice(&trained.good_pieces.to_le_bytes());
            bytes.extend_from_slice(&trained.sample_documents.to_le_bytes());
            bytes.extend_from_slice(&trained.model.to_bytes());
        }
    }
    bytes
}

fn models_from_bytes(bytes: &[u8]) -> Option<Models> {
    let mut rest = bytes;
    let mut models = Models::new();
    for _ in 0..LANGUAGE_COUNT {
        let (is_there, after) = rest.split_first()?;
        rest = after;
        models.push(match is_there {
            0 => None,
            _ => {
                let (good_pieces, after) = rest.split_first_chunk::<8>()?;
                let (sample_documents, after) = after.split_first_chunk::<8>()?;
                let (model, after) = Model::from_bytes(after)?;
                rest = after;
                let (good_pieces, sample_documents) =
                    (u64::from_le_bytes(*good_pieces), u64::from_le_bytes(*sample_documents));
                Some(Trained { model, good_pieces, sample_documents })
            }
        });
    }
    rest.is_empty().then_some(models)
}
