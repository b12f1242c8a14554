//! Flags of what makes artefacts: a recipe, one stage alone (made from the table of kinds), and clearing up.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args};

use super::artefacts::{CorpusExportArguments, CorpusReportArguments};
use super::with_example;
use crate::kinds::Kind;
use crate::recipe::Override;

/// The whole life of a model, from one recipe.
#[derive(Args)]
pub struct RunArguments {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// Where the artefacts go [default: runs/<name of the recipe> in the current folder]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Change a setting, such as pretrain.steps=200 (repeatable)
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    pub set: Vec<Override>,
    /// Say what would be made and why, and make nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: run the corpus stages on about so many documents, and show what they would keep and why
    #[arg(long, value_name = "DOCUMENTS", requires = "dry_run")]
    pub sample: Option<u64>,
    /// Say what pretraining would take (memory, time, energy), and make nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub estimate: bool,
}

/// One stage alone, on files from anywhere.
pub struct StageArguments {
    pub kind: &'static Kind,
    pub output: PathBuf,
    pub settings: Option<PathBuf>,
    pub set: Vec<String>,
    pub roles: Vec<(String, PathBuf)>,
    pub files: Vec<(String, Vec<PathBuf>)>,
    pub dry_run: bool,
    pub sample: Option<u64>,
    pub estimate: bool,
}

/// Remove artefacts and unfinished work that no stage of a run points to any more.
#[derive(Args)]
pub struct GcArguments {
    /// The folder of a run, such as runs/tiny
    pub folder: PathBuf,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The kind of stage that can be estimated; for that, nothing else has to be there.
pub(super) const ESTIMATED: &str = "pretrain";

/// The kind of stage that can be tried on a sample, and whose artefact can be drawn as a page and exported.
pub(super) const CORPUS: &str = "corpus";

pub(super) fn stage_command(kind: &'static Kind) -> clap::Command {
    let estimated = kind.name == ESTIMATED;
    let required = |arg: Arg| match estimated {
        true => arg.required_unless_present("estimate"),
        false => arg.required(true),
    };
    let mut command = clap::Command::new(kind.name)
        .about(kind.about)
        .arg(required(
            Arg::new("output")
                .long("output")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Folder of the run; the artefact appears in it under the stage's name"),
        ))
        .arg(
            Arg::new("settings")
                .long("settings")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Settings of this stage, as in a recipe's table but without its header"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Change a setting (repeatable)"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say what would be made and why, and make nothing"),
        );
    if kind.name == CORPUS {
        command = command.arg(
            Arg::new("sample")
                .long("sample")
                .value_name("DOCUMENTS")
                .requires("dry-run")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help(
                    "With --dry-run: run it on about so many documents, and show what it would keep and why",
                ),
        );
    }
    if estimated {
        command = command.arg(
            Arg::new("estimate")
                .long("estimate")
                .action(ArgAction::SetTrue)
                .conflicts_with("dry-run")
                .help("Say what it would take (memory, time, energy), and make nothing; corpus and tokenizer may be missing"),
        );
    }
    if kind.name == CORPUS {
        let report = CorpusReportArguments::augment_args(clap::Command::new("report"));
        let export = CorpusExportArguments::augment_args(clap::Command::new("export"));
        command = command
            .subcommand(with_example(report, "eulalia corpus report runs/tiny/corpus --output corpus.html"))
            .subcommand(with_example(export, "eulalia corpus export runs/tiny/corpus --output parquet/"))
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
    }
    for role in kind.roles {
        let arg = Arg::new(role.name)
            .long(role.name.replace('_', "-"))
            .value_name("DIR")
            .value_parser(clap::value_parser!(PathBuf))
            .help(role.what);
        command = command.arg(if role.required { required(arg) } else { arg });
    }
    for file in kind.files {
        command = command.arg(
            Arg::new(file.key)
                .long(file.key.replace('_', "-"))
                .value_name("PATH")
                .required(file.required)
                .num_args(if file.many { 1..=4096 } else { 1..=1 })
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf))
                .help(file.what),
        );
    }
    let settings = serde_json::to_string_pretty(&(kind.defaults)()).unwrap_or_default();
    command
        .after_help(format!("Example:\n  {}", kind.example))
        .after_long_help(format!("Example:\n  {}\n\nSettings and their defaults:\n{settings}", kind.example))
}

pub(super) fn stage_arguments(kind: &'static Kind, matches: &ArgMatches) -> StageArguments {
    let roles = kind.roles.iter().filter_map(|role| {
        matches.get_one::<PathBuf>(role.name).map(|path| (role.name.to_string(), path.clone()))
    });
    let files = kind.files.iter().filter_map(|file| {
        let paths = matches.get_many::<PathBuf>(file.key)?;
        Some((file.key.to_string(), paths.cloned().collect()))
    });
    StageArguments {
        kind,
        output: matches.get_one::<PathBuf>("output").cloned().unwrap_or_default(),
        settings: matches.get_one::<PathBuf>("settings").cloned(),
        set: matches.get_many::<String>("set").into_iter().flatten().cloned().collect(),
        roles: roles.collect(),
        files: files.collect(),
        dry_run: matches.get_flag("dry-run"),
        sample: match kind.name {
            CORPUS => matches.get_one::<u64>("sample").copied(),
            _ => None,
        },
        estimate: kind.name == ESTIMATED && matches.get_flag("estimate"),
    }
}
