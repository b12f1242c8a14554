//! From the command line to one command and its exit code: 0 done, 1 failed, 2 wrong usage or recipe.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use provenance::{Cancellation, Cancelled, Clock, Rank, Storage};

use crate::arguments::{self, Call, Command};
use crate::commands;
use crate::console::Console;
use crate::errors::{Unread, Usage, to_output};
use crate::machine;
use crate::ranks;
use crate::run::World;

/// Exit code of a run that was asked to stop (128 + SIGINT, as shells expect).
pub const STOPPED: u8 = 130;

/// Runs the program on these arguments (the first is its own name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let call = match arguments::parse(arguments) {
        Ok(call) => call,
        Err(error) => {
            // Help and version are no errors: clap knows which stream and code each deserves.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let console = Arc::new(Console::new(std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())));
    let rank = match call.command {
        Command::Run(_) | Command::Stage(_) => ranks::rank(&call.rank, |name| std::env::var(name).ok()),
        _ => Ok(Rank::default()),
    };
    let rank = match rank {
        Ok(rank) => rank,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let world = World {
        storage: Storage::disk(),
        clock: Clock::system(),
        cancellation: Cancellation::default(),
        progress: console.clone(),
        console,
        threads: call.threads.unwrap_or_else(machine::cores),
        rank,
        rated_watts: call.rated_watts,
    };
    let result = listen_for_signals(&world.cancellation)
        .and_then(|()| limit_threads(world.threads))
        .and_then(|()| command(&call, &world));
    match result {
        Ok(result) => {
            let done = result.get("ok").and_then(serde_json::Value::as_bool).unwrap_or(true);
            let written = match call.json && !result.is_null() {
                true => to_output(write_result(&result)),
                false => Ok(()),
            };
            if let Err(error) =
                written.or_else(|error| if error.is::<Unread>() { Ok(()) } else { Err(error) })
            {
                eprintln!("error: {}", in_words(&error));
                return ExitCode::from(1);
            }
            if done { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) if error.chain().any(|cause| cause.is::<Cancelled>()) || is_cancelled(&world, &error) => {
            // Only what keeps its half-done work goes on from it.
            let resumes = matches!(call.command, Command::Run(_) | Command::Stage(_) | Command::Pull(_));
            if resumes {
                eprintln!("{Cancelled}")
            } else {
                eprintln!("stopped on request")
            }
            ExitCode::from(STOPPED)
        }
        Err(error) if error.is::<Unread>() => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.chain().any(|cause| cause.is::<Usage>());
            eprintln!("error: {}", in_words(&error));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// An error with its causes; a cause that the message before it already tells is not said twice.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// A stage's own error type may have wrapped the cancellation in words.
fn is_cancelled(world: &World, error: &anyhow::Error) -> bool {
    world.cancellation.is_cancelled() && format!("{error:#}").contains(&Cancelled.to_string())
}

fn command(call: &Call, world: &World) -> anyhow::Result<serde_json::Value> {
    match &call.command {
        Command::Run(arguments) => commands::run::run(arguments, world),
        Command::Stage(arguments) => commands::run::stage(arguments, world),
        Command::Pull(arguments) => commands::pull::pull(arguments, call.json, world),
        Command::Doctor(arguments) => commands::doctor::doctor(arguments, world),
        Command::Verify(arguments) => commands::verify::verify(arguments, world),
        Command::Sign(arguments) => commands::sign::sign(arguments, world),
        Command::SigningKey(arguments) => commands::sign::signing_key(arguments, call.json, world),
        Command::Inspect(arguments) => commands::inspect::inspect(arguments, world),
        Command::Identify(arguments) => commands::identify::identify(arguments, call.json),
        Command::Score(arguments) => commands::score::score(arguments, call.json, world),
        Command::Plot(arguments) => commands::plot::plot(arguments, world),
        Command::Bench(arguments) => commands::bench::bench(arguments, world),
        Command::Gc(arguments) => commands::gc::gc(arguments, world),
        Command::Generate(arguments) => commands::generate::generate(arguments, call.json, world),
        Command::Chat(arguments) => commands::chat::chat(arguments, call.json, world),
        Command::Serve(arguments) => commands::serve::serve(arguments, world),
        Command::Keys(arguments) => commands::keys::keys(arguments, call.json, world),
        Command::Tenants(arguments) => commands::tenants::tenants(arguments, world),
        Command::Usage(arguments) => commands::usage::usage(arguments, world),
        Command::Limits(arguments) => commands::limits::limits(arguments, world),
        Command::Audit(arguments) => commands::audit::audit(arguments, call.json, world),
        Command::Backup(arguments) => commands::audit::backup(arguments, world),
        Command::Restore(arguments) => commands::audit::restore(arguments, world),
        Command::OptOut(arguments) => commands::opt_out::opt_out(arguments, world),
        Command::Convert(arguments) => commands::convert::convert(arguments, world),
        Command::Quantize(arguments) => commands::quantize::quantize(arguments, world),
        Command::CorpusExport(arguments) => commands::corpus_export::corpus_export(arguments, world),
        Command::CorpusReport(arguments) => commands::corpus_report::corpus_report(arguments, world),
    }
}

/// Ctrl-C and SIGTERM ask the work to stop at the next safe point; a second one ends the program at once.
fn listen_for_signals(cancellation: &Cancellation) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let asked: Arc<AtomicBool> = cancellation.flag();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(STOPPED), asked.clone())
            .context("cannot listen for signals")?;
        signal_hook::flag::register(signal, asked.clone()).context("cannot listen for signals")?;
    }
    Ok(())
}

/// One pool for all that uses the global one.
fn limit_threads(threads: usize) -> anyhow::Result<()> {
    // Built twice only when tests call `main` twice in one process; then the first pool stays.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    Ok(())
}

fn write_result(result: &serde_json::Value) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result}")?;
    out.flush()
}
