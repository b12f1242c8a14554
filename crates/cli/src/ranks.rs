//! Which of several processes this one is: from the flags, or from the launcher that started it.
//!
//! Nothing that is made depends on it, and a process that is told that there are others and finds itself alone does all the
//! work. So it does no harm to believe a launcher that speaks of tasks which were never started.

use std::time::Duration;

use provenance::Rank;

use crate::arguments::RankFlags;
use crate::errors::Usage;

/// The variables by which launchers number their processes, and tell how many there are: torchrun, Slurm, Open MPI, PMI,
/// and Kubernetes (indexed jobs, whose manifests may pass the number of completions on under this name).
const LAUNCHERS: [(&str, &str); 5] = [
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
];

/// The rank of this process; `variable` reads the environment.
pub fn rank(flags: &RankFlags, variable: impl Fn(&str) -> Option<String>) -> Result<Rank, Usage> {
    let patience = match flags.patience_seconds {
        Some(seconds) if seconds > 0.0 && seconds.is_finite() => Duration::from_secs_f64(seconds),
        Some(seconds) => return Err(Usage(format!("--rank-patience {seconds}: expected seconds above 0"))),
        None => Rank::PATIENCE,
    };
    let (names, rank, world) = match (flags.rank, flags.world) {
        (Some(rank), Some(world)) => (("--rank", "--world"), rank, world),
        _ => match from_launcher(variable)? {
            Some(found) => found,
            None => return Ok(Rank { patience, ..Rank::default() }),
        },
    };
    if rank >= world {
        let (rank_name, world_name) = names;
        return Err(Usage(format!(
            "{rank_name} {rank} of {world_name} {world}: ranks are numbered from 0, so the highest is {}",
            world.saturating_sub(1)
        )));
    }
    Ok(Rank { rank: rank as usize, world: world as usize, patience })
}

type Found = ((&'static str, &'static str), u64, u64);

fn from_launcher(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Found>, Usage> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => text.trim().parse::<u64>().map(Some).map_err(|_| {
            Usage(format!(
                "environment variable {name}: expected a number, found {text:?}; unset it or use --rank"
            ))
        }),
    };
    for names in LAUNCHERS {
        let Some(rank) = number(names.0)? else { continue };
        match number(names.1)? {
            Some(world) => return Ok(Some((names, rank, world))),
            // Kubernetes does not say how many there are; only that there may be others matters.
            None if names.0 == "JOB_COMPLETION_INDEX" => return Ok(Some((names, rank, rank + 2))),
            None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: RankFlags, variables: &[(&str, &str)], expected: Result<(usize, usize), &str>) {
        let variable = |name: &str| {
            variables.iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_string())
        };
        let found = rank(&flags, variable).map(|rank| (rank.rank, rank.world)).map_err(|error| error.0);
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected), "{variables:?}"),
            Err(expected) => assert!(found.clone().unwrap_err().contains(expected), "{found:?}"),
        }
    }

    #[test]
    fn flags_come_before_launchers() {
        let flags = RankFlags { rank: Some(1), world: Some(3), patience_seconds: None };
        let none = RankFlags::default();
        check(none, &[], Ok((0, 1)));
        check(flags, &[("RANK", "7"), ("WORLD_SIZE", "8")], Ok((1, 3)));
        check(none, &[("RANK", "7"), ("WORLD_SIZE", "8"), ("SLURM_PROCID", "0")], Ok((7, 8)));
        check(none, &[("RANK", "7")], Ok((0, 1)));
        check(none, &[("SLURM_PROCID", "2"), ("SLURM_NTASKS", "4")], Ok((2, 4)));
        check(none, &[("JOB_COMPLETION_INDEX", "0")], Ok((0, 2)));
        check(none, &[("JOB_COMPLETION_INDEX", "3"), ("JOB_COMPLETIONS", "5")], Ok((3, 5)));
        check(none, &[("RANK", "one")], Err("environment variable RANK"));
        check(none, &[("RANK", "4"), ("WORLD_SIZE", "4")], Err("RANK 4 of WORLD_SIZE 4"));
        check(RankFlags { patience_seconds: Some(0.0), ..flags }, &[], Err("--rank-patience"));
    }
}
