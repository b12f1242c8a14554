//! The phase between the last search for duplicates and the decisions: a model for each language is trained on the owner's
//! good texts and a sample of what is still in, and every document gets its score.

use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use documents::{ReadOptions, read_documents};
use languages::{LANGUAGE_COUNT, Language};
use rayon::prelude::*;

use crate::block::{collect, first_eight};
use crate::decide::Standing;
use crate::encoding;
use crate::error::Error;
use crate::holding::Holding;
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
    cuts: [u16; LANGUAGE_COUNT],
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

/// The scores, found by one process and read by all.
pub fn find(
    holding: &Holding,
    standing: &Standing,
    settings: &Settings,
    team: &Team,
) -> Result<Scores, Error> {
    if settings.good_texts.is_empty() {
        return Ok(Scores::default());
    }
    let (path, statistics_path) = (team.scratch.join("scores"), team.scratch.join("score-statistics.json"));
    team.once(&statistics_path, || {
        team.context.progress.begin("score", Some(holding.len() as u64), "documents");
        let models = train(holding, standing, settings)?;
        let scores = score_all(holding, standing, &models, team)?;
        let statistics = statistics(holding, &models, &scores, settings)?;
        team.commit(&path, bytemuck::cast_slice(&scores))?;
        let json = serde_json::to_vec(&statistics).expect("counts always serialise");
        team.context.progress.end();
        team.commit(&statistics_path, &json)
    })?;
    let scores: Vec<u16> = collect(&read(&path)?);
    let statistics: BTreeMap<String, ScoreStatistics> = serde_json::from_slice(&read(&statistics_path)?)
        .map_err(|_| Error::BadBlock { path: statistics_path.clone() })?;
    if scores.len() != holding.len() {
        return Err(Error::BadBlock { path });
    }
    let mut cuts = [0; LANGUAGE_COUNT];
    for language in Language::all() {
        if let Some(statistics) = statistics.get(language.code()) {
            cuts[language.index()] = (statistics.cut * f64::from(score::ONE)).round() as u16;
        }
    }
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

fn score_all(
    holding: &Holding,
    standing: &Standing,
    models: &Models,
    team: &Team,
) -> Result<Vec<u16>, Error> {
    let blocks = (0..holding.blocks.len()).into_par_iter().map(|number| {
        team.context.cancellation.check()?;
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
        let scores = documents.zip(0..).map(score).collect::<Result<Vec<u16>, Error>>()?;
        team.context.progress.advance(scores.len() as u64);
        Ok(scores)
    });
    Ok(blocks.collect::<Result<Vec<_>, Error>>()?.concat())
}

fn statistics(
    holding: &Holding,
    models: &Models,
    scores: &[u16],
    settings: &Settings,
) -> Result<BTreeMap<String, ScoreStatistics>, Error> {
    let mut of_languages: Vec<Vec<u16>> = vec![Vec::new(); LANGUAGE_COUNT];
    for (block, starts) in holding.blocks.iter().zip(holding.starts.windows(2)) {
        for &(language, first, end) in &block.head.languages {
            let scores = &scores[(starts[0] + first) as usize..(starts[0] + end) as usize];
            of_languages[language.index()].extend(scores.iter().filter(|score| **score != NO_SCORE));
        }
    }
    let scored =
        Language::all().zip(models).filter_map(|(language, trained)| Some((language, trained.as_ref()?)));
    let statistics = scored.map(|(language, trained)| {
        let scores = &of_languages[language.index()];
        let statistics = ScoreStatistics {
            good_pieces: trained.good_pieces,
            sample_documents: trained.sample_documents,
            good_above_ordinary: crate::reason::rounded(trained.model.good_above_ordinary),
            cut: score::as_share(score::cut(scores, &settings.score)),
            histogram: score::histogram(scores),
        };
        (language.to_string(), statistics)
    });
    Ok(statistics.collect())
}
