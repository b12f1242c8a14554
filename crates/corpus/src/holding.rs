//! All blocks of a phase together: documents by number, in the order of the inputs (and within a block by language).

use std::path::PathBuf;

use documents::Document;

use crate::block::{Block, Row};
use crate::error::Error;

/// Files that stay open between reads: far below the limits of any system.
const OPEN_FILES: usize = 400;

/// Documents of many blocks, by number.
pub struct Holding {
    pub blocks: Vec<Block>,
    /// The number of each block's first document, and past the last block's last.
    pub starts: Vec<u32>,
}

impl Holding {
    pub fn open(paths: Vec<PathBuf>) -> Result<Holding, Error> {
        let mut holding = Holding { blocks: Vec::new(), starts: vec![0] };
        holding.extend(paths)?;
        Ok(holding)
    }

    /// Adds blocks at the end.
    pub fn extend(&mut self, paths: Vec<PathBuf>) -> Result<(), Error> {
        for path in paths {
            let hold_open = self.blocks.len() < OPEN_FILES;
            self.push(Block::open(path, hold_open)?)?;
        }
        Ok(())
    }

    fn push(&mut self, block: Block) -> Result<(), Error> {
        let start = self.starts[self.starts.len() - 1];
        let end = start.checked_add(block.head.documents).ok_or(Error::TooManyDocuments)?;
        self.starts.push(end);
        self.blocks.push(block);
        Ok(())
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1] as usize
    }

    /// The block of a document, and its number there.
    pub fn place(&self, document: u32) -> (usize, u32) {
        let block = self.starts.partition_point(|&start| start <= document) - 1;
        (block, document - self.starts[block])
    }

    pub fn document(&self, document: u32) -> Result<Document, Error> {
        let line = self.line(document)?;
        let json = std::str::from_utf8(&line).map_err(|_| self.bad_block(document))?;
        Document::from_json(json).map_err(|_| self.bad_block(document))
    }

    fn bad_block(&self, document: u32) -> Error {
        Error::BadBlock { path: self.blocks[self.place(document).0].path.clone() }
    }

    /// The line of a document, with its end.
    pub fn line(&self, document: u32) -> Result<Vec<u8>, Error> {
        let (block, number) = self.place(document);
        let block = &self.blocks[block];
        let row = block.rows_between(number, number + 1)?[0];
        block.read("texts", row.line_start, row.line_bytes as usize)
    }

    /// The text of a document alone.
    pub fn text(&self, document: u32) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Text {
            text: String,
        }
        let line = self.line(document)?;
        let text: Text = serde_json::from_slice(&line).map_err(|_| self.bad_block(document))?;
        Ok(text.text)
    }

    /// The rows of some documents, given in ascending order.
    pub fn rows_of(&self, documents: &[u32]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::with_capacity(documents.len());
        let mut rest = documents;
        while let Some(&first) = rest.first() {
            let (block, _) = self.place(first);
            let (start, end) = (self.starts[block], self.starts[block + 1]);
            let here = rest.partition_point(|&document| document < end);
            let all = self.blocks[block].rows()?;
            rows.extend(rest[..here].iter().map(|&document| all[(document - start) as usize]));
            rest = &rest[here..];
        }
        Ok(rows)
    }
}
