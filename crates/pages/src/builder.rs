//! From tokens to a tree in linear time.
//!
//! The tokenizer follows the HTML standard letter by letter; the tree does not, on purpose. The standard's construction
//! takes time quadratic in the depth, and makes quadratic trees out of tags closed in the wrong order, which a hostile
//! page of a megabyte turns into minutes (servo/html5ever issue 788; whatwg/html issues 2872 and 3732). Here every tag
//! costs a bounded amount of work, elements deeper than [`MAX_DEPTH`] stand beside each other instead of inside each
//! other (as in browsers), and of the standard's repairs those remain that decide where a paragraph, an item, a cell
//! or a link ends.

use html5gum::{Emitter, Error, State, naive_next_state};

use crate::attributes::{Attributes, digest};
use crate::hints::{Hints, LinkPlace};
use crate::names;
use crate::tags::{Tag, is_void};
use crate::tree::{Node, Tree};

/// Blink and Gecko stop at 512 levels, too.
const MAX_DEPTH: usize = 512;
/// A heading or link that was never closed and holds more is taken for text.
const MOST_BYTES_OF_UNCLOSED: usize = 80;
/// A page of more elements and pieces of text is cut here: no page for readers has as many, and memory is bounded.
const MAX_NODES: usize = 1 << 22;
/// How much of a page's JSON-LD is kept.
const MAX_JSON_BYTES: usize = 1 << 18;

/// What happens with characters until the next tag.
#[derive(Clone, Copy, PartialEq)]
enum Characters {
    Text,
    /// Of the document's title, which goes into the hints.
    Title,
    /// Of a JSON-LD script, which goes into the hints.
    Json,
    Dropped,
}

/// The tree so far, and where in it the tokenizer is.
pub struct Builder {
    nodes: Vec<Node>,
    characters: Vec<u8>,
    hints: Hints,
    finished: Option<Box<Tree>>,
    ended: bool,

    /// The open elements, the document first: index, digest of the name.
    open: Vec<(u32, u32)>,
    /// Opening tags beyond the greatest depth whose closing tags are still to come.
    too_deep: usize,
    open_paragraphs: usize,
    open_links: usize,
    /// Open elements whose content is dropped.
    open_dropped: usize,
    mode: Characters,
    /// Whether the text so far belongs to the text node at the end.
    text_from: usize,

    is_end_tag: bool,
    tag_name: Vec<u8>,
    last_start_tag: Vec<u8>,
    attribute_name: Vec<u8>,
    attribute_value: Vec<u8>,
    attributes: Attributes,
}

impl Builder {
    /// For a page of so many bytes.
    pub fn new(bytes: usize) -> Builder {
        let document = Node { tag: Tag::Document, flags: 0, parent: 0, end: 0, from: 0, to: 0 };
        let mut nodes = Vec::with_capacity((bytes / 24).min(1 << 20) + 1);
        nodes.push(document);
        Builder {
            nodes,
            characters: Vec::with_capacity((bytes / 2).min(1 << 24)),
            hints: Hints::default(),
            finished: None,
            ended: false,
            open: vec![(0, 0)],
            too_deep: 0,
            open_paragraphs: 0,
            open_links: 0,
            open_dropped: 0,
            mode: Characters::Text,
            text_from: 0,
            is_end_tag: false,
            tag_name: Vec::new(),
            last_start_tag: Vec::new(),
            attribute_name: Vec::new(),
            attribute_value: Vec::new(),
            attributes: Attributes::default(),
        }
    }

    fn top(&self) -> usize {
        self.open[self.open.len() - 1].0 as usize
    }

    fn tag_at(&self, level: usize) -> Tag {
        self.nodes[self.open[level].0 as usize].tag
    }

    /// Characters since the last tag become a node.
    fn flush_text(&mut self) {
        if self.text_from < self.characters.len() {
            let node = Node {
                tag: Tag::Text,
                flags: 0,
                parent: self.top() as u32,
                end: self.nodes.len() as u32 + 1,
                from: self.text_from as u32,
                to: self.characters.len() as u32,
            };
            self.nodes.push(node);
            self.text_from = self.characters.len();
        }
    }

    /// Closes the innermost element. One whose closing tag is missing may have swallowed what followed: a heading or a
    /// link with much text in it is none.
    fn pop(&mut self, is_closed_by_name: bool) {
        if self.open.len() > 1 {
            let index = self.open.pop().unwrap_or_default().0 as usize;
            let bytes = self.characters.len() - self.nodes[index].to as usize;
            self.nodes[index].end = self.nodes.len() as u32;
            let tag = self.nodes[index].tag;
            if !is_closed_by_name && bytes > MOST_BYTES_OF_UNCLOSED {
                match tag {
                    Tag::Link => self.nodes[index].tag = Tag::Inline,
                    Tag::Heading(_) => self.nodes[index].tag = Tag::Division,
                    _ => {}
                }
            }
            match tag {
                Tag::Paragraph => self.open_paragraphs -= 1,
                Tag::Link => self.open_links -= 1,
                tag if tag.is_dropped() => self.open_dropped -= 1,
                _ => {}
            }
        }
    }

    /// Closes everything down to and including `level`, which alone may have been named.
    fn pop_to(&mut self, level: usize, is_named: bool) {
        while self.open.len() > level && self.open.len() > 1 {
            self.pop(is_named && self.open.len() == level + 1);
        }
    }

    /// The innermost open element for which `is` holds, unless one for which `stops` holds is further in.
    fn find(&self, is: impl Fn(Tag) -> bool, stops: impl Fn(Tag) -> bool) -> Option<usize> {
        for level in (1..self.open.len()).rev() {
            let tag = self.tag_at(level);
            if is(tag) {
                return Some(level);
            }
            if stops(tag) {
                return None;
            }
        }
        None
    }

    /// The innermost open element of the name just read, unless one for which `stops` holds is further in.
    fn find_named(&self, stops: impl Fn(Tag) -> bool) -> Option<usize> {
        let name = digest(&self.tag_name);
        for level in (1..self.open.len()).rev() {
            if self.open[level].1 == name {
                return Some(level);
            }
            if stops(self.tag_at(level)) {
                return None;
            }
        }
        None
    }

    fn start_tag(&mut self) {
        self.flush_text();
        let mut tag = Tag::of(&self.tag_name);
        if tag == Tag::Link && self.attributes.href.is_empty() && self.attributes.is_named {
            // A place to link to, not a link. Without a name it is something that a script reacts to.
            tag = Tag::Inline;
        }
        match tag {
            Tag::Html | Tag::Head | Tag::Body => return self.hints.language_of_root(&self.attributes),
            Tag::Meta => return self.hints.meta(&self.attributes),
            Tag::LinkRelation => return self.hints.link(&self.attributes),
            Tag::Link => {
                let place = self.place_of_link();
                self.hints.link_on_page(&self.attributes, place);
            }
            Tag::Time => self.hints.time(&self.attributes),
            _ => {}
        }
        self.close_implied(tag);
        let is_json = self.attributes.kind.eq_ignore_ascii_case("application/ld+json");
        let mode = match tag {
            Tag::Title if self.open_dropped == 0 && self.hints.title.is_empty() => Characters::Title,
            Tag::Script if is_json => Characters::Json,
            _ => Characters::Text,
        };
        self.push(tag);
        self.mode =
            if mode == Characters::Text && self.open_dropped > 0 { Characters::Dropped } else { mode };
    }

    /// Where on the page the next link stands, as far as licences are concerned.
    fn place_of_link(&self) -> LinkPlace {
        if !self.attributes.says_license() && !self.attributes.href.contains("creativecommons.org/") {
            return LinkPlace::Elsewhere;
        }
        for (index, _) in self.open.iter().rev() {
            let node = &self.nodes[*index as usize];
            if matches!(node.tag, Tag::Figure | Tag::FigureCaption) {
                return LinkPlace::Figure;
            }
            if node.tag == Tag::Footer || node.flags & names::FOOTER != 0 {
                return LinkPlace::Footer;
            }
        }
        LinkPlace::Elsewhere
    }

    /// Ends what the opening of `tag` ends without a closing tag.
    fn close_implied(&mut self, tag: Tag) {
        if tag.closes_paragraph()
            && self.open_paragraphs > 0
            && let Some(level) = self.find(|open| open == Tag::Paragraph, Tag::is_boundary)
        {
            self.pop_to(level, false);
        }
        let level = match tag {
            Tag::Item => self.find(|open| open == Tag::Item, |open| open == Tag::List || open.is_boundary()),
            Tag::Term | Tag::Definition => self.find(
                |open| matches!(open, Tag::Term | Tag::Definition),
                |open| open == Tag::DefinitionList || open.is_boundary(),
            ),
            Tag::Cell => self.find(
                |open| matches!(open, Tag::Cell | Tag::Caption),
                |open| matches!(open, Tag::Row | Tag::RowGroup | Tag::Table),
            ),
            Tag::Row => {
                self.find(|open| matches!(open, Tag::Row), |open| matches!(open, Tag::RowGroup | Tag::Table))
            }
            Tag::RowGroup => self.find(|open| open == Tag::RowGroup, |open| open == Tag::Table),
            Tag::Heading(_) => {
                let innermost = self.open.len() - 1;
                matches!(self.tag_at(innermost), Tag::Heading(_)).then_some(innermost)
            }
            // A link inside a link cannot be meant: the first was not closed.
            Tag::Link if self.open_links > 0 => {
                self.find(|open| open == Tag::Link, Tag::is_block).or_else(|| {
                    for level in 1..self.open.len() {
                        let index = self.open[level].0 as usize;
                        if self.nodes[index].tag == Tag::Link {
                            self.nodes[index].tag = Tag::Inline;
                            self.open_links -= 1;
                        }
                    }
                    None
                })
            }
            _ => None,
        };
        if let Some(level) = level {
            self.pop_to(level, false);
        }
    }

    fn push(&mut self, tag: Tag) {
        let index = self.nodes.len() as u32;
        let kind = (tag_number(tag) ^ self.attributes.class).wrapping_mul(0x9e37_79b1);
        let void = is_void(&self.tag_name);
        self.nodes.push(Node {
            tag,
            flags: self.attributes.flags,
            parent: self.top() as u32,
            end: index + 1,
            from: kind,
            to: self.characters.len() as u32,
        });
        if void {
            return;
        }
        if self.open.len() >= MAX_DEPTH {
            self.too_deep += 1;
            return;
        }
        self.open.push((index, digest(&self.tag_name)));
        match tag {
            Tag::Paragraph => self.open_paragraphs += 1,
            Tag::Link => self.open_links += 1,
            tag if tag.is_dropped() => self.open_dropped += 1,
            _ => {}
        }
    }

    fn end_tag(&mut self) {
        self.flush_text();
        let tag = Tag::of(&self.tag_name);
        if self.too_deep > 0 && !is_void(&self.tag_name) {
            self.too_deep -= 1;
        } else {
            self.close(tag);
        }
        self.mode = if self.open_dropped > 0 { Characters::Dropped } else { Characters::Text };
    }

    fn close(&mut self, tag: Tag) {
        let level = match tag {
            Tag::Html | Tag::Head | Tag::Body => return,
            Tag::Break => {
                self.attributes.clear();
                return self.push(Tag::Break);
            }
            Tag::Table => self.find(|open| open == Tag::Table, |_| false),
            Tag::RowGroup => self.find(|open| open == tag, |open| open == Tag::Table),
            Tag::Row => self.find(|open| open == tag, |open| matches!(open, Tag::RowGroup | Tag::Table)),
            Tag::Cell | Tag::Caption => self.find(|open| open == tag, |open| open == Tag::Table),
            Tag::Item => self.find(|open| open == tag, |open| open == Tag::List || open.is_boundary()),
            Tag::Heading(_) => self.find(|open| matches!(open, Tag::Heading(_)), Tag::is_boundary),
            // What opened further out than the block around stays open until that block ends.
            Tag::Link => {
                let level = self.find_named(Tag::is_block);
                if level.is_none() {
                    self.close_link_across_blocks();
                }
                level
            }
            _ if tag.is_dropped() => self.find_named(|_| false),
            _ if !tag.is_block() => self.find_named(Tag::is_block),
            _ => self.find_named(Tag::is_boundary),
        };
        match level {
            Some(level) => self.pop_to(level, true),
            // An empty paragraph by the standard; what matters is that a paragraph ends here.
            None if tag == Tag::Paragraph => {
                self.attributes.clear();
                self.push(Tag::Paragraph);
                self.pop(true);
            }
            None => {}
        }
    }

    /// `<a><div>…</div></a>` is closed in order; `<a><div>…</a>` closes the block with the link.
    fn close_link_across_blocks(&mut self) {
        if self.open_links > 0
            && let Some(level) = self.find(|open| open == Tag::Link, Tag::is_boundary)
        {
            self.pop_to(level, true);
        }
    }

    fn end_attribute(&mut self) {
        if !self.attribute_name.is_empty() && !self.is_end_tag {
            let value = std::str::from_utf8(&self.attribute_value).unwrap_or_default();
            self.attributes.keep(&self.attribute_name, value);
        }
        self.attribute_name.clear();
        self.attribute_value.clear();
    }

    fn finish(&mut self) -> Tree {
        self.flush_text();
        self.pop_to(1, false);
        let count = self.nodes.len() as u32;
        self.nodes[0].end = count;
        // Cannot fail with what the tokenizer documents; if it did, the places of the texts must stay as they are.
        let characters = String::from_utf8(std::mem::take(&mut self.characters)).unwrap_or_else(|error| {
            let ascii = |byte: u8| if byte.is_ascii() { char::from(byte) } else { '?' };
            error.into_bytes().into_iter().map(ascii).collect()
        });
        Tree { nodes: std::mem::take(&mut self.nodes), characters, hints: std::mem::take(&mut self.hints) }
    }
}

fn tag_number(tag: Tag) -> u32 {
    match tag {
        Tag::Heading(rank) => 1000 + u32::from(rank),
        Tag::Division => 1,
        Tag::Section => 2,
        Tag::Article => 3,
        Tag::Item => 4,
        Tag::Paragraph => 5,
        Tag::Link => 6,
        Tag::Custom => 7,
        Tag::Row => 8,
        Tag::Cell => 9,
        Tag::List => 10,
        _ => 11,
    }
}

impl Emitter for Builder {
    type Token = Box<Tree>;

    fn set_last_start_tag(&mut self, last_start_tag: Option<&[u8]>) {
        self.last_start_tag.clear();
        self.last_start_tag.extend(last_start_tag.unwrap_or_default());
    }

    fn emit_eof(&mut self) {
        if !self.ended {
            self.ended = true;
            self.finished = Some(Box::new(self.finish()));
        }
    }

    fn emit_error(&mut self, _: Error) {}

    fn should_emit_errors(&mut self) -> bool {
        false
    }

    fn pop_token(&mut self) -> Option<Box<Tree>> {
        self.finished.take()
    }

    fn emit_string(&mut self, characters: &[u8]) {
        match self.mode {
            Characters::Text => self.characters.extend(characters),
            Characters::Title => self.hints.title.extend(characters),
            Characters::Json if self.hints.json.len() < MAX_JSON_BYTES => self.hints.json.extend(characters),
            Characters::Json | Characters::Dropped => {}
        }
    }

    fn init_start_tag(&mut self) {
        self.tag_name.clear();
        self.is_end_tag = false;
        self.attributes.clear();
    }

    fn init_end_tag(&mut self) {
        self.tag_name.clear();
        self.is_end_tag = true;
        self.attributes.clear();
    }

    fn emit_current_tag(&mut self) -> Option<State> {
        self.end_attribute();
        if self.nodes.len() >= MAX_NODES {
            self.mode = Characters::Dropped;
            return None;
        }
        if self.is_end_tag {
            self.last_start_tag.clear();
            self.end_tag();
            return None;
        }
        self.last_start_tag.clear();
        self.last_start_tag.extend(&self.tag_name);
        self.start_tag();
        naive_next_state(&self.last_start_tag)
    }

    fn push_tag_name(&mut self, name: &[u8]) {
        self.tag_name.extend(name);
    }

    fn init_attribute(&mut self) {
        self.end_attribute();
    }

    fn push_attribute_name(&mut self, name: &[u8]) {
        self.attribute_name.extend(name);
    }

    fn push_attribute_value(&mut self, value: &[u8]) {
        self.attribute_value.extend(value);
    }

    fn current_is_appropriate_end_tag_token(&mut self) -> bool {
        self.is_end_tag && !self.last_start_tag.is_empty() && self.last_start_tag == self.tag_name
    }

    fn init_comment(&mut self) {}
    fn push_comment(&mut self, _: &[u8]) {}
    fn emit_current_comment(&mut self) {}
    fn init_doctype(&mut self) {}
    fn push_doctype_name(&mut self, _: &[u8]) {}
    fn emit_current_doctype(&mut self) {}
    fn set_self_closing(&mut self) {}
    fn set_force_quirks(&mut self) {}
    fn set_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn set_doctype_system_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_system_identifier(&mut self, _: &[u8]) {}
}
