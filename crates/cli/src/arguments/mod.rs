//! The flags of every command. Stage commands are made from the table of kinds, so that a stage alone takes what it
//! takes in a recipe.

mod artefacts;
mod bench;
mod models;
mod server;
mod stages;

use std::ffi::OsString;

use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, Args, FromArgMatches};

pub use artefacts::{
    CorpusExportArguments, CorpusReportArguments, IdentifyArguments, InspectArguments, OptOutAction,
    OptOutAddArguments, OptOutArguments, PlotArguments, ScoreArguments, VerifyArguments,
};
pub use bench::{
    BenchAction, BenchArguments, BenchInferenceArguments, BenchQualityArguments, BenchTrainingArguments,
};
pub use models::{
    ChatArguments, ConvertArguments, DoctorArguments, GenerateArguments, PullArguments, QuantizeArguments,
};
pub use server::{
    AuditAction, AuditArguments, AuditLines, BackupArguments, KeysAction, KeysArguments, LimitsArguments,
    RestoreArguments, ServeArguments, TenantsAction, TenantsArguments, UsageArguments,
};
use stages::{CORPUS, stage_arguments, stage_command};
pub use stages::{GcArguments, RunArguments, StageArguments};

use crate::commands::sign::{SignArguments, SigningKeyArguments};
use crate::kinds::KINDS;

/// A parsed command line.
pub struct Call {
    pub json: bool,
    pub threads: Option<usize>,
    pub rated_watts: Option<f64>,
    pub rank: RankFlags,
    pub command: Command,
}

pub enum Command {
    Run(RunArguments),
    Stage(StageArguments),
    Verify(VerifyArguments),
    Sign(SignArguments),
    SigningKey(SigningKeyArguments),
    Inspect(InspectArguments),
    Identify(IdentifyArguments),
    Score(ScoreArguments),
    Gc(GcArguments),
    Generate(GenerateArguments),
    Chat(ChatArguments),
    Serve(ServeArguments),
    Keys(KeysArguments),
    Tenants(TenantsArguments),
    Audit(AuditArguments),
    Usage(UsageArguments),
    Limits(LimitsArguments),
    Backup(BackupArguments),
    Restore(RestoreArguments),
    OptOut(OptOutArguments),
    Plot(PlotArguments),
    Bench(BenchArguments),
    Convert(ConvertArguments),
    Quantize(QuantizeArguments),
    CorpusExport(CorpusExportArguments),
    CorpusReport(CorpusReportArguments),
    Pull(PullArguments),
    Doctor(DoctorArguments),
}

/// Which of several processes this is, as far as flags say so.
#[derive(Debug, Default, Clone, Copy)]
pub struct RankFlags {
    pub rank: Option<u64>,
    pub world: Option<u64>,
    pub patience_seconds: Option<f64>,
}

/// Reads the command line.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Call, clap::Error> {
    let matches = program().try_get_matches_from(arguments)?;
    let Some((name, inner)) = matches.subcommand() else {
        return Err(program().error(clap::error::ErrorKind::MissingSubcommand, "a command is missing"));
    };
    let command = match name {
        "run" => Command::Run(RunArguments::from_arg_matches(inner)?),
        "verify" => Command::Verify(VerifyArguments::from_arg_matches(inner)?),
        "sign" => Command::Sign(SignArguments::from_arg_matches(inner)?),
        "signing-key" => Command::SigningKey(SigningKeyArguments::from_arg_matches(inner)?),
        "inspect" => Command::Inspect(InspectArguments::from_arg_matches(inner)?),
        "identify" => Command::Identify(IdentifyArguments::from_arg_matches(inner)?),
        "score" => Command::Score(ScoreArguments::from_arg_matches(inner)?),
        "gc" => Command::Gc(GcArguments::from_arg_matches(inner)?),
        "generate" => Command::Generate(GenerateArguments::from_arg_matches(inner)?),
        "chat" => Command::Chat(ChatArguments::from_arg_matches(inner)?),
        "serve" => Command::Serve(ServeArguments::from_arg_matches(inner)?),
        "keys" => Command::Keys(KeysArguments::from_arg_matches(inner)?),
        "tenants" => Command::Tenants(TenantsArguments::from_arg_matches(inner)?),
        "audit" => Command::Audit(AuditArguments::from_arg_matches(inner)?),
        "usage" => Command::Usage(UsageArguments::from_arg_matches(inner)?),
        "limits" => Command::Limits(LimitsArguments::from_arg_matches(inner)?),
        "backup" => Command::Backup(BackupArguments::from_arg_matches(inner)?),
        "restore" => Command::Restore(RestoreArguments::from_arg_matches(inner)?),
        "opt-out" => Command::OptOut(OptOutArguments::from_arg_matches(inner)?),
        "plot" => Command::Plot(PlotArguments::from_arg_matches(inner)?),
        "bench" => Command::Bench(BenchArguments::from_arg_matches(inner)?),
        "convert" => Command::Convert(ConvertArguments::from_arg_matches(inner)?),
        "quantize" => Command::Quantize(QuantizeArguments::from_arg_matches(inner)?),
        "pull" => Command::Pull(PullArguments::from_arg_matches(inner)?),
        "doctor" => Command::Doctor(DoctorArguments::from_arg_matches(inner)?),
        CORPUS if let Some(("export", export)) = inner.subcommand() => {
            Command::CorpusExport(CorpusExportArguments::from_arg_matches(export)?)
        }
        CORPUS if let Some((_, report)) = inner.subcommand() => {
            Command::CorpusReport(CorpusReportArguments::from_arg_matches(report)?)
        }
        stage => match KINDS.iter().find(|kind| kind.name == stage) {
            Some(kind) => Command::Stage(stage_arguments(kind, inner)),
            None => return Err(program().error(clap::error::ErrorKind::InvalidSubcommand, stage)),
        },
    };
    Ok(Call {
        json: matches.get_flag("json"),
        threads: matches.get_one::<u64>("threads").map(|threads| *threads as usize),
        rated_watts: matches.get_one::<f64>("rated-watts").copied(),
        rank: RankFlags {
            rank: matches.get_one::<u64>("rank").copied(),
            world: matches.get_one::<u64>("world").copied(),
            patience_seconds: matches.get_one::<f64>("rank-patience").copied(),
        },
        command,
    })
}

/// The whole command, for parsing and for tests of the help texts.
pub fn program() -> clap::Command {
    let mut program = clap::Command::new("eulalia")
        .version(env!("CARGO_PKG_VERSION"))
        .about("One program for the whole life of an open European language model")
        .long_about(
            "One program for the whole life of an open European language model: text, tokenizer, pretraining, \
             evaluation, adaptation, release, serving; in the 24 official languages of the European Union.",
        )
        .after_help("Begin with:  eulalia run recipes/tiny.toml")
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("json")
                .long("json")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Print the result as one JSON object on standard output"),
        )
        .arg(
            Arg::new("threads")
                .long("threads")
                .global(true)
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..=4096))
                .help("Threads to compute with [default: all cores]; never changes a byte of what is made"),
        )
        .arg(
            Arg::new("rated-watts")
                .long("rated-watts")
                .global(true)
                .value_name("W")
                .value_parser(clap::value_parser!(f64))
                .hide_short_help(true)
                .help("Power of this machine in watts, for an energy estimate where it has no meter"),
        )
        .arg(
            Arg::new("rank")
                .long("rank")
                .global(true)
                .value_name("N")
                .requires("world")
                .value_parser(clap::value_parser!(u64))
                .hide_short_help(true)
                .help("Which of the processes that make a corpus together this is, from 0 [default: from Slurm, Kubernetes or MPI]"),
        )
        .arg(
            Arg::new("world")
                .long("world")
                .global(true)
                .value_name("N")
                .requires("rank")
                .value_parser(clap::value_parser!(u64).range(1..))
                .hide_short_help(true)
                .help("How many processes there are; all write into the same --output"),
        )
        .arg(
            Arg::new("rank-patience")
                .long("rank-patience")
                .global(true)
                .value_name("SECONDS")
                .value_parser(clap::value_parser!(f64))
                .hide_short_help(true)
                .help("How long a process may give no sign of life before others do its work [default: 60]"),
        )
        .subcommand(with_example(
            RunArguments::augment_args(clap::Command::new("run")),
            "eulalia run recipes/tiny.toml --set pretrain.steps=200 --dry-run",
        ));
    for kind in KINDS {
        program = program.subcommand(stage_command(kind));
    }
    let program = program
        .subcommand(with_example(
            GenerateArguments::augment_args(clap::Command::new("generate")),
            "eulalia generate runs/tiny/release --prompt \"Es war einmal\" --max-tokens 50",
        ))
        .subcommand(with_example(
            PullArguments::augment_args(clap::Command::new("pull")),
            "eulalia pull --list\n  eulalia pull eurollm-1.7b-instruct\n  \
             eulalia pull hf:BSC-LT/salamandra-2b-instruct --to models/salamandra --bundle salamandra.tar",
        ))
        .subcommand(with_example(
            DoctorArguments::augment_args(clap::Command::new("doctor")),
            "eulalia doctor\n  eulalia doctor models/eurollm-1.7b-instruct",
        ))
        .subcommand(with_example(
            ChatArguments::augment_args(clap::Command::new("chat")),
            "eulalia chat runs/tiny/release",
        ))
        .subcommand(with_example(
            ServeArguments::augment_args(clap::Command::new("serve")),
            "eulalia keys new && eulalia serve tiny=runs/tiny/release",
        ))
        .subcommand(with_example(
            KeysArguments::augment_args(clap::Command::new("keys")),
            "eulalia keys new --label \"reading room\" --expires 90",
        ))
        .subcommand(with_example(
            TenantsArguments::augment_args(clap::Command::new("tenants")),
            "eulalia tenants new library --set 'models=[\"small\"]' --set limits.tokens_per_minute=6000",
        ))
        .subcommand(with_example(
            UsageArguments::augment_args(clap::Command::new("usage")),
            "eulalia usage eulalia-state --tenant \"reading room\" --days 7",
        ))
        .subcommand(with_example(
            LimitsArguments::augment_args(clap::Command::new("limits")),
            "eulalia limits 4fGh72Kq requests_per_minute=60 tokens_per_day=200000",
        ))
        .subcommand(with_example(
            AuditArguments::augment_args(clap::Command::new("audit")),
            "eulalia audit key eulalia-state > audit-key.pem\n  eulalia audit show --event request --since 2026-11-20\n  \
             eulalia audit export --format ecs --after 12000 > events.ndjson",
        ))
        .subcommand(with_example(
            BackupArguments::augment_args(clap::Command::new("backup")),
            "eulalia backup eulalia-state --to backups/2026-11-20",
        ))
        .subcommand(with_example(
            RestoreArguments::augment_args(clap::Command::new("restore")),
            "eulalia restore backups/2026-11-20 --to eulalia-state",
        ))
        .subcommand(with_example(
            OptOutArguments::augment_args(clap::Command::new("opt-out")),
            "eulalia opt-out add --ledger opt-outs.jsonl --domain site.example --reference \"letter 12\"\n  \
             eulalia opt-out check --ledger opt-outs.jsonl",
        ))
        .subcommand(with_example(
            VerifyArguments::augment_args(clap::Command::new("verify")),
            "eulalia verify runs/tiny/release --public-key release-key.pub.pem\n  \
             eulalia verify eulalia-state --audit-key audit-key.pem",
        ))
        .subcommand(with_example(
            SigningKeyArguments::augment_args(clap::Command::new("signing-key")),
            "eulalia signing-key new release-key.pem",
        ))
        .subcommand(with_example(
            SignArguments::augment_args(clap::Command::new("sign")),
            "eulalia sign runs/tiny/release --key release-key.pem",
        ))
        .subcommand(with_example(
            InspectArguments::augment_args(clap::Command::new("inspect")),
            "eulalia inspect runs/tiny/corpus\n  eulalia inspect runs/tiny/corpus --reason near_duplicate --samples 5",
        ))
        .subcommand(with_example(
            IdentifyArguments::augment_args(clap::Command::new("identify")),
            "eulalia identify letter.txt report.txt\n  eulalia identify --lines --json < sentences.txt",
        ))
        .subcommand(with_example(
            ScoreArguments::augment_args(clap::Command::new("score")),
            "eulalia score runs/tiny/release < sentences.txt",
        ))
        .subcommand(with_example(
            PlotArguments::augment_args(clap::Command::new("plot")),
            "eulalia plot runs/adamw runs/muon --output curves.png",
        ))
        .subcommand(with_example(
            BenchArguments::augment_args(clap::Command::new("bench")),
            "eulalia bench training --config M --threads 2 --json",
        ))
        .subcommand(with_example(
            ConvertArguments::augment_args(clap::Command::new("convert")),
            "eulalia convert runs/tiny/release tiny.gguf --format bf16\n  eulalia convert model-Q4_K_M.gguf model --format bf16",
        ))
        .subcommand(with_example(
            QuantizeArguments::augment_args(clap::Command::new("quantize")),
            "eulalia quantize runs/tiny/release tiny-q8_0.gguf --format q8_0",
        ))
        .subcommand(with_example(
            GcArguments::augment_args(clap::Command::new("gc")),
            "eulalia gc runs/tiny --dry-run",
        ));
    hide_what_means_nothing(program)
}

/// Flags of the whole program that concern some commands alone: they are taken everywhere, and shown where they do something.
fn hide_what_means_nothing(mut program: clap::Command) -> clap::Command {
    let makes = |name: &str| name == "run" || KINDS.iter().any(|kind| kind.name == name);
    let computes = |name: &str| {
        makes(name)
            || !["gc", "identify", "keys", "opt-out", "plot", "signing-key", "tenants"].contains(&name)
    };
    let shared: Vec<Arg> = program.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let names: Vec<String> =
        program.get_subcommands().map(|command| command.get_name().to_string()).collect();
    for name in names {
        let hidden = shared.iter().filter(|arg| match arg.get_id().as_str() {
            "threads" => !computes(&name),
            "rated-watts" | "rank" | "world" | "rank-patience" => !makes(&name),
            _ => false,
        });
        let hidden: Vec<Arg> = hidden.map(|arg| arg.clone().hide(true)).collect();
        program = program.mut_subcommand(&name, |command| command.args(hidden));
    }
    program
}

fn with_example(command: clap::Command, example: &'static str) -> clap::Command {
    command.after_help(format!("Example:\n  {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent_and_each_shows_an_example() {
        let program = program();
        program.clone().debug_assert();
        for command in program.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("eulalia "), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn a_command_shows_the_flags_that_mean_something_to_it() {
        for (name, shown, hidden) in [
            ("gc", &["--json"][..], &["--threads", "--rated-watts", "--rank-patience"][..]),
            ("serve", &["--threads"], &["--rated-watts", "--world"]),
            ("corpus", &["--threads", "--rated-watts", "--world"], &[]),
        ] {
            let help = parse(["eulalia", name, "--help"].map(OsString::from)).err().unwrap().to_string();
            assert!(shown.iter().all(|flag| help.contains(flag)), "{name}: {help}");
            assert!(!hidden.iter().any(|flag| help.contains(flag)), "{name}: {help}");
        }
    }

    #[test]
    fn flags_come_before_or_after_the_command() {
        for line in ["eulalia --json --threads 2 run r.toml", "eulalia run r.toml --json --threads 2"] {
            let call = parse(line.split(' ').map(OsString::from)).unwrap_or_else(|error| panic!("{error}"));
            assert!(call.json && call.threads == Some(2));
        }
        assert!(parse(["eulalia", "run", "--threads", "0", "r"].map(OsString::from)).is_err());
        let call =
            parse("eulalia gc runs --threads 3 --rated-watts 5".split(' ').map(OsString::from)).unwrap();
        assert!(call.threads == Some(3) && call.rated_watts == Some(5.0), "taken where they mean nothing");
        assert!(parse(["eulalia", "run", "r", "--set", "steps"].map(OsString::from)).is_err());
    }
}
