//! Which blocks of a page are its content.
//!
//! First what cannot be content is ruled out, by [`crate::rules`]. Then the innermost element that holds nearly all of the remaining text is the
//! content's, and of its blocks those stay that are text, and those that belong to text.

use crate::blocks::{Block, Blocks, Kind};
use crate::names;
use crate::tags::Tag;
use crate::tree::Tree;

/// The title of the page and its content, as indices of blocks in the order of the page.
pub struct Chosen {
    pub title: Option<usize>,
    pub blocks: Vec<usize>,
}

/// A rule that takes away more than this share of the page's text is wrong.
const MOST_TO_RULE_OUT: f32 = 0.4;
/// An element that holds this share of the text of its parent is the better choice.
const SHARE_OF_PARENT: f32 = 0.8;
/// The weight of a paragraph of about 270 letters: too much to be left out for its place alone.
const WEIGHT_OF_A_PARAGRAPH: f32 = 170.0;
/// Blocks with more links than this are lists of links, however long.
pub const MOST_LINKS: f32 = 0.6;

/// What is inside an element and not ruled out.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    pub letters: u32,
    pub link_letters: u32,
    pub away_letters: u32,
    pub blocks: u32,
    /// How much text like that of articles is inside: see [`weight`].
    pub weight: f32,
}

/// A choice being made; [`crate::rules`] fills `out` and `block_out`.
pub struct Choice<'a> {
    pub tree: &'a Tree,
    pub blocks: &'a Blocks,
    /// By node.
    pub sums: Vec<Sums>,
    /// By node: not content, with everything inside.
    pub out: Vec<bool>,
    /// By block: not content, whatever is around it.
    pub block_out: Vec<bool>,
    pub title: Option<usize>,
}

pub fn choose(tree: &Tree, blocks: &Blocks) -> Chosen {
    let mut choice = Choice {
        tree,
        blocks,
        sums: Vec::new(),
        out: vec![false; tree.nodes.len()],
        block_out: vec![false; blocks.list.len()],
        title: None,
    };
    choice.title = choice.find_title();
    choice.sums = choice.add_up();
    choice.rule_out();
    choice.spread();
    choice.sums = choice.add_up();
    let root = choice.root();
    let mut chosen = choice.blocks_of(root);
    if let Some(title) = choice.title
        && chosen.first().is_some_and(|first| title < *first)
    {
        chosen.insert(0, title);
    }
    Chosen { title: choice.title, blocks: chosen }
}

/// How much a block speaks for its surroundings: long text counts more than as much text in short pieces, links do not
/// count, text without the end of a sentence little.
fn weight(block: &Block) -> f32 {
    if block.link_share() > 0.5 || matches!(block.kind, Kind::Heading(_)) {
        return 0.0;
    }
    let own = (block.letters - block.link_letters) as f32;
    let weight = own * own / (own + 150.0);
    if block.sentences > 0 || block.kind == Kind::Preformatted { weight } else { weight * 0.3 }
}

impl Choice<'_> {
    fn add_up(&self) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); self.tree.nodes.len()];
        for (index, block) in self.blocks.list.iter().enumerate() {
            if self.is_ruled_out(index) {
                continue;
            }
            let sum = &mut sums[block.owner as usize];
            sum.letters += block.letters;
            sum.link_letters += block.link_letters;
            sum.away_letters += block.away_letters;
            sum.blocks += 1;
            sum.weight += weight(block);
        }
        for index in (1..sums.len()).rev() {
            let own = sums[index];
            let parent = &mut sums[self.tree.nodes[index].parent as usize];
            parent.letters += own.letters;
            parent.link_letters += own.link_letters;
            parent.away_letters += own.away_letters;
            parent.blocks += own.blocks;
            parent.weight += own.weight;
        }
        sums
    }

    /// What is inside something ruled out is ruled out, too.
    fn spread(&mut self) {
        for index in 1..self.out.len() {
            self.out[index] |= self.out[self.tree.nodes[index].parent as usize];
        }
    }

    fn is_ruled_out(&self, block: usize) -> bool {
        self.block_out[block] || self.out[self.blocks.list[block].owner as usize]
    }

    pub fn is_small(&self, node: usize) -> bool {
        self.sums[node].weight <= MOST_TO_RULE_OUT * self.sums[0].weight
    }

    pub fn holds_title(&self, node: usize) -> bool {
        let Some(title) = self.title else { return false };
        let block = &self.blocks.list[title];
        (node as u32) < block.from && block.from < self.tree.nodes[node].end
    }

    /// The block that repeats the document's title, a heading if possible; else the first heading of the first rank.
    fn find_title(&self) -> Option<usize> {
        let wanted = self.tree.hints.titles();
        let longest = wanted.iter().map(|title| title.chars().count() as u32).max().unwrap_or(0);
        let mut best: Option<(u32, usize)> = None;
        for (index, block) in self.blocks.list.iter().enumerate() {
            let rank = match block.kind {
                Kind::Heading(rank) => u32::from(rank),
                _ => 8,
            };
            // Signs are no part of the comparison: allow for some.
            if block.letters > 300 || (rank == 8 && block.letters > longest + longest / 4 + 2) {
                continue;
            }
            let text = comparable(&crate::render::block_text(self.tree, self.blocks, index));
            // Most of the title, or all of it and not much more; and no link in a menu.
            let is_like = |title: &str| {
                (title.contains(&text) && text.len() * 5 >= title.len() * 2)
                    || (rank < 8 && text.contains(title) && title.len() * 5 >= text.len() * 2)
            };
            let matches = text.len() >= 4
                && (rank < 8 || block.link_share() < 0.5)
                && wanted.iter().any(|title| is_like(title));
            let score = match (matches, rank) {
                (true, 8) => 12,
                (true, rank) => rank,
                (false, 1) => 10,
                _ => continue,
            };
            if best.is_none_or(|(known, _)| score < known) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// The innermost element that holds nearly all of what is left.
    fn root(&self) -> usize {
        let mut root = 0;
        // What the author marked, if it holds a good part of the text.
        let marked = |mark: fn(&crate::tree::Node) -> bool, share: f32, within: usize| {
            (within + 1..self.tree.nodes[within].end as usize)
                .filter(|index| mark(&self.tree.nodes[*index]))
                .max_by(|one, other| self.sums[*one].weight.total_cmp(&self.sums[*other].weight))
                .filter(|index| self.sums[*index].weight > share * self.sums[within].weight)
        };
        if let Some(main) = marked(|node| node.tag == Tag::Main || node.flags & names::MAIN != 0, 0.3, root) {
            root = main;
        }
        if let Some(article) = marked(|node| node.tag == Tag::Article, 0.5, root) {
            root = article;
        }
        if let Some(body) = marked(|node| node.flags & names::ARTICLE_BODY != 0, 0.5, root) {
            root = body;
        }
        while let Some(child) = self.child_with_the_text(root) {
            root = child;
        }
        root
    }

    /// The child that holds nearly all text of an element, unless another one has text of its own: a paragraph of some
    /// length, or anything in an element of the same kind.
    fn child_with_the_text(&self, parent: usize) -> Option<usize> {
        let children = || self.tree.children(parent).filter(|child| self.tree.nodes[*child].tag.is_block());
        let weight = |child: &usize| self.sums[*child].weight;
        let best = children().max_by(|one, other| weight(one).total_cmp(&weight(other)))?;
        let node = &self.tree.nodes[best];
        // What swallowed the content for want of a closing tag has more of it beside itself.
        let is_boilerplate = node.flags & (names::BOILERPLATE | names::MINOR) != 0;
        let is_enough =
            weight(&best) > SHARE_OF_PARENT * self.sums[parent].weight && self.sums[best].blocks > 1;
        let is_alone = children().filter(|child| *child != best).all(|child| {
            weight(&child) < WEIGHT_OF_A_PARAGRAPH
                && (weight(&child) == 0.0 || self.tree.nodes[child].from != node.from)
        });
        (is_enough && is_alone && !is_boilerplate).then_some(best)
    }

    fn blocks_of(&self, root: usize) -> Vec<usize> {
        let (start, end) = (root as u32, self.tree.nodes[root].end);
        let mut chosen = Vec::new();
        for (index, block) in self.blocks.list.iter().enumerate() {
            let inside = (start..end).contains(&block.owner) && (block.from >= start && block.from < end);
            if inside
                && !self.out[block.owner as usize]
                && !self.block_out[index]
                && (self.is_text(block) || self.title == Some(index))
            {
                chosen.push(index);
            }
        }
        self.without_bare_headings(self.without_tail(self.below_the_title(chosen)))
    }

    /// What stands above the title belongs to the site, unless it is the larger part.
    fn below_the_title(&self, mut chosen: Vec<usize>) -> Vec<usize> {
        let above = self.title.map_or(0, |title| chosen.partition_point(|index| *index < title));
        let weigh = |part: &[usize]| part.iter().map(|index| weight(&self.blocks.list[*index])).sum::<f32>();
        if above < chosen.len() && weigh(&chosen[..above]) < weigh(&chosen[above..]) {
            chosen.drain(..above);
        }
        chosen
    }

    fn is_text(&self, block: &Block) -> bool {
        match block.kind {
            // A link to its own place is how a heading is linked to.
            Kind::Heading(_) => block.away_letters * 10 < block.letters * 9,
            Kind::Row | Kind::Preformatted => true,
            _ if block.link_share() > MOST_LINKS => false,
            Kind::Item => true,
            Kind::Paragraph => {
                let tag = self.tree.nodes[block.owner as usize].tag;
                let is_paragraph =
                    matches!(tag, Tag::Paragraph | Tag::Definition | Tag::Term | Tag::Quote | Tag::Caption);
                is_paragraph || block.letters >= 40 || block.ends_a_sentence
            }
        }
    }

    /// A little text at the end, beyond what was ruled out and somewhere else in the tree, belongs to the site; so does
    /// a line with a copyright sign.
    fn without_tail(&self, mut chosen: Vec<usize>) -> Vec<usize> {
        const MOST_OF_ALL: f32 = 0.2;
        let list = &self.blocks.list;
        let place = |index: usize| self.tree.nodes[list[index].owner as usize].parent;
        let all: f32 = chosen.iter().map(|index| weight(&list[*index])).sum();
        let mut tail = 0.0;
        let mut end = chosen.len();
        for at in (1..chosen.len()).rev() {
            tail += weight(&list[chosen[at]]);
            if tail > MOST_OF_ALL * all || chosen.len() - at > 8 {
                break;
            }
            let is_apart = (chosen[at - 1] + 1..chosen[at]).any(|between| self.is_ruled_out(between))
                && chosen[at..end].iter().all(|late| {
                    chosen[..at].iter().rev().take(50).all(|early| place(*early) != place(*late))
                });
            if is_apart || self.has_copyright_sign(chosen[at]) {
                end = at;
            }
        }
        chosen.truncate(end);
        chosen
    }

    fn has_copyright_sign(&self, index: usize) -> bool {
        let block = &self.blocks.list[index];
        block.letters < 400
            && self.tree.nodes[block.from as usize..block.to as usize]
                .iter()
                .any(|node| self.tree.text_of(node).contains('©'))
    }

    /// Headings without text below them are titles of what was left out.
    fn without_bare_headings(&self, chosen: Vec<usize>) -> Vec<usize> {
        let mut kept: Vec<usize> = Vec::new();
        // Backwards: the lowest rank of heading that has no text yet.
        let mut text_below = false;
        for index in chosen.into_iter().rev() {
            match self.blocks.list[index].kind {
                Kind::Heading(_) if self.title == Some(index) => kept.push(index),
                Kind::Heading(rank) => {
                    let above_lower = kept.last().is_some_and(
                        |last| matches!(self.blocks.list[*last].kind, Kind::Heading(lower) if lower > rank),
                    );
                    if text_below || above_lower {
                        kept.push(index);
                    }
                    text_below = false;
                }
                _ => {
                    kept.push(index);
                    text_below = true;
                }
            }
        }
        kept.reverse();
        kept
    }
}

/// Letters and digits alone, lower case.
pub fn comparable(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
