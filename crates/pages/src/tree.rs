//! A flat tree from a page: elements in the order of their opening tags, each with the end of what it contains.
//!
//! Whoever walks through it walks along a list, never down a recursion: a hostile page cannot overflow the stack.

use html5gum::Tokenizer;

use crate::builder::Builder;
use crate::hints::Hints;
use crate::tags::Tag;

/// Nodes are counted in 32 bits, and so are bytes of text; longer pages are cut here.
const MAX_BYTES: usize = 1 << 30;

pub struct Node {
    pub tag: Tag,
    /// Of [`crate::names`].
    pub flags: u16,
    /// Index of the parent.
    pub parent: u32,
    /// One past the last node inside: the next node that is not.
    pub end: u32,
    /// For text, its bytes in [`Tree::characters`]. For elements, `from` is a digest of name and class by which siblings
    /// of one kind are recognised, and `to` is where the text before them ends.
    pub from: u32,
    pub to: u32,
}

pub struct Tree {
    /// In the order of the page; the first is the document.
    pub nodes: Vec<Node>,
    pub characters: String,
    pub hints: Hints,
}

impl Tree {
    pub fn parse(html: &str) -> Tree {
        let mut cut = html.len().min(MAX_BYTES);
        while !html.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut tokenizer = Tokenizer::new_with_emitter(&html[..cut], Builder::new(cut));
        match tokenizer.next() {
            Some(Ok(tree)) => *tree,
            Some(Err(never)) => match never {},
            None => unreachable!("the end of a page gives the tree"),
        }
    }

    /// The indices of a node's children.
    pub fn children(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.nodes[node].end as usize;
        let mut next = node + 1;
        std::iter::from_fn(move || {
            let child = next;
            (child < end).then(|| {
                next = self.nodes[child].end as usize;
                child
            })
        })
    }

    pub fn text_of(&self, node: &Node) -> &str {
        if node.tag == Tag::Text { &self.characters[node.from as usize..node.to as usize] } else { "" }
    }
}
