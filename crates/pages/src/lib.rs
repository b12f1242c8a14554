//! Text and hints from HTML: what a reader came to a web page for, without what stands around it.
//!
//! [`extract`] takes the bytes of a page as a server sent them and returns the main content as plain text (paragraphs
//! between blank lines, list items behind `- `, table rows with ` | ` between cells), and what the page says about
//! itself: title, language, licence, date, address, and which uses it reserves.
//!
//! The way through: `encoding` turns bytes into text, `tree` builds a flat tree of at most 512 levels in linear
//! time whatever the input, `blocks` cuts it into paragraphs with their lengths and shares of links, `rules` and
//! `content` choose among them, `render` writes them out. The choice rests on structure (lengths, links, repetition,
//! tags, names of classes), never on the words of any language. The ideas: Kohlschütter, Fankhauser, Nejdl, “Boilerplate
//! Detection using Shallow Text Features” (WSDM 2010) for length and link density; Readability (Arc90, 2010) for names
//! of classes and the container with most text.

mod attributes;
mod blocks;
mod builder;
mod content;
mod encoding;
mod hints;
mod names;
mod render;
mod rules;
mod tags;
mod tree;

/// What a page holds and says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The main content; empty where the page has none.
    pub text: String,
    /// The page's own title, without the name of the site where that can be told.
    pub title: Option<String>,
    /// Languages that the page claims, the most reliable claim first and each once: `lang` of the root element,
    /// `Content-Language`, `og:locale` and the like. Primary subtags (BCP 47), lower case: `mt`, `el`, `nb`.
    pub languages: Vec<String>,
    /// An SPDX identifier where the page links to a Creative Commons licence, else what it names as its licence.
    pub license: Option<String>,
    /// Directives to robots, lower case: `noindex`, `noai`; those to one robot alone as `gptbot: noindex`.
    pub robots: Vec<String>,
    /// The value of `tdm-reservation` (TDMRep): `1` reserves text and data mining.
    pub tdm_reservation: Option<String>,
    /// The address of the `tdm-policy` (TDMRep).
    pub tdm_policy: Option<String>,
    /// The value of a meta element `content-usage` (AI preferences), such as `train-ai=n`.
    pub content_usage: Option<String>,
    /// The day of publication, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// The canonical address, absolute where the page's own address was given.
    pub canonical_url: Option<String>,
    /// The encoding by which the bytes were read, a name of the Encoding Standard.
    pub encoding: &'static str,
}

/// Reads one page: `content_type` as in the HTTP header of that name, `url` the address it was fetched from.
///
/// There is no wrong input: whatever the bytes are, the answer comes in time linear in their number, and a page without
/// content gives an empty text.
pub fn extract(bytes: &[u8], content_type: Option<&str>, url: Option<&str>) -> Page {
    let (html, encoding) = encoding::decode(bytes, content_type, url);
    let tree = tree::Tree::parse(&html);
    let mut blocks = blocks::Blocks::cut(&tree, false);
    let mut chosen = content::choose(&tree, &blocks);
    if chosen.blocks.is_empty() {
        blocks = blocks::Blocks::cut(&tree, true);
        chosen = content::choose(&tree, &blocks);
    }
    let mut page = tree.hints.to_page(url);
    if page.title.is_none() {
        page.title = chosen
            .title
            .map(|block| render::block_text(&tree, &blocks, block))
            .filter(|title| !title.is_empty());
    }
    page.text = render::text(&tree, &blocks, &chosen.blocks);
    page.encoding = encoding;
    page
}
