//! The first comparison: what a general compressor needs (LZMA, preset 9, in process).

use std::io::Write;

use liblzma::stream::{LzmaOptions, Stream};
use liblzma::write::XzEncoder;

use crate::error::Error;

const PRESET: u32 = 9;

/// Smallest dictionary that the format knows.
const SMALLEST_DICTIONARY_BYTES: usize = 4_096;

/// Bytes of the compressed text.
pub(crate) fn compressed_bytes(parts: &[&[u8]]) -> Result<u64, Error> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut options = LzmaOptions::new_preset(PRESET).map_err(|error| Error::Lzma(error.into()))?;
    // The preset's dictionary is 64 MiB and its tables ten times that. A dictionary that holds the whole text finds the
    // same matches, in memory that fits the text.
    let largest = 64 << 20;
    options.dict_size(length.next_power_of_two().clamp(SMALLEST_DICTIONARY_BYTES, largest) as u32);
    let stream = Stream::new_lzma_encoder(&options).map_err(|error| Error::Lzma(error.into()))?;
    let mut encoder = XzEncoder::new_stream(Counter(0), stream);
    for part in parts {
        encoder.write_all(part).map_err(Error::Lzma)?;
    }
    Ok(encoder.finish().map_err(Error::Lzma)?.0)
}

/// Counts what is written and keeps nothing.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_seen_before_costs_next_to_nothing() {
        let text = "Il-qattus rieqed ħdejn it-tieqa waqt li barra nieżla x-xita u r-riħ qawwi.".as_bytes();
        let once = compressed_bytes(&[text]).unwrap();
        let twice = compressed_bytes(&[text, text]).unwrap();
        assert!(once > 50 && twice - once < 10, "{once} {twice}");
    }
}
