//! Reading numbers, texts and values from a file whose counts and lengths may lie: each is compared with what is left of
//! the file before memory is taken for it.

use crate::reader::Fault;
use crate::value::{ARRAY_CODE, Array, Value};
use std::fs::File;
use std::io::{BufReader, Read};

/// Arrays in arrays, deeper than any writer makes them.
const DEEPEST_ARRAY: usize = 4;
/// All metadata of a file. The largest vocabularies take about 40 MB with their `tokenizer.json`; in memory, short texts
/// take up to seven times their size in the file.
const MOST_METADATA_BYTES: u64 = 128 << 20;

/// The head of a file, read from its beginning.
pub(crate) struct Input {
    reader: BufReader<File>,
    position: u64,
    length: u64,
}

impl Input {
    pub fn new(file: File, length: u64) -> Input {
        Input { reader: BufReader::with_capacity(1 << 16, file), position: 0, length }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that may still be read: to the end of the file, or to the limit of metadata.
    pub fn left(&self) -> u64 {
        (self.length - self.position).min(MOST_METADATA_BYTES.saturating_sub(self.position))
    }

    /// The next bytes; `what` is for the message.
    pub fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    /// A text of at most `longest` bytes.
    pub fn text(&mut self, longest: u64, what: &str) -> Result<String, Fault> {
        let length = self.u64(what)?;
        if length > longest || length > self.left() {
            return Err(Fault::Malformed(format!(
                "{what}: a text of {length} bytes at byte {}, where at most {} can stand",
                self.position,
                longest.min(self.left())
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| Fault::Malformed(format!("{what}: a text that is not UTF-8")))
    }

    /// The type and value of a key.
    pub fn value(&mut self, key: &str) -> Result<Value, Fault> {
        Ok(match self.u32(key)? {
            0 => Value::U8(u8::from_le_bytes(self.take(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.take(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.take(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.take(key)?)),
            4 => Value::U32(self.u32(key)?),
            5 => Value::I32(i32::from_le_bytes(self.take(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.take(key)?)),
            7 => Value::Bool(self.boolean(key)?),
            8 => Value::String(self.text(u64::MAX, key)?),
            ARRAY_CODE => Value::Array(self.array(key, 1)?),
            10 => Value::U64(self.u64(key)?),
            11 => Value::I64(i64::from_le_bytes(self.take(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.take(key)?)),
            code => return Err(Fault::Malformed(format!("key {key} has the unknown type {code}"))),
        })
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<Array, Fault> {
        let code = self.u32(key)?;
        let count = self.u64(key)?;
        let smallest = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            ARRAY_CODE if depth < DEEPEST_ARRAY => 12,
            ARRAY_CODE => {
                return Err(Fault::Malformed(format!("key {key}: arrays deeper than {DEEPEST_ARRAY}")));
            }
            code => return Err(Fault::Malformed(format!("key {key}: an array of the unknown type {code}"))),
        };
        if count > self.left() / smallest {
            return Err(Fault::Malformed(format!(
                "key {key}: an array of {count} values at byte {}, where only {} bytes are left",
                self.position,
                self.left()
            )));
        }
        Ok(match code {
            0 => Array::U8(self.numbers(count, key, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(count, key, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(count, key, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(count, key, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(count, key, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(count, key, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(count, key, f32::from_le_bytes)?),
            7 => Array::Bool((0..count).map(|_| self.boolean(key)).collect::<Result<_, _>>()?),
            8 => Array::String((0..count).map(|_| self.text(u64::MAX, key)).collect::<Result<_, _>>()?),
            10 => Array::U64(self.numbers(count, key, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(count, key, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(count, key, f64::from_le_bytes)?),
            _ => Array::Nested((0..count).map(|_| self.array(key, depth + 1)).collect::<Result<_, _>>()?),
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        key: &str,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Fault> {
        (0..count).map(|_| Ok(number(self.take(key)?))).collect()
    }

    fn boolean(&mut self, key: &str) -> Result<bool, Fault> {
        match self.take::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(Fault::Malformed(format!("key {key}: {byte} is neither false (0) nor true (1)"))),
        }
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), Fault> {
        if bytes.len() as u64 > self.left() {
            return Err(Fault::Malformed(match self.length - self.position > self.left() {
                true => format!("{what}: the metadata is longer than {MOST_METADATA_BYTES} bytes"),
                false => format!(
                    "the file ends within {what}: {} of {} bytes: it is truncated, get it again",
                    self.length - self.position,
                    bytes.len()
                ),
            }));
        }
        self.reader.read_exact(bytes).map_err(Fault::Read)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
