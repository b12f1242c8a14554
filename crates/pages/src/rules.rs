//! What cannot be content: menus and notices by the names of elements and classes, forms and notices by the buttons in
//! them, lists of other pages by their links and their repetition. Rules that go by names give way where they would take
//! most of the page's text.

use crate::blocks::{Block, Kind};
use crate::content::{Choice, MOST_LINKS};
use crate::names;
use crate::tags::Tag;

impl Choice<'_> {
    /// Marks everything that one of the rules names.
    pub fn rule_out(&mut self) {
        self.rule_out_names();
        self.rule_out_controls();
        self.rule_out_link_lists();
        self.rule_out_teasers();
        self.rule_out_runs_of_teasers();
        self.rule_out_repeated_words();
    }

    fn rule_out_names(&mut self) {
        const MOST_OF_MINOR: u32 = 150;
        const MOST_OF_NOTICE: u32 = 1500;
        for index in 1..self.tree.nodes.len() {
            let node = &self.tree.nodes[index];
            // A heading's id is made of its words.
            if matches!(node.tag, Tag::Text | Tag::Link | Tag::Heading(_)) || self.holds_title(index) {
                continue;
            }
            let letters = self.sums[index].letters;
            let by_tag = matches!(node.tag, Tag::Navigation | Tag::Footer | Tag::Aside | Tag::Header);
            let by_name = node.flags & (names::BOILERPLATE | names::OVERLAY | names::NOTICE) != 0;
            // A row called `date` is data.
            let is_data = matches!(node.tag, Tag::Table | Tag::Row | Tag::Cell | Tag::Term | Tag::Definition);
            let minor = node.flags & names::MINOR != 0 && letters < MOST_OF_MINOR && !is_data;
            let notice = node.flags & names::NOTICE != 0 && letters < MOST_OF_NOTICE;
            if minor || notice || ((by_tag || by_name) && self.is_small(index)) {
                self.out[index] = true;
            }
        }
    }

    /// A notice, a form or a sign-up box is a little text beside something to press. What comes three times and more
    /// with something to press is something else: the contributions of readers, the questions of a guide.
    fn rule_out_controls(&mut self) {
        const MOST_LETTERS: u32 = 350;
        const LEVELS: usize = 3;
        const FEWEST_ALIKE: usize = 3;
        let mut boxes = Vec::new();
        for index in 1..self.tree.nodes.len() {
            let node = &self.tree.nodes[index];
            let is_control = node.tag == Tag::Control
                || (node.flags & names::CONTROL != 0 && self.sums[index].letters <= 30);
            if !is_control {
                continue;
            }
            let mut around = index;
            for _ in 0..LEVELS {
                let parent = self.tree.nodes[around].parent as usize;
                let fits = parent > 0
                    && self.sums[parent].letters <= MOST_LETTERS
                    && !self.holds_title(parent)
                    && !matches!(self.tree.nodes[parent].tag, Tag::Main | Tag::Article | Tag::Cell);
                if !fits {
                    break;
                }
                around = parent;
            }
            if self.title.is_some() || self.is_small(around) {
                boxes.push((self.tree.nodes[around].parent, self.tree.nodes[around].from, around));
            }
        }
        boxes.sort_unstable();
        boxes.dedup();
        for alike in boxes.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let letters: u32 = alike.iter().map(|(_, _, node)| self.sums[*node].letters).sum();
            if alike.len() < FEWEST_ALIKE || letters < 60 * alike.len() as u32 {
                alike.iter().for_each(|(_, _, node)| self.out[*node] = true);
            }
        }
    }

    fn rule_out_link_lists(&mut self) {
        for index in 1..self.tree.nodes.len() {
            let sums = &self.sums[index];
            let is_list = matches!(self.tree.nodes[index].tag, Tag::List | Tag::Table | Tag::DefinitionList);
            if is_list && sums.blocks > 0 && sums.link_letters as f32 > MOST_LINKS * sums.letters as f32 {
                self.out[index] = true;
            }
        }
    }

    /// Other pages are announced by siblings of one kind, each with a link for a title and a few words.
    fn rule_out_teasers(&mut self) {
        const FEWEST: usize = 3;
        const MOST_LETTERS: u32 = 350;
        let mut has_title = vec![false; self.tree.nodes.len()];
        for block in self.blocks.list.iter().filter(|block| is_title_of_teaser(block)) {
            // A title stands at most four levels below its teaser.
            let mut node = block.owner as usize;
            for _ in 0..4 {
                has_title[node] = true;
                node = self.tree.nodes[node].parent as usize;
            }
        }
        let mut members: Vec<(u32, usize)> = Vec::new();
        for parent in 0..self.tree.nodes.len() {
            members.clear();
            members.extend(self.tree.children(parent).filter_map(|child| {
                let node = &self.tree.nodes[child];
                (node.tag.is_block() || node.tag == Tag::Link).then_some((node.from, child))
            }));
            if members.len() < FEWEST {
                continue;
            }
            members.sort_unstable();
            for group in members.chunk_by(|one, other| one.0 == other.0) {
                let teasers = group.iter().filter(|(_, member)| {
                    let sums = &self.sums[*member];
                    has_title[*member]
                        && sums.letters <= MOST_LETTERS
                        && sums.away_letters * 6 >= sums.letters
                        && (sums.blocks >= 2 || sums.away_letters * 2 >= sums.letters)
                });
                if group.len() >= FEWEST && teasers.count() * 5 >= group.len() * 4 {
                    group.iter().for_each(|(_, member)| self.out[*member] = true);
                }
            }
        }
    }

    /// The same without regard to elements, which lost tags may have mixed up: again and again a link for a title, then
    /// a little text.
    fn rule_out_runs_of_teasers(&mut self) {
        const FEWEST: usize = 4;
        const MOST_LETTERS: u32 = 250;
        const MOST_BLOCKS: usize = 3;
        let list = &self.blocks.list;
        let is_title = |block: &Block| is_title_of_teaser(block) && block.kind != Kind::Row;
        let mut titles: Vec<usize> = Vec::new();
        let mut at = 0;
        while at < list.len() {
            if is_title(&list[at]) {
                titles.push(at);
                // The text below the title is short, and the next title follows it.
                let next = (at + 1..list.len().min(at + 2 + MOST_BLOCKS)).find(|next| is_title(&list[*next]));
                let is_short =
                    |next: usize| list[at + 1..next].iter().all(|block| block.letters <= MOST_LETTERS);
                match next {
                    Some(next)
                        if is_short(next) && self.title.is_none_or(|title| !(at..next).contains(&title)) =>
                    {
                        at = next;
                        continue;
                    }
                    _ => {}
                }
            }
            if titles.len() >= FEWEST {
                // The last title's text ends with the first block that is no part of it.
                let last = titles[titles.len() - 1];
                let own =
                    list[last + 1..].iter().take(1).filter(|block| block.letters <= MOST_LETTERS).count();
                self.block_out[titles[0]..last + 1 + own].fill(true);
            }
            titles.clear();
            at += 1;
        }
    }

    /// Labels that come again and again (“posts: 12”), and short texts that end in the same link each (“read more”).
    fn rule_out_repeated_words(&mut self) {
        const FEWEST: usize = 3;
        const MOST_OF_LABEL: u32 = 60;
        const MOST_OF_TEASER: u32 = 250;
        const FEWEST_LETTERS: u32 = 3;
        let mut repeated: Vec<(u64, usize)> = Vec::new();
        for (index, block) in self.blocks.list.iter().enumerate() {
            let is_linked_heading = matches!(block.kind, Kind::Heading(_)) && block.link_share() > 0.9;
            let is_candidate = block.kind == Kind::Paragraph || is_linked_heading;
            if !is_candidate || block.letters > MOST_OF_TEASER || self.title == Some(index) {
                continue;
            }
            let is_label = block.letters <= MOST_OF_LABEL && !block.ends_a_sentence;
            let is_link_at_end = block.link_letters > 0 && block.link_letters <= 40;
            if !is_label && !is_link_at_end {
                continue;
            }
            let (hash, letters) = self.digest_of_words(block, is_label);
            if letters >= FEWEST_LETTERS {
                repeated.push((hash ^ u64::from(is_label), index));
            }
        }
        repeated.sort_unstable();
        for alike in repeated.chunk_by(|one, other| one.0 == other.0).filter(|alike| alike.len() >= FEWEST) {
            alike.iter().for_each(|(_, index)| self.block_out[*index] = true);
        }
    }

    /// A digest of a block's text without digits, or of the link at its end alone, and how many bytes went into it.
    fn digest_of_words(&self, block: &Block, whole: bool) -> (u64, u32) {
        let (mut hash, mut bytes) = (0xcbf2_9ce4_8422_2325_u64, 0);
        for node in &self.tree.nodes[block.from as usize..block.to as usize] {
            let is_link_at_end =
                self.tree.nodes[node.parent as usize].tag == Tag::Link && node.end == block.to;
            if node.tag == Tag::Text && (whole || is_link_at_end) {
                let text = self.tree.text_of(node).bytes();
                for byte in text.filter(|byte| *byte > b' ' && !byte.is_ascii_digit()) {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                    bytes += 1;
                }
            }
        }
        (hash, bytes)
    }
}

/// Hardly more than a link to another page.
fn is_title_of_teaser(block: &Block) -> bool {
    block.letters >= 10 && block.away_letters * 5 >= block.letters * 4
}
