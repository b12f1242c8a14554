//! Which files of a repository a decoder needs: weights as safetensors with their index, configuration, tokenizer, chat
//! template, licence and card. Everything else stays where it is, with a reason; pickled files always do.

use crate::listing::RemoteFile;
use crate::{Error, Listing};

/// Why a file is not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Can run code when it is opened.
    Pickle,
    /// The same weights a second time, in another layout.
    OtherLayout,
    /// GGUF files hold many formats of one model: one is chosen by name.
    Gguf,
    /// Nothing that a decoder reads.
    NotNeeded,
}

impl LeftOut {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            LeftOut::Pickle => "pickled: can run code when it is opened",
            LeftOut::OtherLayout => "the same weights in another layout",
            LeftOut::Gguf => "GGUF: choose one with --file",
            LeftOut::NotNeeded => "not needed",
        }
    }
}

/// What is fetched of a repository, and what is not.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// In the order of their paths.
    pub wanted: Vec<RemoteFile>,
    /// The others, with the reason.
    pub left_out: Vec<(String, LeftOut)>,
}

const PICKLED: [&str; 7] = ["bin", "pt", "pth", "pkl", "pickle", "ckpt", "joblib"];
/// Beginnings of names that tell about rights and use.
const ABOUT: [&str; 6] = ["license", "licence", "notice", "readme", "use_policy", "copying"];
/// JSON that only trainers and other programs read.
const OTHER_JSON: [&str; 4] =
    ["trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"];

/// Chooses the files of a model; `named` are fetched as well, whatever they are, unless they are pickled.
///
/// # Errors
/// When there are no weights that could be loaded, or a named file is not there.
pub fn select(listing: &Listing, named: &[String]) -> Result<Selection, Error> {
    let nothing = |problem: String| Error::NothingToLoad { repository: listing.repository.clone(), problem };
    for name in named {
        let Some(file) = listing.files.iter().find(|file| file.path == *name) else {
            return Err(nothing(format!("it has no file {}", crate::listing::one_line(name))));
        };
        if is_pickled(&file.path) {
            return Err(Error::PickleOnly { repository: listing.repository.clone(), files: name.clone() });
        }
    }
    let standard = listing.files.iter().any(|file| is_standard_weights(&file.path));
    let mut selection = Selection::default();
    for file in &listing.files {
        match reason_against(&file.path, standard) {
            Some(reason) if !named.contains(&file.path) => {
                selection.left_out.push((file.path.clone(), reason))
            }
            _ => selection.wanted.push(file.clone()),
        }
    }
    let holds_weights = |path: &str| matches!(extension(path).as_str(), "safetensors" | "gguf");
    if selection.wanted.iter().any(|file| holds_weights(&file.path)) {
        return Ok(selection);
    }
    let among = |reason: LeftOut| -> Vec<&str> {
        selection.left_out.iter().filter(|(_, why)| *why == reason).map(|(path, _)| path.as_str()).collect()
    };
    match (among(LeftOut::Gguf), among(LeftOut::Pickle)) {
        (gguf, _) if !gguf.is_empty() => Err(nothing(format!(
            "it has GGUF files only; choose one with --file, such as --file {} ({} in all)",
            gguf[0],
            gguf.len()
        ))),
        (_, pickled) if !pickled.is_empty() => {
            let files = pickled.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            Err(Error::PickleOnly { repository: listing.repository.clone(), files })
        }
        _ => Err(nothing("it has no weights (.safetensors)".to_string())),
    }
}

fn reason_against(path: &str, standard_weights: bool) -> Option<LeftOut> {
    let lower = path.to_lowercase();
    let extension = extension(path);
    if is_pickled(path) {
        return Some(LeftOut::Pickle);
    }
    if extension == "gguf" {
        return Some(LeftOut::Gguf);
    }
    let Some((folder, _)) = lower.rsplit_once('/') else {
        return match extension.as_str() {
            "safetensors" if standard_weights && !is_standard_weights(path) => Some(LeftOut::OtherLayout),
            "safetensors" | "jinja" => None,
            // The index of weights that are not fetched.
            "json" if lower.ends_with(".index.json") && !lower.contains("safetensors") => {
                Some(LeftOut::NotNeeded)
            }
            "json" if OTHER_JSON.contains(&lower.as_str()) => Some(LeftOut::NotNeeded),
            "json" => None,
            "model" if lower.contains("tokenizer") || lower.contains("spiece") => None,
            _ if lower == "merges.txt" || lower == "vocab.txt" => None,
            _ if ABOUT.iter().any(|beginning| lower.starts_with(beginning)) => None,
            _ => Some(LeftOut::NotNeeded),
        };
    };
    match (folder, extension.as_str()) {
        ("additional_chat_templates", "jinja") => None,
        (_, "safetensors") => Some(LeftOut::OtherLayout),
        _ => Some(LeftOut::NotNeeded),
    }
}

/// `model.safetensors`, or a part of it.
fn is_standard_weights(path: &str) -> bool {
    path.starts_with("model") && path.ends_with(".safetensors") && !path.contains('/')
}

fn is_pickled(path: &str) -> bool {
    PICKLED.contains(&extension(path).as_str())
}

fn extension(path: &str) -> String {
    path.rsplit('/')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .map_or(String::new(), |(_, end)| end.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Announced;

    fn listing(paths: &[&str]) -> Listing {
        let file = |path: &&str| RemoteFile {
            path: path.to_string(),
            bytes: 1,
            digest: Announced::GitBlob([0; 20]),
        };
        Listing {
            repository: "a/b".into(),
            commit: String::new(),
            files: paths.iter().map(file).collect(),
            license: None,
            license_link: None,
            gated: false,
            parameters: None,
        }
    }

    fn wanted(paths: &[&str], named: &[&str]) -> Result<Vec<String>, String> {
        let named: Vec<String> = named.iter().map(|name| name.to_string()).collect();
        let selection = select(&listing(paths), &named).map_err(|error| error.to_string())?;
        Ok(selection.wanted.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn a_decoder_gets_what_it_needs() {
        let taken = [
            "LICENSE",
            "README.md",
            "additional_chat_templates/tools.jinja",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ];
        let left = [
            ".gitattributes",
            "consolidated.safetensors",
            "images/header.png",
            "modeling_x.py",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "original/params.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "x.q4.gguf",
        ];
        let all: Vec<&str> = taken.iter().chain(&left).copied().collect();
        assert_eq!(wanted(&all, &[]).unwrap(), taken);
    }

    #[test]
    fn pickled_weights_are_named_and_never_taken() {
        let error = wanted(&["config.json", "pytorch_model.bin"], &[]).unwrap_err();
        assert!(error.contains("pytorch_model.bin") && error.contains("run code"), "{error}");
        assert!(wanted(&["model.safetensors", "x.pt"], &["x.pt"]).is_err());
    }

    #[test]
    fn one_gguf_is_chosen_by_name() {
        let paths = ["README.md", "m.Q4_0.gguf", "m.Q8_0.gguf"];
        let error = wanted(&paths, &[]).unwrap_err();
        assert!(error.contains("--file m.Q4_0.gguf (2 in all)"), "{error}");
        assert_eq!(wanted(&paths, &["m.Q8_0.gguf"]).unwrap(), ["README.md", "m.Q8_0.gguf"]);
        assert!(wanted(&paths, &["m.Q2.gguf"]).unwrap_err().contains("no file m.Q2.gguf"));
    }
}
