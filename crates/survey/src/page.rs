//! A survey as one HTML file: no script, nothing from the network, every text of the corpus escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::gather::{Gathered, Sample, Survey};
use crate::histogram::Histogram;

const STYLE: &str = "
:root { color-scheme: light dark; --bar: #2f6f8f; --line: #8884; --faint: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td.share { background: linear-gradient(90deg, color-mix(in srgb, var(--bar) 30%, transparent) var(--share), transparent 0); }
thead th { position: sticky; top: 0; background: Canvas; }
.scroll { overflow-x: auto; }
.flow { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.sample { border-left: 3px solid var(--line); padding-left: .8rem; margin: .8rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.faint { color: var(--faint); font-size: .85rem; }
svg rect { fill: var(--bar); } svg text { fill: currentColor; font-size: 10px; }
summary { cursor: pointer; padding: .3rem 0; }
nav a { margin-right: 1rem; }
";

/// The page of a corpus that goes by this name.
pub fn page(survey: &Survey, name: &str) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{0}</h1>\n",
        escaped(name)
    );
    out += "<nav><a href=\"#languages\">Languages</a><a href=\"#dropped\">What was dropped</a><a href=\"#data\">Personal data</a>\
            <a href=\"#origin\">Origin</a><a href=\"#duplicates\">Duplicates</a><a href=\"#texts\">Texts</a></nav>\n";
    summary(&mut out, survey);
    languages(&mut out, survey);
    reasons(&mut out, survey);
    counts_by_language(&mut out, survey, "data", "Personal data", "placeholders", PERSONAL_DATA);
    counts_by_language(&mut out, survey, "repairs", "Repairs", "repaired", REPAIRS);
    origin(&mut out, survey);
    duplicates(&mut out, survey);
    texts(&mut out, survey);
    out += "</body>\n</html>\n";
    out
}

const PERSONAL_DATA: &str = "Placeholders in the texts that were kept, by what they stand for.";
const REPAIRS: &str = "Kept documents in which something was put right.";

fn summary(out: &mut String, survey: &Survey) {
    let total = &survey.statistics["total"];
    let (read, kept) = (count(&total["read"]), count(&total["kept"]));
    let bytes = part_sum(total, "bytes");
    let _ = writeln!(
        out,
        "<p>{} records were read, {} were kept ({}), with {} of text and {} words. {} were dropped, each for a reason below.</p>",
        number(read),
        number(kept),
        percent(kept, read),
        size(bytes),
        number(part_sum(total, "words")),
        number(read.saturating_sub(kept)),
    );
}

fn languages(out: &mut String, survey: &Survey) {
    *out += "<h2 id=\"languages\">Languages</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>language</th><th>read</th><th>kept</th>\
             <th>kept, %</th><th>text</th><th>words</th><th>held out</th><th>mean length</th><th class=\"words\">most often dropped for</th></tr></thead>\n";
    for (code, counts) in object(&survey.statistics["languages"]) {
        let (read, kept) = (count(&counts["read"]), count(&counts["kept"]));
        let characters = part_sum(counts, "characters");
        let dropped = object(&counts["dropped"]).map(|(reason, value)| (count(value), reason));
        let most = dropped.max().map_or(String::new(), |(count, reason)| {
            format!("{} ({})", escaped(&plain(reason)), number(count))
        });
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td>{}<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"words\">{most}</td></tr>",
            escaped(code),
            number(read),
            number(kept),
            share_cell(kept, read),
            size(part_sum(counts, "bytes")),
            number(part_sum(counts, "words")),
            number(count(&counts["heldout"]["documents"])),
            number(characters.checked_div(kept).unwrap_or(0)),
        );
    }
    *out += "</table></div>\n";
}

/// A language a row, a reason a column.
fn reasons(out: &mut String, survey: &Survey) {
    *out += "<h2 id=\"dropped\">What was dropped</h2>\n<p class=\"faint\">Of documents that were dropped for rights or for personal \
             data, nothing is kept but the reason, the date and a digest. A language is counted as far as it was known when the \
             document was dropped.</p>\n";
    matrix(out, &survey.statistics, "dropped", "nothing was dropped");
}

fn counts_by_language(out: &mut String, survey: &Survey, id: &str, title: &str, key: &str, about: &str) {
    let _ = write!(out, "<h2 id=\"{id}\">{title}</h2>\n<p class=\"faint\">{about}</p>\n");
    matrix(out, &survey.statistics, key, "none");
}

fn matrix(out: &mut String, statistics: &Value, key: &str, none: &str) {
    let total: Vec<(&String, u64)> =
        object(&statistics["total"][key]).map(|(name, value)| (name, count(value))).collect();
    if total.is_empty() {
        let _ = writeln!(out, "<p>{none}</p>");
        return;
    }
    *out += "<div class=\"scroll\"><table>\n<thead><tr><th>language</th>";
    for (name, _) in &total {
        let _ = write!(out, "<th>{}</th>", escaped(&plain(name)));
    }
    *out += "</tr></thead>\n";
    for (code, counts) in object(&statistics["languages"]) {
        let _ = write!(out, "<tr><td>{}</td>", escaped(code));
        for (name, all) in &total {
            let found = count(&counts[key][name.as_str()]);
            match found {
                0 => *out += "<td></td>",
                found => {
                    let share = 100.0 * found as f64 / (*all).max(1) as f64;
                    let _ = write!(
                        out,
                        "<td class=\"share\" style=\"--share: {share:.0}%\">{}</td>",
                        number(found)
                    );
                }
            }
        }
        *out += "</tr>\n";
    }
    *out += "<tr><th>all</th>";
    for (_, all) in &total {
        let _ = write!(out, "<th>{}</th>", number(*all));
    }
    *out += "</tr>\n</table></div>\n";
}

fn origin(out: &mut String, survey: &Survey) {
    *out += "<h2 id=\"origin\">Origin</h2>\n<div class=\"flow\">\n";
    for (title, key) in [("Licences", "licenses"), ("Sources", "sources")] {
        let mut rows: Vec<(&str, u64)> = object(&survey.statistics["total"][key])
            .map(|(name, value)| (name.as_str(), count(value)))
            .collect();
        rows.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
        list(out, title, rows.into_iter().take(20));
    }
    let mut sites: BTreeMap<&str, u64> = BTreeMap::new();
    for kept in survey.kept.values() {
        kept.sites.iter().for_each(|(site, count)| *sites.entry(site).or_insert(0) += count);
    }
    let mut sites: Vec<(&str, u64)> = sites.into_iter().collect();
    sites.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
    list(out, "Sites", sites.into_iter().take(20));
    *out += "</div>\n";
}

fn list<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, u64)>) {
    let _ = writeln!(out, "<div><h3>{title}</h3><table>");
    for (name, count) in rows {
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(name), number(count));
    }
    *out += "</table></div>\n";
}

fn duplicates(out: &mut String, survey: &Survey) {
    *out += "<h2 id=\"duplicates\">Duplicates</h2>\n";
    if survey.clusters.is_empty() {
        *out += "<p>No document repeats another one.</p>\n";
        return;
    }
    *out += "<p class=\"faint\">Groups of documents that say the same, by their size; of each group one was kept.</p>\n\
             <table style=\"width: auto\">\n<tr><th>documents in the group</th><th>groups</th></tr>\n";
    // Sizes from one power of two to the next share a row.
    let mut rows: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    for (size, groups) in &survey.clusters {
        let row = rows.entry(size.ilog2()).or_insert((*size, *size, 0));
        *row = (row.0.min(*size), row.1.max(*size), row.2 + groups);
    }
    for (low, high, groups) in rows.into_values() {
        let sizes = if low == high { number(low) } else { format!("{} – {}", number(low), number(high)) };
        let _ = writeln!(out, "<tr><td>{sizes}</td><td>{}</td></tr>", number(groups));
    }
    *out += "</table>\n";
}

fn texts(out: &mut String, survey: &Survey) {
    *out += "<h2 id=\"texts\">Texts</h2>\n<h3>Kept</h3>\n";
    for (language, kept) in &survey.kept {
        let _ = writeln!(
            out,
            "<details><summary>{}: {} documents</summary>",
            escaped(language),
            number(kept.documents)
        );
        charts(out, kept);
        kept.samples.iter().for_each(|sample| sample_block(out, sample));
        *out += "</details>\n";
    }
    *out += "<h3>Dropped</h3>\n";
    for (reason, dropped) in &survey.dropped {
        let _ = writeln!(
            out,
            "<details><summary>{}: {} documents</summary>",
            escaped(&plain(reason)),
            number(dropped.documents)
        );
        if dropped.samples.is_empty() {
            *out += "<p class=\"faint\">No text of these is kept.</p>\n";
        }
        dropped.samples.iter().for_each(|sample| sample_block(out, sample));
        *out += "</details>\n";
    }
}

fn charts(out: &mut String, kept: &Gathered) {
    *out += "<div class=\"flow\">\n";
    chart(out, "Length in characters", &kept.lengths);
    if kept.scores.total() > 0 {
        chart(out, "Score", &kept.scores);
    }
    *out += "<div><p class=\"faint\">Sites</p><table>";
    for (site, count) in &kept.sites {
        let _ = write!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(site), number(*count));
    }
    *out += "</table></div>\n</div>\n";
}

/// Bars with the lower bounds of their bins below them.
fn chart(out: &mut String, title: &str, histogram: &Histogram) {
    const BAR: usize = 26;
    const HEIGHT: f64 = 90.0;
    let width = BAR * histogram.counts.len();
    let highest = histogram.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let _ = write!(
        out,
        "<div><p class=\"faint\">{title}</p><svg width=\"{width}\" height=\"120\" role=\"img\" aria-label=\"{title}\">"
    );
    for (place, (count, bound)) in histogram.counts.iter().zip(&histogram.bounds).enumerate() {
        let height = HEIGHT * *count as f64 / highest;
        let (x, y) = (place * BAR, HEIGHT - height);
        let label = if *bound >= 1e6 {
            format!("{}M", bound / 1e6)
        } else if *bound >= 1e3 {
            format!("{}k", bound / 1e3)
        } else {
            format!("{bound}")
        };
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"{y:.1}\" width=\"{}\" height=\"{height:.1}\"><title>from {label}: {count}</title></rect>\
             <text x=\"{x}\" y=\"105\">{label}</text>",
            BAR - 3,
        );
    }
    *out += "</svg></div>\n";
}

fn sample_block(out: &mut String, sample: &Sample) {
    let mut about = vec![sample.id.clone()];
    if !sample.language.is_empty() {
        about.push(sample.language.clone());
    }
    if !sample.url.is_empty() {
        about.push(sample.url.clone());
    }
    about.extend(sample.evidence.iter().map(|(name, value)| format!("{name} {value}")));
    let _ = writeln!(
        out,
        "<div class=\"sample\" dir=\"auto\"><span class=\"faint\">{}</span>\n{}</div>",
        escaped(&about.join(" · ")),
        escaped(&sample.text)
    );
}

/// Text as it may stand in an element or an attribute. Control characters, and those that turn the direction of what
/// follows, become visible.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(character),
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => out.push('\u{FFFD}'),
            _ if character.is_control() => out.push('\u{FFFD}'),
            _ => out.push(character),
        }
    }
    out
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Training and held-out texts together.
fn part_sum(counts: &Value, key: &str) -> u64 {
    count(&counts["train"][key]) + count(&counts["heldout"][key])
}

/// `near_duplicate` as a person writes it.
fn plain(name: &str) -> String {
    name.replace('_', " ")
}

fn share_cell(part: u64, whole: u64) -> String {
    match whole {
        0 => "<td></td>".to_string(),
        _ => {
            let share = 100.0 * part as f64 / whole as f64;
            format!("<td class=\"share\" style=\"--share: {share:.0}%\">{share:.1}</td>")
        }
    }
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_string(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

/// With spaces between groups of three digits.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(digit);
    }
    out
}

fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        _ if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        _ if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        _ if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let text = "<script>a&b</script> \" ' \u{202E}evil\u{0007}\nline";
        assert_eq!(
            escaped(text),
            "&lt;script&gt;a&amp;b&lt;/script&gt; &quot; &#39; \u{FFFD}evil\u{FFFD}\nline"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1234567), "1\u{202F}234\u{202F}567");
        assert_eq!(size(1_500_000), "1.5 MB");
    }
}
