//! Which failures are the user's words (exit code 2) and which are the work's (exit code 1).

use anyhow::Context as _;

/// Wrong usage or a wrong recipe: nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Standard output has no reader any more (`… | head -1`): no failure of ours, and nothing more to do.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
pub struct Unread;

/// What became of something that was written to standard output.
///
/// # Errors
/// [`Unread`] where its reader went away, else why it cannot be written.
pub fn to_output(written: std::io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Unread.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Of several names, the one that was probably meant.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(wanted.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `; did you mean "steps"?`, or what there is to choose from.
pub fn suggestion<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(wanted, known.clone()) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => format!("; known are: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let known = ["steps", "learning_rate", "sequence_length"];
        assert_eq!(nearest("step", known), Some("steps"));
        assert_eq!(nearest("lerning_rate", known), Some("learning_rate"));
        assert_eq!(nearest("Steps", known), Some("steps"));
        assert_eq!(nearest("banana", known), None);
    }
}
