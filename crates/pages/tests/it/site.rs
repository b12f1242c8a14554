//! Web pages for the tests: the sample texts inside layouts of many kinds, with all that surrounds text on the web.
//!
//! A layout (`tests/layouts/*.html`) is a template; what is content in it stands between `⟦` and `⟧`, which the page
//! itself does not show. The expected text is what stands between these marks, without tags: so a layout says nothing
//! about how any extractor works. Menus, notices and labels come from `tests/furniture/<language>.toml`, the content
//! from `samples/tiny/documents`. All of it was written by a language model for this repository (CC0).

use std::path::{Path, PathBuf};

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::{Deserialize, Serialize};

/// All layouts; what the extractor was built with comes first.
pub const LAYOUTS: [&str; 16] = [
    "news", "forum", "blog", "office", "wiki", "shop", "divs", "tables", "endless", "short", "feature",
    "guide", "answers", "builder", "ticker", "homepage",
];

pub const LANGUAGES: [&str; 24] = [
    "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hr", "hu", "it", "lt", "lv", "mt",
    "nl", "pl", "pt", "ro", "sk", "sl", "sv",
];

/// What is done to a page before it is sent: nothing; all names of classes and meanings of elements taken away; closing
/// tags lost.
pub const VARIANTS: [&str; 3] = ["whole", "nameless", "broken"];

/// A page as a server would send it, and the text that a reader would copy out of it.
pub struct SyntheticPage {
    pub name: String,
    pub language: &'static str,
    pub layout: &'static str,
    pub variant: &'static str,
    pub content_type: String,
    pub encoding: &'static encoding_rs::Encoding,
    pub bytes: Vec<u8>,
    pub expected: String,
}

#[derive(Deserialize)]
struct SampleDocument {
    url: String,
    date: String,
    text: String,
}

#[derive(Clone, Serialize)]
struct Text {
    title: String,
    lead: String,
    teaser: String,
    paragraphs: Vec<String>,
    url: String,
    date: String,
}

/// `pages_each` pages of every layout in one language and some of the variants, the same at every call.
pub fn pages(language: &'static str, pages_each: usize, variants: &[&'static str]) -> Vec<SyntheticPage> {
    let furniture = read(&folder().join(format!("furniture/{language}.toml")));
    let furniture: toml::Table = toml::from_str(&furniture).unwrap();
    let texts = texts(language);
    let environment = environment();
    let seed = LANGUAGES.iter().position(|known| *known == language).unwrap();
    let mut pages = Vec::new();
    for (place, layout) in LAYOUTS.into_iter().enumerate() {
        for number in 0..pages_each {
            let mut random = Random((seed * 10_000 + place * 100 + number) as u64);
            let whole = page(&environment, &furniture, &texts, language, layout, number, &mut random);
            pages.extend(variants.iter().map(|variant| whole.varied(variant, &mut random)));
        }
    }
    pages
}

fn page(
    environment: &Environment,
    furniture: &toml::Table,
    texts: &[Text],
    language: &'static str,
    layout: &'static str,
    number: usize,
    random: &mut Random,
) -> SyntheticPage {
    let mut texts = texts.to_vec();
    random.shuffle(&mut texts);
    let (charset, place) = if layout == "tables" {
        let seed = LANGUAGES.iter().position(|known| *known == language).unwrap();
        (legacy_encoding(language, number), (number + seed) % 3)
    } else {
        ("utf-8", 0)
    };
    let list: Vec<&str> = texts[8..12]
        .iter()
        .map(|text| text.paragraphs[1].split_inclusive(". ").next().unwrap().trim())
        .collect();
    let numbers: Vec<u64> = (0..16).map(|_| 100 + random.below(900)).collect();
    let rendered = environment
        .get_template(&format!("{layout}.html"))
        .unwrap()
        .render(context! {
            f => value(furniture), lang => language, locale => locale(language), languages => value(LANGUAGES),
            site => site_name(&texts[19].url),
            main => value(&texts[0]), more => value(&texts[1]), third => value(&texts[2]), fourth => value(&texts[3]),
            posts => value(&texts[0..4]), other => value(&texts[12..20]), pool => value(&texts[4..20]),
            list => value(list), numbers, style => style(random), script => script(random),
            charset, charset_in_page => place == 0,
        })
        .unwrap();
    let (html, expected) = take_out_marks(&rendered);
    let encoding = encoding_rs::Encoding::for_label(charset.as_bytes()).unwrap();
    SyntheticPage {
        name: format!("{language}-{layout}-{number}"),
        language,
        layout,
        variant: "whole",
        content_type: match place {
            1 => format!("text/html; charset={charset}"),
            _ => "text/html".to_string(),
        },
        encoding,
        bytes: encoding.encode(&html).0.into_owned(),
        expected,
    }
}

fn value(anything: impl Serialize) -> Value {
    Value::from(Serde(anything))
}

impl SyntheticPage {
    fn varied(&self, variant: &'static str, random: &mut Random) -> SyntheticPage {
        let html = self.encoding.decode(&self.bytes).0;
        let html = match variant {
            "nameless" => each_tag(&html, without_meaning),
            "broken" => {
                each_tag(&html, |tag| if is_lost(tag, random) { String::new() } else { format!("<{tag}>") })
            }
            _ => html.into_owned(),
        };
        SyntheticPage {
            name: format!("{}-{variant}", self.name),
            variant,
            content_type: self.content_type.clone(),
            bytes: self.encoding.encode(&html).0.into_owned(),
            expected: self.expected.clone(),
            ..*self
        }
    }
}

/// The page with every tag outside of scripts and styles written anew.
fn each_tag(html: &str, mut write: impl FnMut(&str) -> String) -> String {
    let mut result = String::new();
    let mut raw = false;
    for (place, part) in html.split('<').enumerate() {
        let (tag, rest) = part.split_once('>').unwrap_or((part, ""));
        raw &= !tag.starts_with("/script") && !tag.starts_with("/style");
        match place {
            0 => result.push_str(part),
            _ if raw => result.extend(["<", part]),
            _ => result.extend([&write(tag), rest]),
        }
        raw |= place > 0 && (tag.starts_with("script") || tag.starts_with("style"));
    }
    result
}

/// A tag without class, id, role and the like; elements that say what they are for become `div`s.
fn without_meaning(tag: &str) -> String {
    let (slash, tag) = tag.strip_prefix('/').map_or(("", tag), |rest| ("/", rest));
    let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
    let name = match name {
        "main" | "article" | "section" | "header" | "footer" | "nav" | "aside" | "figcaption" | "figure"
        | "form" => "div",
        name if name.contains('-') => "div",
        name => name,
    };
    let mut kept = String::new();
    for key in [
        "href",
        "charset",
        "content",
        "http-equiv",
        "rel",
        "src",
        "type",
        "name",
        "property",
        "lang",
        "datetime",
    ] {
        if let Some(start) = attributes.to_ascii_lowercase().find(&format!("{key}=\"")) {
            let value = attributes[start + key.len() + 2..].split('"').next().unwrap();
            kept.push_str(&format!(" {key}=\"{value}\""));
        }
    }
    if kept.is_empty() && attributes.contains('=') && !attributes.contains('"') {
        kept = format!(" {attributes}");
    }
    format!("<{slash}{name}{kept}>")
}

/// One in twelve of the closing tags that authors forget.
fn is_lost(tag: &str, random: &mut Random) -> bool {
    matches!(tag, "/p" | "/li" | "/td" | "/tr" | "/div" | "/span" | "/b" | "/h2" | "/h3" | "/a" | "/ul")
        && random.below(12) == 0
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("linked", linked);
    for layout in LAYOUTS {
        let name = format!("{layout}.html");
        let source = read(&folder().join("layouts").join(&name));
        environment.add_template_owned(name, source).unwrap();
    }
    environment
}

/// Every ninth word a link, as in an encyclopaedia.
fn linked(text: String) -> String {
    let words = text.split(' ').enumerate().map(|(place, word)| match place % 9 {
        4 => format!("<a href=\"/wiki/{place}\" title=\"{place}\">{word}</a>"),
        _ => word.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn texts(language: &str) -> Vec<Text> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/tiny/documents");
    let lines = read(&samples.join(format!("{language}.jsonl")));
    let documents = lines.lines().map(|line| serde_json::from_str::<SampleDocument>(line).unwrap());
    documents
        .map(|document| {
            let paragraphs: Vec<String> = document.text.split("\n\n").map(str::to_string).collect();
            Text {
                title: first_words(paragraphs.last().unwrap(), 7),
                lead: first_words(&paragraphs[0], 25),
                teaser: first_words(&paragraphs[0], 18) + " …",
                paragraphs,
                url: document.url,
                date: document.date,
            }
        })
        .collect()
}

fn first_words(text: &str, number: usize) -> String {
    let words: Vec<&str> = text.split(' ').take(number).collect();
    words.join(" ").trim_matches(|letter: char| !letter.is_alphanumeric()).to_string()
}

fn site_name(url: &str) -> String {
    url.split('/').nth(2).unwrap_or_default().to_string()
}

/// The page without the marks, and the text between them.
fn take_out_marks(rendered: &str) -> (String, String) {
    let mut html = String::new();
    let mut expected = String::new();
    for (place, part) in rendered.split(['⟦', '⟧']).enumerate() {
        html.push_str(part);
        if place % 2 == 1 {
            expected.push_str(&without_tags(part));
            expected.push('\n');
        }
    }
    (html, expected)
}

fn without_tags(html: &str) -> String {
    let mut text = String::new();
    for (place, part) in html.split('<').enumerate() {
        if place == 0 {
            text.push_str(part);
            continue;
        }
        let (tag, rest) = part.split_once('>').unwrap_or((part, ""));
        let inline = ["a", "/a", "b", "/b", "span", "/span", "sup", "/sup"];
        if !inline.contains(&tag.split(' ').next().unwrap()) {
            text.push('\n');
        }
        text.push_str(rest);
    }
    for (entity, letter) in
        [("&#x27;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&#x2f;", "/"), ("&amp;", "&")]
    {
        text = text.replace(entity, letter);
    }
    text
}

fn locale(language: &str) -> String {
    let country = match language {
        "cs" => "CZ",
        "da" => "DK",
        "el" => "GR",
        "en" | "ga" => "IE",
        "et" => "EE",
        "sl" => "SI",
        "sv" => "SE",
        other => &other.to_uppercase(),
    };
    format!("{language}_{country}")
}

/// An encoding that pages in the language were written in before UTF-8: two for each, in turn.
fn legacy_encoding(language: &str, number: usize) -> &'static str {
    let both = match language {
        "bg" => ["windows-1251", "iso-8859-5"],
        "cs" | "hr" | "hu" | "pl" | "sk" | "sl" => ["windows-1250", "iso-8859-2"],
        "el" => ["windows-1253", "iso-8859-7"],
        "et" | "lt" | "lv" => ["windows-1257", "iso-8859-13"],
        "mt" => ["iso-8859-3", "utf-8"],
        "ro" => ["iso-8859-16", "windows-1250"],
        "ga" => ["windows-1252", "iso-8859-14"],
        _ => ["windows-1252", "iso-8859-15"],
    };
    both[number % 2]
}

/// Style sheets and scripts such as pages carry along; they make up much of a page's bytes.
fn style(random: &mut Random) -> String {
    let rule = |number: u64| {
        format!(".c{number}>div:hover{{margin:{}px auto;color:#{:06x}}}\n", number % 97, number)
    };
    (0..80).map(|_| rule(random.below(1 << 24))).collect()
}

fn script(random: &mut Random) -> String {
    let line = |number: u64| {
        format!("(function(a,b){{if(a<b&&b>{number}){{window.q=\"<p>{number}<\\/p>\";}}}})();\n")
    };
    (0..60).map(|_| line(random.below(1 << 24))).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
