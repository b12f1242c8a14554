//! The values of one column, some rows at a time, as words or JSON values.

use parquet::basic::{LogicalType, TimeUnit};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader as Decoder, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{AsBytes, ByteArray, DataType, Int96};
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;
use serde_json::Value;

use crate::fields;

/// One value of one row.
#[derive(Debug, Clone)]
pub enum Cell {
    Null,
    /// A slice of the page it came in, not copied yet.
    Bytes(ByteArray),
    Value(Value),
}

/// A column of one group of rows.
pub struct ColumnReader {
    decoder: Decoder,
    descriptor: ColumnDescPtr,
}

impl ColumnReader {
    pub fn new(descriptor: ColumnDescPtr, pages: Box<dyn PageReader>) -> ColumnReader {
        ColumnReader { decoder: get_column_reader(descriptor.clone(), pages), descriptor }
    }

    /// The cells of the next `rows` rows, fewer at the end of the group.
    pub fn read(&mut self, rows: usize) -> Result<Vec<Cell>, ParquetError> {
        let descriptor = &self.descriptor;
        match &mut self.decoder {
            Decoder::BoolColumnReader(decoder) => {
                cells(decoder, descriptor, rows, |value| Cell::Value(value.into()))
            }
            Decoder::Int32ColumnReader(decoder) => {
                let is_date = matches!(descriptor.logical_type_ref(), Some(LogicalType::Date));
                cells(decoder, descriptor, rows, |value| match is_date {
                    true => date(value),
                    false => Cell::Value(value.into()),
                })
            }
            Decoder::Int64ColumnReader(decoder) => {
                let unit = match descriptor.logical_type_ref() {
                    Some(LogicalType::Timestamp(timestamp)) => Some(timestamp.unit),
                    _ => None,
                };
                cells(decoder, descriptor, rows, |value| match unit {
                    Some(unit) => timestamp(value, unit),
                    None => Cell::Value(value.into()),
                })
            }
            Decoder::Int96ColumnReader(decoder) => {
                cells(decoder, descriptor, rows, |value: Int96| timestamp(value.to_nanos(), TimeUnit::NANOS))
            }
            Decoder::FloatColumnReader(decoder) => {
                cells(decoder, descriptor, rows, |value| Cell::Value(f64::from(value).into()))
            }
            Decoder::DoubleColumnReader(decoder) => {
                cells(decoder, descriptor, rows, |value| Cell::Value(value.into()))
            }
            Decoder::ByteArrayColumnReader(decoder) => cells(decoder, descriptor, rows, Cell::Bytes),
            Decoder::FixedLenByteArrayColumnReader(decoder) => {
                cells(decoder, descriptor, rows, |value| Cell::Bytes(value.into()))
            }
        }
    }
}

fn cells<T: DataType>(
    decoder: &mut ColumnReaderImpl<T>,
    descriptor: &ColumnDescPtr,
    rows: usize,
    convert: impl Fn(T::T) -> Cell,
) -> Result<Vec<Cell>, ParquetError> {
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows_read = 0;
    // A call ends with a page.
    while rows_read < rows {
        let (records, _, levels) = decoder.read_records(
            rows - rows_read,
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )?;
        if records == 0 && levels == 0 {
            break;
        }
        rows_read += records;
    }
    let deepest = descriptor.max_def_level();
    let mut values = values.into_iter();
    let mut next = |place: usize| {
        // Without levels every value is there.
        let is_there = deepest == 0 || definitions.get(place).is_some_and(|&level| level == deepest);
        is_there.then(|| values.next()).flatten().map(&convert)
    };
    if descriptor.max_rep_level() == 0 {
        return Ok((0..rows_read).map(|place| next(place).unwrap_or(Cell::Null)).collect());
    }
    let mut lists: Vec<Vec<Value>> = Vec::new();
    for (place, &repetition) in repetitions.iter().enumerate() {
        if repetition == 0 {
            lists.push(Vec::new());
        }
        if let (Some(cell), Some(list)) = (next(place), lists.last_mut()) {
            list.push(cell.into_value());
        }
    }
    Ok(lists.into_iter().map(|list| Cell::Value(Value::Array(list))).collect())
}

/// Days since 1970 as ISO 8601.
fn date(days: i32) -> Cell {
    let date = chrono::NaiveDate::from_epoch_days(days);
    date.map_or(Cell::Null, |date| Cell::Value(date.to_string().into()))
}

/// A point in time as ISO 8601, to the second.
fn timestamp(value: i64, unit: TimeUnit) -> Cell {
    let seconds = match unit {
        TimeUnit::MILLIS => value.div_euclid(1_000),
        TimeUnit::MICROS => value.div_euclid(1_000_000),
        TimeUnit::NANOS => value.div_euclid(1_000_000_000),
    };
    let time = chrono::DateTime::from_timestamp(seconds, 0);
    time.map_or(Cell::Null, |time| Cell::Value(time.format("%Y-%m-%dT%H:%M:%SZ").to_string().into()))
}

impl Cell {
    /// The words of a field: numbers are words too, and the first of a list stands for the whole.
    pub fn into_words(self) -> Result<Option<String>, &'static str> {
        match self {
            Cell::Null => Ok(None),
            Cell::Bytes(bytes) => {
                String::from_utf8(bytes.as_bytes().to_vec()).map(Some).map_err(|_| "not UTF-8")
            }
            Cell::Value(value) => {
                fields::words_at(&value, &[]).map_err(|_| "expected a string, found something else")
            }
        }
    }

    pub fn into_value(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Bytes(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned().into(),
            Cell::Value(value) => value,
        }
    }
}
