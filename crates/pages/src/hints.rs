//! What a page says about itself: in its head, in links, and in JSON-LD.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Page;
use crate::attributes::Attributes;

/// Robots whose meta elements are kept beside those to all: those that gather text for language models, and the
/// general ones of the companies that do both.
const AGENTS: [&str; 24] = [
    "ai2bot",
    "amazonbot",
    "anthropic-ai",
    "applebot-extended",
    "bingbot",
    "bytespider",
    "ccbot",
    "claude-web",
    "claudebot",
    "cohere-ai",
    "cohere-training-data-crawler",
    "diffbot",
    "facebookbot",
    "google-extended",
    "googlebot",
    "gptbot",
    "imagesiftbot",
    "meta-externalagent",
    "mistralai-user",
    "omgili",
    "openaibot",
    "perplexitybot",
    "timpibot",
    "webzio-extended",
];

/// Where a link stands.
#[derive(Clone, Copy, PartialEq)]
pub enum LinkPlace {
    Figure,
    Footer,
    Elsewhere,
}

/// Collected while the page is read.
#[derive(Default)]
pub struct Hints {
    pub title: Vec<u8>,
    pub json: Vec<u8>,
    title_elsewhere: Option<String>,
    site_name: Option<String>,
    /// With their rank: `lang` of the root, `Content-Language`, `og:locale`, others.
    languages: Vec<(u8, String)>,
    license: Option<(u8, String)>,
    robots: Vec<String>,
    tdm_reservation: Option<String>,
    tdm_policy: Option<String>,
    content_usage: Option<String>,
    /// The best so far, with its rank.
    date: Option<(u8, String)>,
    canonical: Option<String>,
    address_elsewhere: Option<String>,
}

impl Hints {
    pub fn language_of_root(&mut self, attributes: &Attributes) {
        self.language(0, &attributes.lang);
    }

    pub fn meta(&mut self, attributes: &Attributes) {
        let content = attributes.content.trim();
        if content.is_empty() {
            return;
        }
        if attributes.http_equiv.eq_ignore_ascii_case("content-language") {
            content.split(',').for_each(|language| self.language(1, language));
        }
        let name = if attributes.name.is_empty() { &attributes.property } else { &attributes.name };
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            "og:title" | "twitter:title" | "dc.title" | "dcterms.title" => {
                keep(&mut self.title_elsewhere, content)
            }
            "og:site_name" | "application-name" => keep(&mut self.site_name, content),
            "og:locale" => self.language(2, content),
            "language" | "dc.language" | "dcterms.language" | "content-language" => self.language(3, content),
            "robots" => directives(content).for_each(|directive| self.robot(directive)),
            "tdm-reservation" => keep(&mut self.tdm_reservation, content),
            "tdm-policy" => keep(&mut self.tdm_policy, content),
            "content-usage" => keep(&mut self.content_usage, content),
            "article:published_time" | "og:article:published_time" => self.date(0, content),
            "datepublished"
            | "dc.date.issued"
            | "dcterms.issued"
            | "dcterms.created"
            | "dc.date.created"
            | "pubdate"
            | "publishdate"
            | "citation_publication_date"
            | "parsely-pub-date"
            | "sailthru.date" => self.date(2, content),
            "date" | "dc.date" | "dcterms.date" => self.date(3, content),
            "dc.rights" | "dcterms.rights" | "dc.rights.license" | "dcterms.license" | "license"
            | "rights" => {
                self.license(1, content);
            }
            "copyright" if is_creative_commons(content) => self.license(2, content),
            "og:url" => keep(&mut self.address_elsewhere, content),
            agent if AGENTS.contains(&agent) => {
                directives(content).for_each(|directive| self.robot(format!("{agent}: {directive}")));
            }
            _ => {}
        }
    }

    /// A `link` element.
    pub fn link(&mut self, attributes: &Attributes) {
        let address = attributes.href.trim();
        for relation in attributes.rel.split_ascii_whitespace().filter(|_| !address.is_empty()) {
            if relation.eq_ignore_ascii_case("license") {
                self.license(0, address);
            } else if relation.eq_ignore_ascii_case("canonical") {
                keep(&mut self.canonical, address);
            }
        }
    }

    /// A link that readers see. The licence of a picture is not the page's: what stands in a figure does not count, and
    /// a Creative Commons address only where the page says so (`rel=license`) or in its foot.
    pub fn link_on_page(&mut self, attributes: &Attributes, place: LinkPlace) {
        let address = attributes.href.trim();
        let says_so = attributes.says_license();
        match place {
            LinkPlace::Figure => {}
            _ if says_so && !address.is_empty() => self.license(0, address),
            LinkPlace::Footer if is_creative_commons(address) => self.license(3, address),
            _ => {}
        }
    }

    pub fn time(&mut self, attributes: &Attributes) {
        self.date(4, &attributes.datetime);
    }

    fn language(&mut self, rank: u8, tag: &str) {
        let primary: String =
            tag.trim().split(['-', '_', ';']).next().unwrap_or_default().to_ascii_lowercase();
        if matches!(primary.len(), 2 | 3)
            && primary.bytes().all(|byte| byte.is_ascii_lowercase())
            && primary != "und"
        {
            self.languages.push((rank, primary));
        }
    }

    /// Each directive once, and no more than anyone would write.
    fn robot(&mut self, directive: String) {
        const MOST: usize = 100;
        if self.robots.len() < MOST && !self.robots.contains(&directive) {
            self.robots.push(directive);
        }
    }

    fn license(&mut self, rank: u8, named: &str) {
        if self.license.as_ref().is_none_or(|(known, _)| rank < *known) {
            self.license = Some((rank, named.to_string()));
        }
    }

    fn date(&mut self, rank: u8, written: &str) {
        if let Some(day) = day_of(written)
            && self.date.as_ref().is_none_or(|(known, _)| rank < *known)
        {
            self.date = Some((rank, day));
        }
    }

    pub fn to_page(&self, url: Option<&str>) -> Page {
        let mut hints = Page::default();
        let mut languages = self.languages.clone();
        languages.sort_by_key(|(rank, _)| *rank);
        let json = String::from_utf8_lossy(&self.json);
        languages
            .extend(json_value(&json, "inLanguage").and_then(primary_subtag).map(|language| (9, language)));
        let mut seen = BTreeSet::new();
        hints.languages = languages
            .into_iter()
            .map(|(_, language)| language)
            .filter(|language| seen.insert(language.clone()))
            .collect();
        hints.title = self.own_title();
        let license =
            self.license.as_ref().map(|(_, named)| named.clone()).or_else(|| license_of_json(&self.json));
        hints.license = license.map(|named| spdx_of_address(&named).unwrap_or(named));
        hints.robots = self.robots.clone();
        hints.tdm_reservation = self.tdm_reservation.clone();
        hints.tdm_policy = self.tdm_policy.clone();
        hints.content_usage = self.content_usage.clone();
        let published = json_value(&json, "datePublished").and_then(day_of).map(|day| (1, day));
        hints.date = self.date.iter().chain(&published).min().map(|(_, day)| day.clone());
        let address = self.canonical.as_ref().or(self.address_elsewhere.as_ref());
        hints.canonical_url = address.and_then(|address| absolute(address, url));
        hints
    }

    /// The titles that the page gives itself, as [`crate::content::comparable`] writes them.
    pub fn titles(&self) -> Vec<String> {
        let title = String::from_utf8_lossy(&self.title);
        let titles = [Some(title.as_ref()), self.title_elsewhere.as_deref()];
        titles
            .into_iter()
            .flatten()
            .map(crate::content::comparable)
            .filter(|title| !title.is_empty())
            .collect()
    }

    /// The title of the document without the site's name; `og:title` is the author's own shortening.
    fn own_title(&self) -> Option<String> {
        let title = String::from_utf8_lossy(&self.title);
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(own) = &self.title_elsewhere
            && (title.is_empty() || title.contains(own.as_str()))
        {
            return Some(own.clone());
        }
        let without_site = self.site_name.as_ref().and_then(|site| {
            let rest = title.strip_suffix(site.as_str()).or_else(|| title.strip_prefix(site.as_str()))?;
            let rest = rest.trim_matches(|letter: char| !letter.is_alphanumeric());
            (!rest.is_empty()).then(|| rest.to_string())
        });
        without_site.or((!title.is_empty()).then_some(title))
    }
}

fn keep(place: &mut Option<String>, value: &str) {
    if place.is_none() {
        *place = Some(value.to_string());
    }
}

fn directives(content: &str) -> impl Iterator<Item = String> + '_ {
    content
        .split([',', ';'])
        .map(|directive| directive.trim().to_lowercase())
        .filter(|directive| !directive.is_empty())
}

fn primary_subtag(tag: &str) -> Option<String> {
    let primary = tag.trim().split(['-', '_', ';']).next()?.to_ascii_lowercase();
    let is_one = matches!(primary.len(), 2 | 3) && primary.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_one && primary != "und" && primary != "mul").then_some(primary)
}

/// The day at the start of an ISO 8601 date, where it is one.
fn day_of(written: &str) -> Option<String> {
    let day = written.trim().get(..10)?;
    let bytes = day.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    let well_formed = digits(0..4) && bytes[4] == b'-' && digits(5..7) && bytes[7] == b'-' && digits(8..10);
    let possible = well_formed
        && ("1900".."2200").contains(&&day[..4])
        && ("01".."13").contains(&&day[5..7])
        && ("01".."32").contains(&&day[8..]);
    possible.then(|| day.to_string())
}

fn is_creative_commons(text: &str) -> bool {
    text.contains("creativecommons.org/licenses/") || text.contains("creativecommons.org/publicdomain/")
}

/// The SPDX identifier of a Creative Commons address, wherever it stands in the text.
fn spdx_of_address(text: &str) -> Option<String> {
    let path = &text[text.find("creativecommons.org/")? + "creativecommons.org/".len()..];
    let mut parts = path.split(|letter: char| letter == '/' || letter.is_whitespace());
    let (kind, name, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_version = version.len() == 3 && version.as_bytes()[1] == b'.';
    match (kind, name) {
        ("licenses", name) if is_version && name.starts_with("by") => {
            Some(format!("CC-{}-{version}", name.to_uppercase()))
        }
        ("publicdomain", "zero") if is_version => Some(format!("CC0-{version}")),
        ("publicdomain", "mark") if is_version => Some(format!("CC-PDM-{version}")),
        _ => None,
    }
}

/// The licence of the page in its JSON-LD: of the things it describes itself as, not of pictures or films inside them.
fn license_of_json(json: &[u8]) -> Option<String> {
    const NOT_THE_PAGE: [&str; 6] =
        ["ImageObject", "VideoObject", "AudioObject", "MediaObject", "Organization", "Person"];
    let scripts = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
    for script in scripts.map_while(Result::ok) {
        let graph = script.get("@graph").unwrap_or(&script);
        let things = graph.as_array().map_or(std::slice::from_ref(graph), Vec::as_slice);
        for thing in things {
            let license = thing
                .get("license")
                .map(|license| license.get("@id").or(license.get("url")).unwrap_or(license));
            let kind = thing.get("@type").and_then(Value::as_str).unwrap_or_default();
            if let Some(license) = license.and_then(Value::as_str)
                && !NOT_THE_PAGE.contains(&kind)
            {
                return Some(license.to_string());
            }
        }
    }
    None
}

/// The first string under a key of JSON that need not be well-formed.
fn json_value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let rest = &json[json.find(&quoted)? + quoted.len()..];
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    Some(&rest[..rest.find('"')?])
}

/// An address as seen from the page's own.
fn absolute(address: &str, page: Option<&str>) -> Option<String> {
    if address.contains("://") {
        return Some(address.to_string());
    }
    let (scheme, rest) = page?.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    if let Some(rest) = address.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if address.starts_with('/') {
        return Some(format!("{scheme}://{host}{address}"));
    }
    let path = rest[host.len()..].split(['?', '#']).next()?;
    let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    Some(format!("{scheme}://{host}{folder}{address}"))
}

#[cfg(test)]
mod tests {
    use crate::{Page, extract};

    fn hints(head: &str) -> Page {
        let html = format!("<!DOCTYPE html><html><head>{head}</head><body><p>Tekst.</p></body></html>");
        extract(html.as_bytes(), None, Some("https://www.a.example/one/two?three#four"))
    }

    #[test]
    fn languages_come_by_reliability() {
        let page = hints(
            "<meta property=og:locale content=nb_NO><meta name=language content=de>\
             <meta http-equiv=content-language content='fr-BE, nl'></head><html lang=MT-mt>",
        );
        assert_eq!(page.languages, ["mt", "fr", "nl", "nb", "de"]);
        assert_eq!(
            hints("<meta name=language content=Deutsch><html lang=und>").languages,
            Vec::<String>::new()
        );
    }

    #[test]
    fn licences_are_spdx_where_creative_commons_is_linked() {
        let check = |head: &str, expected: Option<&str>| {
            assert_eq!(hints(head).license.as_deref(), expected, "{head}");
        };
        check(
            "<link rel=license href=https://creativecommons.org/licenses/by-sa/4.0/deed.el>",
            Some("CC-BY-SA-4.0"),
        );
        check("<link rel='author license' href=/licence.html>", Some("/licence.html"));
        check(
            "<meta name=DC.rights content='http://creativecommons.org/publicdomain/zero/1.0/'>",
            Some("CC0-1.0"),
        );
        check(
            "<meta name=dcterms.rights content='Alle Rechte vorbehalten'>",
            Some("Alle Rechte vorbehalten"),
        );
        check(
            "</head><footer><a href=//creativecommons.org/licenses/by-nc-nd/3.0/>CC</a></footer>",
            Some("CC-BY-NC-ND-3.0"),
        );
        check(
            "<script type=application/ld+json>{\"license\" : \"https://creativecommons.org/licenses/by/4.0/\"}</script>",
            Some("CC-BY-4.0"),
        );
        // What is under a licence here is a picture.
        check(
            "<figure><a rel=license href=https://creativecommons.org/licenses/by/2.0/>CC</a></figure>",
            None,
        );
        check("<p>Foto: <a href=https://creativecommons.org/licenses/by/2.0/>CC BY</a></p>", None);
        check(
            "<script type=application/ld+json>{\"@type\":\"Article\",\"image\":{\"license\":\"x\"}}</script>\
             <script type=application/ld+json>[{\"@type\":\"ImageObject\",\"license\":\"y\"}]</script>",
            None,
        );
        check(
            "<div id=footer><a href=https://creativecommons.org/licenses/by/2.0/>CC</a></div>",
            Some("CC-BY-2.0"),
        );
        check("<a href=https://creativecommons.org/about>CC</a>", None);
        check("<meta name=copyright content='2026 A'>", None);
    }

    #[test]
    fn reservations_are_kept_as_written() {
        let page = hints(
            "<meta name=ROBOTS content='noindex, NoAI'><meta name=robots content='noindex,noimageai'>\
             <meta name=GPTBot content=noindex><meta name=someone content=noindex>\
             <meta name=tdm-reservation content=1><meta name=tdm-policy content=https://a.example/tdm.json>\
             <meta name=content-usage content='train-ai=n'>",
        );
        assert_eq!(page.robots, ["noindex", "noai", "noimageai", "gptbot: noindex"]);
        assert_eq!(page.tdm_reservation.as_deref(), Some("1"));
        assert_eq!(page.tdm_policy.as_deref(), Some("https://a.example/tdm.json"));
        assert_eq!(page.content_usage.as_deref(), Some("train-ai=n"));
        assert_eq!(hints("").robots, Vec::<String>::new());
    }

    #[test]
    fn the_day_of_publication_is_the_best_of_several() {
        let check =
            |head: &str, expected: Option<&str>| assert_eq!(hints(head).date.as_deref(), expected, "{head}");
        check(
            "<time datetime=2020-01-02>x</time><meta property=article:published_time content=2026-03-04T05:06:07Z>",
            Some("2026-03-04"),
        );
        check(
            "<script type=application/ld+json>[{\"datePublished\":\"2025-12-31\"}]</script><time datetime=2020-01-02>",
            Some("2025-12-31"),
        );
        check("<meta name=dcterms.date content=2024-02-30>", Some("2024-02-30"));
        check("<meta name=date content='31. 12. 2024'><time datetime=12:30>", None);
        check("<meta name=date content=ΑΒΓΔΕ-ΑΒ>", None);
    }

    #[test]
    fn titles_lose_the_name_of_the_site() {
        let check =
            |head: &str, expected: Option<&str>| assert_eq!(hints(head).title.as_deref(), expected, "{head}");
        check("<title> Il-mitħna\n terġa' </title>", Some("Il-mitħna terġa'"));
        check(
            "<title>Il-mitħna | L-Aħbar</title><meta property=og:site_name content=\"L-Aħbar\">",
            Some("Il-mitħna"),
        );
        check("<title>Mitħna – Aħbar</title><meta property=og:title content=Mitħna>", Some("Mitħna"));
        check("<title>A &amp; B</title><svg><title>drawing</title></svg>", Some("A & B"));
        check("<h1>Heading</h1>", Some("Heading"));
        check("", None);
    }

    #[test]
    fn the_canonical_address_is_absolute() {
        let check = |href: &str, expected: &str| {
            let page = hints(&format!("<link rel=canonical href='{href}'>"));
            assert_eq!(page.canonical_url.as_deref(), Some(expected), "{href}");
        };
        check("https://b.example/", "https://b.example/");
        check("//b.example/x", "https://b.example/x");
        check("/x?y", "https://www.a.example/x?y");
        check("x", "https://www.a.example/one/x");
        assert_eq!(
            hints("<meta property=og:url content=/x>").canonical_url.as_deref(),
            Some("https://www.a.example/x")
        );
        assert_eq!(extract(b"<link rel=canonical href=x>", None, None).canonical_url, None);
        assert_eq!(extract(b"<link rel=canonical href=x>", None, Some("a.example")).canonical_url, None);
    }
}
