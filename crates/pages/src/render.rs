//! Chosen blocks as plain text.

use crate::blocks::{Block, Blocks, Kind};
use crate::tags::Tag;
use crate::tree::Tree;

/// Paragraphs between blank lines; items of a list and rows of a table on lines of their own.
pub fn text(tree: &Tree, blocks: &Blocks, chosen: &[usize]) -> String {
    let mut text = String::new();
    let mut before: Option<&Block> = None;
    for index in chosen {
        let block = &blocks.list[*index];
        let start = text.len();
        if let Some(before) = before {
            let together =
                matches!((before.kind, block.kind), (Kind::Item, Kind::Item) | (Kind::Row, Kind::Row));
            text.push_str(if together { "\n" } else { "\n\n" });
        }
        let begin = text.len();
        if block.kind == Kind::Item {
            text.push_str("- ");
        }
        let empty = text.len();
        write_block(tree, blocks, block, &mut text);
        if text.len() == empty || text[empty..].chars().all(|letter| letter == '|' || letter.is_whitespace())
        {
            text.truncate(start);
            continue;
        }
        debug_assert!(begin <= text.len());
        before = Some(block);
    }
    text
}

pub fn block_text(tree: &Tree, blocks: &Blocks, block: usize) -> String {
    let mut text = String::new();
    write_block(tree, blocks, &blocks.list[block], &mut text);
    text
}

/// Text with runs of white space as one space; `<br>` as the end of a line, ` | ` between cells.
fn write_block(tree: &Tree, blocks: &Blocks, block: &Block, text: &mut String) {
    let start = text.len();
    let mut space = false;
    let mut index = block.from as usize;
    // Cells before the first with text are part of the row.
    if block.kind == Kind::Row {
        index = block.owner as usize + 1;
    }
    let mut cells = 0;
    let end = if block.kind == Kind::Row { tree.nodes[block.owner as usize].end } else { block.to } as usize;
    while index < end {
        let node = &tree.nodes[index];
        if blocks.left_out[index] {
            space |= node.tag.is_block();
            index = node.end as usize;
            continue;
        }
        match node.tag {
            Tag::Text if block.kind == Kind::Preformatted => text.push_str(tree.text_of(node)),
            Tag::Text => write_words(tree.text_of(node), start, &mut space, text),
            Tag::Break if block.kind != Kind::Row => {
                if text.len() > start {
                    text.push('\n');
                }
                space = false;
            }
            Tag::Cell if block.kind == Kind::Row => {
                if cells > 0 {
                    text.push_str(if text.len() > start { " | " } else { "| " });
                }
                cells += 1;
                space = false;
            }
            tag if tag.is_block() || tag == Tag::Break || tag == Tag::Image => space = true,
            _ => {}
        }
        index += 1;
    }
    while text.len() > start && text.ends_with(char::is_whitespace) {
        text.pop();
    }
}

/// Words are told apart by white space of any kind, but for the narrow space inside of numbers and before signs.
fn write_words(words: &str, start: usize, space: &mut bool, text: &mut String) {
    let is_plain = !words
        .bytes()
        .any(|byte| matches!(byte, 0xc2 | 0xe2 | 0xef | 0xe1 | 0xe3 | 0x00..0x09 | 0x0b | 0x0e..0x20 | 0x7f));
    if is_plain {
        // No signs but ASCII and letters: white space is ASCII, too.
        for (place, word) in words.split(|letter: char| letter.is_ascii_whitespace()).enumerate() {
            *space |= place > 0;
            write_word(word, start, space, text);
        }
        return;
    }
    let is_space = |letter: char| letter.is_whitespace() && letter != '\u{202f}';
    for (place, word) in words.split(is_space).enumerate() {
        *space |= place > 0;
        if word.contains(is_invisible) {
            let visible: String = word.chars().filter(|letter| !is_invisible(*letter)).collect();
            write_word(&visible, start, space, text);
        } else {
            write_word(word, start, space, text);
        }
    }
}

fn write_word(word: &str, start: usize, space: &mut bool, text: &mut String) {
    if !word.is_empty() {
        if *space && text.len() > start && !text.ends_with(['\n', ' ']) {
            text.push(' ');
        }
        text.push_str(word);
        *space = false;
    }
}

/// Signs that only guide the breaking of lines, and controls.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}') || letter.is_control()
}
