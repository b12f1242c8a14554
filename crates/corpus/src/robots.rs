//! robots.txt after RFC 9309: groups of user agents, longest match, wildcards; and the preferences about training that
//! sites write into the same file (`Content-Usage` of the IETF's AI preferences, `Content-Signal`).
//!
//! Whoever crawled obeyed the file for fetching. Here it is asked something else, afterwards: whether the site lets the
//! crawlers of AI companies take the page. A page that any of the agents of the settings may not fetch is not used.

use crate::reservation;

/// A parser reads at least the first 500 KiB of a file (RFC 9309, 2.5); the rest is not looked at.
const MOST_BYTES: usize = 500 << 10;

/// The rules of one robots.txt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Robots {
    groups: Vec<Group>,
}

/// Rules for some agents. Groups for the same agent count as one.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    /// Product tokens in lower case; `*` is any other.
    agents: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    /// Path with `*` for anything and a `$` at the end for the end; percent-encoded as in RFC 9309, 2.2.2.
    pattern: String,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Allow,
    Disallow,
    /// A preference: whether it reserves from training.
    Preference {
        reserves: bool,
    },
}

/// What a robots.txt says of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Free,
    /// An agent of the settings must not fetch the page.
    Disallowed,
    /// A `Content-Usage` or `Content-Signal` line reserves it from training.
    Reserved,
}

impl Robots {
    /// Reads a robots.txt; lines that are none of its own are passed over, as the RFC asks.
    pub fn parse(text: &str) -> Robots {
        let text = &text[..text.floor_char_boundary(MOST_BYTES)];
        let text = text.trim_start_matches('\u{FEFF}');
        let mut robots = Robots::default();
        let mut in_agents = false;
        for line in text.split(['\n', '\r']) {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            if matches!(key.as_str(), "user-agent" | "useragent" | "user agent") {
                if !in_agents {
                    robots.groups.push(Group::default());
                }
                in_agents = true;
                if let Some(group) = robots.groups.last_mut() {
                    group.agents.push(product_token(value));
                }
                continue;
            }
            let Some(rule) = Rule::of(&key, value) else { continue };
            in_agents = false;
            match robots.groups.last_mut() {
                // A preference before any group is meant for everyone; a path rule there belongs to none.
                None if matches!(rule.verdict, Verdict::Preference { .. }) => {
                    robots.groups.push(Group { agents: vec!["*".to_string()], rules: vec![rule] });
                }
                None => {}
                Some(group) => group.rules.push(rule),
            }
        }
        robots
    }

    /// Forgets the groups of agents that nobody asks for: of a million sites' files that is most.
    pub fn keep(&mut self, agents: &[String], own_agent: &str) {
        // Preferences under `*` are about training, whoever crawled.
        let asked = |named: &String| {
            named == "*"
                || named == &own_agent.to_ascii_lowercase()
                || agents.iter().any(|agent| agent.eq_ignore_ascii_case(named))
        };
        self.groups.retain(|group| group.agents.iter().any(asked));
    }

    /// Whether the file lets a page be used for training. `path` is the address from its path on, query included.
    ///
    /// If the file names `own_agent`, that is its answer to us. Otherwise each of `agents` that it names is asked for,
    /// and the group `*` if `*` is among `agents`: one refusal is enough. Preferences of the group `*` hold in any case.
    pub fn answer(&self, agents: &[String], own_agent: &str, path: &str) -> Answer {
        let path = normalised(if path.is_empty() { "/" } else { path });
        // The file itself is always free to fetch (RFC 9309, 2.2.2), and nobody reserves it.
        if path == "/robots.txt" {
            return Answer::Free;
        }
        let own_agent = own_agent.to_ascii_lowercase();
        if !own_agent.is_empty() && self.names(&own_agent) {
            return self.answer_to(&own_agent, &path);
        }
        let answers = agents.iter().map(|agent| agent.to_ascii_lowercase());
        let mut answers =
            answers.filter(|agent| self.names(agent)).map(|agent| self.answer_to(&agent, &path));
        let refusal = answers.find(|answer| *answer != Answer::Free);
        refusal.unwrap_or_else(|| match self.answer_to("*", &path) {
            Answer::Reserved => Answer::Reserved,
            // Whether `*` may fetch the page was asked above, if the settings ask it.
            Answer::Disallowed | Answer::Free => Answer::Free,
        })
    }

    fn names(&self, agent: &str) -> bool {
        self.groups.iter().any(|group| group.agents.iter().any(|named| named == agent))
    }

    fn answer_to(&self, agent: &str, path: &str) -> Answer {
        let groups = self.groups.iter().filter(|group| group.agents.iter().any(|named| named == agent));
        let rules = groups.flat_map(|group| &group.rules).filter(|rule| matches(&rule.pattern, path));
        let (mut fetch, mut preference): (Option<&Rule>, Option<&Rule>) = (None, None);
        for rule in rules {
            let (best, wins_ties) = match rule.verdict {
                // Of equally specific rules the one that allows counts (RFC 9309, 2.2.2) …
                Verdict::Allow => (&mut fetch, true),
                Verdict::Disallow => (&mut fetch, false),
                // … and of equally specific preferences the one that reserves.
                Verdict::Preference { reserves } => (&mut preference, reserves),
            };
            let length = rule.pattern.len();
            if best
                .is_none_or(|best| length > best.pattern.len() || wins_ties && length == best.pattern.len())
            {
                *best = Some(rule);
            }
        }
        match (preference.map(|rule| rule.verdict), fetch.map(|rule| rule.verdict)) {
            (Some(Verdict::Preference { reserves: true }), _) => Answer::Reserved,
            (_, Some(Verdict::Disallow)) => Answer::Disallowed,
            _ => Answer::Free,
        }
    }
}

impl Rule {
    fn of(key: &str, value: &str) -> Option<Rule> {
        let (pattern, verdict) = match key {
            "allow" => (value, Verdict::Allow),
            // An empty rule disallows nothing.
            "disallow" | "dissallow" | "dissalow" | "disalow" | "diasllow" | "disallaw" => {
                (value, Verdict::Disallow)
            }
            "content-usage" | "content-signal" => {
                let (pattern, preferences) = match value.split_once(char::is_whitespace) {
                    Some((path, rest)) if path.starts_with('/') => (path, rest),
                    _ => ("/", value),
                };
                let reserves = reservation::of_preferences(preferences)?;
                (pattern, Verdict::Preference { reserves })
            }
            _ => return None,
        };
        // Paths begin with `/` or `*`; anything else matches no page.
        pattern.starts_with(['/', '*']).then(|| Rule { pattern: normalised(pattern), verdict })
    }
}

/// The product token of a user-agent line: letters, `_` and `-` from its start (RFC 9309, 2.2.1), or `*`.
fn product_token(value: &str) -> String {
    if value.starts_with('*') {
        return "*".to_string();
    }
    let end =
        value.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(value.len());
    value[..end].to_ascii_lowercase()
}

/// Percent-encoding made comparable: escapes in upper case, those of unreserved characters undone, other bytes beyond
/// ASCII escaped.
fn normalised(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut comparable = String::with_capacity(path.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| path.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        let byte = escaped.unwrap_or(bytes[at]);
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_unreserved || escaped.is_none() && byte.is_ascii() {
            comparable.push(char::from(byte));
        } else {
            comparable.push_str(&format!("%{byte:02X}"));
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    comparable
}

/// Whether a path matches a pattern with `*` (anything) and `$` at the end (the end): in time of pattern × path, whatever
/// the stars.
pub fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, to_the_end) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return !to_the_end || rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() && to_the_end {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(start) => rest = &rest[start + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(robots: &str, agents: &str, path: &str, expected: Answer) {
        let agents: Vec<String> = agents.split(' ').map(String::from).collect();
        assert_eq!(Robots::parse(robots).answer(&agents, "", path), expected, "{robots}\n{agents:?} {path}");
    }

    #[test]
    fn the_groups_of_the_agents_are_asked() {
        let robots =
            "User-agent: GPTBot\nUser-agent: CCBot/2.0 # crawlers\nDisallow: /\n\nUser-agent: *\nAllow: /\n";
        check(robots, "GPTBot", "/a", Answer::Disallowed);
        check(robots, "ccbot *", "/a", Answer::Disallowed);
        check(robots, "ClaudeBot", "/a", Answer::Free);
        check(robots, "*", "/a", Answer::Free);
        check(robots, "GPTBot", "/robots.txt", Answer::Free);
        check("User-agent: *\nDisallow: /private\n", "GPTBot", "/private/1", Answer::Free);
        check("User-agent: *\nDisallow: /private\n", "GPTBot *", "/private/1", Answer::Disallowed);
        // Two groups for one agent count as one; an agent is named whole.
        check(
            "user-agent: a\ndisallow: /x\nuser-agent: b\ndisallow: /y\nuser-agent: a\ndisallow: /z",
            "a",
            "/z",
            Answer::Disallowed,
        );
        check("user-agent: GPTBotPlus\ndisallow: /", "GPTBot", "/", Answer::Free);
        check("\u{FEFF}USER-AGENT: gptbot\r\nDISALLOW: /\r\n", "GPTBot", "", Answer::Disallowed);
        check("Disallow: /\nUser-agent: *\nDisallow:\n", "*", "/", Answer::Free);
        // Lines of other kinds end no list of agents.
        check("User-agent: a\nCrawl-delay: 3\nUser-agent: b\nDisallow: /", "a", "/", Answer::Disallowed);
    }

    #[test]
    fn the_file_may_answer_us_by_name() {
        let robots = Robots::parse("User-agent: *\nDisallow: /\nUser-agent: eulalia\nAllow: /\n");
        let agents = ["*".to_string()];
        assert_eq!(robots.answer(&agents, "Eulalia", "/a"), Answer::Free);
        assert_eq!(robots.answer(&agents, "other", "/a"), Answer::Disallowed);
    }

    #[test]
    fn the_longest_match_decides() {
        let robots = "User-agent: *\nDisallow: /\nAllow: /open/\nDisallow: /open/not/\nAllow: /page\nDisallow: /page\n";
        check(robots, "*", "/else", Answer::Disallowed);
        check(robots, "*", "/open/1", Answer::Free);
        check(robots, "*", "/open/not/1", Answer::Disallowed);
        check(robots, "*", "/page", Answer::Free);
        check("User-agent: *\nDisallow: /*.pdf$\nDisallow: /*?*print=", "*", "/a/b.pdf", Answer::Disallowed);
        check("User-agent: *\nDisallow: /*.pdf$\nDisallow: /*?*print=", "*", "/a/b.pdf?x=1", Answer::Free);
        check("User-agent: *\nDisallow: /*?*print=", "*", "/a?x=1&print=1", Answer::Disallowed);
        check(
            "User-agent: *\nDisallow: /αθήνα",
            "*",
            "/%CE%B1%ce%b8%CE%AE%CE%BD%CE%B1/1",
            Answer::Disallowed,
        );
        check("User-agent: *\nDisallow: /%7Euser", "*", "/~user/", Answer::Disallowed);
    }

    #[test]
    fn preferences_reserve_too() {
        check("User-agent: *\nContent-Usage: train-ai=n\nAllow: /", "*", "/a", Answer::Reserved);
        check(
            "User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /",
            "*",
            "/a",
            Answer::Reserved,
        );
        check("User-agent: *\nContent-Signal: search=yes,ai-train=yes\nAllow: /", "*", "/a", Answer::Free);
        check(
            "User-agent: *\nContent-Usage: /news/ train-ai=n\nContent-Usage: train-ai=y",
            "*",
            "/news/1",
            Answer::Reserved,
        );
        check(
            "User-agent: *\nContent-Usage: /news/ train-ai=n\nContent-Usage: train-ai=y",
            "*",
            "/old/1",
            Answer::Free,
        );
        check("User-agent: *\nContent-Signal: ai-train=no", "GPTBot", "/a", Answer::Reserved);
        check("Content-Usage: train-ai=n\nUser-agent: x\nDisallow: /", "*", "/a", Answer::Reserved);
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "/".to_string() + &"*a".repeat(5_000) + "$";
        assert!(!matches(&pattern, &("/".to_string() + &"a".repeat(4_999) + "b")));
        for (pattern, path, expected) in [
            ("/a*b*c", "/aXbYcZ", true),
            ("/a*b$", "/abb", true),
            ("/a*b$", "/abc", false),
            ("/*", "/", true),
            ("/$", "/", true),
            ("/$", "/a", false),
            ("/a*a$", "/a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
