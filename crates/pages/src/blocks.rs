//! A page cut into blocks: runs of text that stand together on the screen, with their lengths and shares of links.

use crate::names;
use crate::tags::Tag;
use crate::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Paragraph,
    Heading(u8),
    /// The first block of a list's item.
    Item,
    /// A row of a table with data.
    Row,
    Preformatted,
}

pub struct Block {
    /// The innermost block element around it.
    pub owner: u32,
    /// The nodes that it consists of.
    pub from: u32,
    pub to: u32,
    pub kind: Kind,
    /// Letters, digits and signs, without white space.
    pub letters: u32,
    /// Those inside links, and inside links that lead away from the page.
    pub link_letters: u32,
    pub away_letters: u32,
    /// Ends of sentences: punctuation before white space or at the end.
    pub sentences: u32,
    pub ends_a_sentence: bool,
}

impl Block {
    pub fn link_share(&self) -> f32 {
        self.link_letters as f32 / self.letters.max(1) as f32
    }
}

pub struct Blocks {
    pub list: Vec<Block>,
    /// For each node whether it is the root of a table with data, as opposed to one that only places things.
    pub data_tables: Vec<bool>,
    /// Elements left out although they stand inside a block: footnote marks, hidden words.
    pub left_out: Vec<bool>,
}

/// What is open around the node being looked at.
struct Open {
    end: u32,
    owner_before: u32,
    is_block: bool,
    is_link: bool,
    leads_away: bool,
    is_data_table: bool,
}

struct Cutter<'a> {
    tree: &'a Tree,
    /// The flag of elements that are left out for being hidden, if they are.
    hidden: u16,
    blocks: Blocks,
    open: Vec<Open>,
    owner: u32,
    link_depth: u32,
    away_depth: u32,
    in_data_table: bool,
    /// The block being gathered; `letters == 0` while it is empty.
    current: Block,
    after_break: bool,
    last_item: u32,
}

impl Blocks {
    /// `with_hidden` reads what the page hides, too: some show their content only when a script has run.
    pub fn cut(tree: &Tree, with_hidden: bool) -> Blocks {
        let mut cutter = Cutter {
            tree,
            hidden: if with_hidden { 0 } else { names::HIDDEN },
            blocks: Blocks {
                list: Vec::new(),
                data_tables: data_tables(tree),
                left_out: vec![false; tree.nodes.len()],
            },
            open: Vec::new(),
            owner: 0,
            link_depth: 0,
            away_depth: 0,
            in_data_table: false,
            current: empty_block(),
            after_break: false,
            last_item: 0,
        };
        let mut index = 1;
        while index < tree.nodes.len() {
            index = cutter.step(index);
        }
        cutter.flush();
        cutter.blocks
    }
}

fn empty_block() -> Block {
    Block {
        owner: 0,
        from: 0,
        to: 0,
        kind: Kind::Paragraph,
        letters: 0,
        link_letters: 0,
        away_letters: 0,
        sentences: 0,
        ends_a_sentence: false,
    }
}

impl Cutter<'_> {
    /// Looks at one node and says which is next.
    fn step(&mut self, index: usize) -> usize {
        self.close_before(index as u32);
        let node = &self.tree.nodes[index];
        if node.tag == Tag::Text {
            self.text(index);
            return index + 1;
        }
        let is_block =
            node.tag.is_block() && (!self.in_data_table || matches!(node.tag, Tag::Row | Tag::Caption));
        if node.tag.is_dropped() || node.flags & self.hidden != 0 || (!is_block && self.is_left_out(index)) {
            if is_block {
                self.flush();
            }
            self.blocks.left_out[index] = true;
            return node.end as usize;
        }
        match node.tag {
            Tag::Break => {
                if self.after_break && !self.in_data_table {
                    self.flush();
                }
                self.after_break = true;
            }
            tag if is_block || tag == Tag::Link => {
                let is_data_table = self.blocks.data_tables[index];
                self.open.push(Open {
                    end: node.end,
                    owner_before: self.owner,
                    is_block,
                    is_link: tag == Tag::Link,
                    leads_away: node.flags & names::LEADS_AWAY != 0,
                    is_data_table,
                });
                if is_block {
                    self.flush();
                    self.owner = index as u32;
                } else {
                    self.link_depth += 1;
                    self.away_depth += u32::from(node.flags & names::LEADS_AWAY != 0);
                }
                self.in_data_table |= is_data_table;
            }
            _ => {}
        }
        index + 1
    }

    fn close_before(&mut self, index: u32) {
        while self.open.last().is_some_and(|open| open.end <= index) {
            let Some(open) = self.open.pop() else { return };
            if open.is_block {
                self.flush();
                self.owner = open.owner_before;
            }
            if open.is_link {
                self.link_depth -= 1;
                self.away_depth -= u32::from(open.leads_away);
            }
            if open.is_data_table {
                self.in_data_table = false;
            }
        }
    }

    fn text(&mut self, index: usize) {
        let text = self.tree.text_of(&self.tree.nodes[index]);
        let Count { letters, sentences, ends_a_sentence } = count(text);
        if letters == 0 {
            return;
        }
        let block = &mut self.current;
        if block.letters == 0 {
            block.from = index as u32;
            block.owner = self.owner;
        }
        block.to = index as u32 + 1;
        block.letters += letters;
        if self.link_depth > 0 {
            block.link_letters += letters;
        }
        if self.away_depth > 0 {
            block.away_letters += letters;
        }
        block.sentences += sentences;
        block.ends_a_sentence = ends_a_sentence;
        self.after_break = false;
    }

    fn flush(&mut self) {
        self.after_break = false;
        if self.current.letters == 0 {
            return;
        }
        let mut block = std::mem::replace(&mut self.current, empty_block());
        block.kind = self.kind_of(block.owner);
        self.blocks.list.push(block);
    }

    fn kind_of(&mut self, owner: u32) -> Kind {
        let mut node = owner as usize;
        // A heading, an item or a row wraps its text in few further elements.
        for _ in 0..4 {
            match self.tree.nodes[node].tag {
                Tag::Heading(rank) => return Kind::Heading(rank),
                Tag::Preformatted => return Kind::Preformatted,
                Tag::Row if self.in_data_table => return Kind::Row,
                Tag::Item if self.last_item != node as u32 => {
                    self.last_item = node as u32;
                    return Kind::Item;
                }
                Tag::Item | Tag::Cell | Tag::Table | Tag::Document | Tag::List => break,
                _ => node = self.tree.nodes[node].parent as usize,
            }
        }
        Kind::Paragraph
    }

    /// Elements inside a paragraph that are not part of what it says: marks of footnotes, links for editing.
    fn is_left_out(&self, index: usize) -> bool {
        let node = &self.tree.nodes[index];
        if node.tag == Tag::Superscript {
            let mut children = self.tree.children(index);
            return matches!((children.next(), children.next()), (Some(child), None)
                if self.tree.nodes[child].tag == Tag::Link && self.tree.nodes[child].flags & names::LEADS_AWAY == 0);
        }
        if node.tag == Tag::Link {
            return node.flags & names::LEADS_AWAY == 0 && self.is_mark(index);
        }
        // In code, `comment` is a colour.
        let is_code = self.tree.nodes[self.owner as usize].tag == Tag::Preformatted;
        node.flags & names::BOILERPLATE != 0 && !is_code
    }

    /// Whether an element holds one sign and nothing else, such as the § by which headings are linked to.
    fn is_mark(&self, index: usize) -> bool {
        let inside = &self.tree.nodes[index + 1..self.tree.nodes[index].end as usize];
        let [node] = inside else { return false };
        let mut letters = self.tree.text_of(node).trim().chars();
        matches!((letters.next(), letters.next()), (Some(sign), None) if !sign.is_alphanumeric())
    }
}

/// What a text node adds to its block.
#[derive(Default)]
struct Count {
    /// Characters other than white space.
    letters: u32,
    /// Ends of sentences.
    sentences: u32,
    ends_a_sentence: bool,
}

/// What a byte is to [`count`].
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Letter,
    /// Inside a character of several bytes.
    Continuation,
    Space,
    /// Ends a sentence.
    Mark,
    /// May stand between a mark and the white space behind it.
    Closing,
    /// Begins a character of several bytes that may be any of these.
    Lead,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Letter; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0..=b' ' => Class::Space,
            b'.' | b'!' | b'?' | b';' | b':' => Class::Mark,
            b'"' | b'\'' | b')' => Class::Closing,
            0x80..=0xbf => Class::Continuation,
            // U+0080–U+00BF, the Greek block with its question mark, general punctuation
            0xc2 | 0xcd | 0xe2 => Class::Lead,
            _ => Class::Letter,
        };
        byte += 1;
    }
    classes
};

/// One pass over the bytes: text nodes are most of a page.
fn count(text: &str) -> Count {
    let bytes = text.as_bytes();
    let mut count = Count::default();
    let mut after_mark = false;
    for (place, byte) in bytes.iter().enumerate() {
        let class = match CLASSES[*byte as usize] {
            Class::Lead => class_of_several(&bytes[place..]),
            class => class,
        };
        match class {
            Class::Continuation | Class::Lead => {}
            Class::Space => {
                count.sentences += u32::from(after_mark);
                count.ends_a_sentence |= after_mark;
                after_mark = false;
            }
            Class::Letter => {
                count.letters += 1;
                count.ends_a_sentence = false;
                after_mark = false;
            }
            Class::Mark => {
                count.letters += 1;
                after_mark = true;
            }
            Class::Closing => count.letters += 1,
        }
    }
    count.sentences += u32::from(after_mark);
    count.ends_a_sentence |= after_mark;
    count
}

fn class_of_several(bytes: &[u8]) -> Class {
    match bytes {
        [0xc2, 0xa0, ..] => Class::Space,
        [0xc2, 0xab | 0xbb, ..] => Class::Closing,
        // … and the Greek question mark
        [0xe2, 0x80, 0xa6, ..] | [0xcd, 0xbe, ..] => Class::Mark,
        [0xe2, 0x80, 0x98..=0x9f, ..] => Class::Closing,
        [0xe2, 0x80, 0x80..=0x8b | 0xaf, ..] => Class::Space,
        _ => Class::Letter,
    }
}

/// Characters other than white space.
fn count_letters(text: &str) -> u32 {
    count(text).letters
}

/// Tables with data have rows of several short cells, and no headings, lists or tables inside them.
fn data_tables(tree: &Tree) -> Vec<bool> {
    let mut found = vec![false; tree.nodes.len()];
    let mut index = 0;
    while index < tree.nodes.len() {
        let end = tree.nodes[index].end as usize;
        if tree.nodes[index].tag == Tag::Table && is_data_table(tree, index) {
            found[index] = true;
            index = end;
        } else {
            index += 1;
        }
    }
    found
}

/// Stops at the first table inside, so that nested tables are looked at once each.
fn is_data_table(tree: &Tree, table: usize) -> bool {
    const LONGEST_CELL: u32 = 400;
    let (mut rows, mut cells, mut letters_of_cell, mut paragraphs_of_cell) = (0, 0, 0, 0);
    for index in table + 1..tree.nodes[table].end as usize {
        let node = &tree.nodes[index];
        match node.tag {
            Tag::Table | Tag::Heading(_) | Tag::Form | Tag::Article | Tag::Section | Tag::Navigation => {
                return false;
            }
            Tag::Row => rows += 1,
            Tag::Cell => {
                cells += 1;
                letters_of_cell = 0;
                paragraphs_of_cell = 0;
            }
            Tag::Paragraph | Tag::Division => paragraphs_of_cell += 1,
            Tag::Text => letters_of_cell += count_letters(tree.text_of(node)),
            _ => {}
        }
        if letters_of_cell > LONGEST_CELL || paragraphs_of_cell > 3 {
            return false;
        }
    }
    rows >= 2 && cells >= rows + rows / 2
}
