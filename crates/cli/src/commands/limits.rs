//! `eulalia limits`: what one key may use.

use serde_json::{Map, Value, json};
use serving::LimitsPolicy;

use crate::arguments::LimitsArguments;
use crate::commands::keys::seconds_since_1970;
use crate::commands::state;
use crate::run::World;

/// Sets, or with no limit takes away, the limits of a key.
pub fn limits(arguments: &LimitsArguments, world: &World) -> anyhow::Result<Value> {
    let limits = parse(&arguments.limits)?;
    state::must_be_here(&arguments.state)?;
    let now = seconds_since_1970(world);
    serving::set_key_limits(&arguments.state, &arguments.key, limits.as_ref(), now)?;
    world.console.say(&match limits {
        Some(_) => format!("Key {} now has these limits: {}.", arguments.key, arguments.limits.join(", ")),
        None => format!("Key {} has no limits of its own any more.", arguments.key),
    });
    Ok(json!({ "key": arguments.key, "limits": limits }))
}

fn parse(limits: &[String]) -> anyhow::Result<Option<LimitsPolicy>> {
    let mut object = Map::new();
    for limit in limits {
        let number =
            limit.split_once('=').and_then(|(name, number)| Some((name, number.parse::<u64>().ok()?)));
        let Some((name, number)) = number else {
            anyhow::bail!("`{limit}`: expected NAME=NUMBER, such as requests_per_minute=60");
        };
        object.insert(name.to_string(), json!(number));
    }
    if object.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_value(Value::Object(object))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_numbers() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(parse(&[]).unwrap(), None);
        let limits = parse(&texts(&["answers=2", "tokens_per_day=9"])).unwrap().unwrap();
        assert_eq!((limits.answers, limits.tokens_per_day), (Some(2), Some(9)));
        for wrong in ["answers", "answers=", "answers=-1", "answer=2"] {
            assert!(parse(&texts(&[wrong])).is_err(), "{wrong}");
        }
    }
}
