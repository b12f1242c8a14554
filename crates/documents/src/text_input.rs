//! The records of files that consist of lines: JSON lines, and text as a whole or in paragraphs.

use std::io::{self, BufRead};
use std::sync::Arc;

use crate::fields::FieldMap;
use crate::inputs::Content;
use crate::json_record;
use crate::lines::{Line, LineReader, PlacedLine};
use crate::reader::{Place, Problem, RawContent, RawRecord, ReadOptions, TextUnit};

pub struct LineInput {
    name: Arc<str>,
    content: Content,
    options: ReadOptions,
    /// What the first record told, or the user.
    fields: Option<Arc<FieldMap>>,
    lines: LineReader<Box<dyn BufRead + Send>>,
}

impl LineInput {
    pub fn new(
        name: &str,
        content: Content,
        stream: Box<dyn BufRead + Send>,
        options: ReadOptions,
    ) -> LineInput {
        let lines = LineReader::new(stream, options.record_limit_bytes);
        LineInput { name: name.into(), content, fields: options.fields.clone(), options, lines }
    }

    /// Lines read so far, and bytes of the decompressed stream.
    pub fn position(&self) -> (u64, u64) {
        self.lines.position()
    }

    /// The next record; `number` is its own, from 1.
    pub fn next_record(&mut self, number: u64) -> io::Result<Option<RawRecord>> {
        let found = match (self.content, self.options.text_unit) {
            (Content::JsonLines, _) => self.next_full_line()?,
            (Content::Html, _) | (_, TextUnit::File) => self.lines.next_rest()?,
            (_, TextUnit::Paragraph) => self.next_paragraph()?,
        };
        let Some(PlacedLine { number: line_number, offset, line }) = found else { return Ok(None) };
        let content = match (line, self.content) {
            (Line::TooLong { length_bytes }, _) => {
                let limit_bytes = self.options.record_limit_bytes as u64;
                RawContent::Bad(Problem::TooLong { length_bytes, limit_bytes })
            }
            (Line::Bytes(bytes), Content::JsonLines) => {
                let fields = self.fields.get_or_insert_with(|| {
                    FieldMap::detect(json_record::keys(&bytes).iter().map(String::as_str))
                });
                RawContent::Json { fields: fields.clone(), bytes, keep_metadata: self.options.keep_metadata }
            }
            (Line::Bytes(bytes), Content::Html) => RawContent::Html { id: self.name.to_string(), bytes },
            (Line::Bytes(bytes), _) => RawContent::Text { id: self.text_id(number), bytes },
        };
        Ok(Some(RawRecord { place: Place { file: self.name.clone(), line: line_number, offset }, content }))
    }

    fn next_full_line(&mut self) -> io::Result<Option<PlacedLine>> {
        while let Some(placed) = self.lines.next_line()? {
            if !is_blank(&placed.line) {
                return Ok(Some(placed));
            }
        }
        Ok(None)
    }

    fn next_paragraph(&mut self) -> io::Result<Option<PlacedLine>> {
        let limit_bytes = self.options.record_limit_bytes;
        let Some(mut first) = self.next_full_line()? else { return Ok(None) };
        loop {
            let Some(next) = self.lines.next_line()? else { return Ok(Some(first)) };
            if is_blank(&next.line) {
                return Ok(Some(first));
            }
            first.line = joined(first.line, next.line, limit_bytes);
        }
    }

    fn text_id(&self, number: u64) -> String {
        match self.options.text_unit {
            TextUnit::File => self.name.to_string(),
            TextUnit::Paragraph => format!("{}#{number}", self.name),
        }
    }
}

fn is_blank(line: &Line) -> bool {
    matches!(line, Line::Bytes(bytes) if bytes.iter().all(u8::is_ascii_whitespace))
}

fn joined(first: Line, next: Line, limit_bytes: usize) -> Line {
    let length = |line: &Line| match line {
        Line::Bytes(bytes) => bytes.len() as u64,
        Line::TooLong { length_bytes } => *length_bytes,
    };
    let length_bytes = length(&first) + 1 + length(&next);
    match (first, next) {
        (Line::Bytes(mut bytes), Line::Bytes(more)) if length_bytes <= limit_bytes as u64 => {
            bytes.push(b'\n');
            bytes.extend_from_slice(&more);
            Line::Bytes(bytes)
        }
        _ => Line::TooLong { length_bytes },
    }
}
