//! Writing a file in one pass: header, metadata and the table of tensors first, then their numbers in order. The same
//! input gives the same bytes.

use crate::element::ElementType;
use crate::error::GgufError;
use crate::quantise::quantise;
use crate::reader::DEFAULT_ALIGNMENT;
use crate::value::{Array, Value};
use std::io::{Result as Written, Write};

/// A tensor that is going to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub element: ElementType,
    /// Its shape, the longest stride first; rows are whole numbers of blocks.
    pub shape: Vec<usize>,
}

impl TensorPlan {
    /// How many numbers it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its bytes in the file, without what fills up behind it.
    pub fn bytes(&self) -> u64 {
        let columns = self.shape.last().copied().unwrap_or(1);
        let row = self.element.row_bytes(columns).unwrap_or(0) as u64;
        row * (self.elements() / columns.max(1)) as u64
    }
}

/// A file whose head is written: the tensors' numbers follow in the order of the plan.
pub struct GgufWriter<'a> {
    out: &'a mut dyn Write,
    plan: &'a [TensorPlan],
    /// The tensor that is being written, and how many of its numbers are.
    tensor: usize,
    done: usize,
    buffer: Vec<u8>,
}

impl<'a> GgufWriter<'a> {
    /// Writes header, metadata and table.
    ///
    /// # Errors
    /// What the output says.
    pub fn begin(
        out: &'a mut dyn Write,
        metadata: &[(String, Value)],
        plan: &'a [TensorPlan],
    ) -> Result<GgufWriter<'a>, GgufError> {
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((plan.len() as u64).to_le_bytes());
        head.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            text(&mut head, key)?;
            head.extend(value.code().to_le_bytes());
            write_value(&mut head, value)?;
        }
        let mut offset = 0;
        for tensor in plan {
            text(&mut head, &tensor.name)?;
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            head.extend(tensor.shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
            head.extend(tensor.element.code().to_le_bytes());
            head.extend(u64::to_le_bytes(offset));
            offset += tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        out.write_all(&head)?;
        Ok(GgufWriter { out, plan, tensor: 0, done: 0, buffer: Vec::new() })
    }

    /// Appends numbers, whole blocks of them, to the tensor whose turn it is.
    ///
    /// # Errors
    /// A number that is not finite in a quantised tensor, or what the output says.
    ///
    /// # Panics
    /// When there are more numbers than the plan has.
    pub fn numbers(&mut self, values: &[f32]) -> Result<(), GgufError> {
        let tensor = &self.plan[self.tensor];
        assert!(self.done + values.len() <= tensor.elements(), "too many numbers for {}", tensor.name);
        if tensor.element.block_elements() > 1 && !values.iter().all(|value| value.is_finite()) {
            let (name, element) = (&tensor.name, tensor.element.name());
            return Err(GgufError::Model(format!(
                "tensor {name} holds a number that is not finite, which {element} cannot: use --format f32 or bf16"
            )));
        }
        for part in values.chunks(1 << 16) {
            self.buffer.clear();
            quantise(tensor.element, part, &mut self.buffer);
            self.out.write_all(&self.buffer)?;
        }
        self.done += values.len();
        self.fill_up()
    }

    /// Writes the whole tensor whose turn it is as it is stored.
    ///
    /// # Errors
    /// What the output says.
    ///
    /// # Panics
    /// When it has another number of bytes, or has begun.
    pub fn stored(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let tensor = &self.plan[self.tensor];
        assert!(self.done == 0 && bytes.len() as u64 == tensor.bytes(), "{} as a whole", tensor.name);
        self.out.write_all(bytes)?;
        self.done = tensor.elements();
        self.fill_up()
    }

    /// Goes on to the next tensor where one is whole.
    fn fill_up(&mut self) -> Result<(), GgufError> {
        let tensor = &self.plan[self.tensor];
        if self.done == tensor.elements() {
            let bytes = tensor.bytes();
            let filling = bytes.next_multiple_of(DEFAULT_ALIGNMENT) - bytes;
            self.out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..filling as usize])?;
            (self.tensor, self.done) = (self.tensor + 1, 0);
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Panics
    /// When numbers are missing.
    pub fn finish(self) {
        assert_eq!((self.tensor, self.done), (self.plan.len(), 0), "the file is not whole");
    }
}

fn text(out: &mut dyn Write, text: &str) -> Written<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn write_value(out: &mut dyn Write, value: &Value) -> Written<()> {
    match value {
        Value::U8(value) => out.write_all(&value.to_le_bytes()),
        Value::I8(value) => out.write_all(&value.to_le_bytes()),
        Value::U16(value) => out.write_all(&value.to_le_bytes()),
        Value::I16(value) => out.write_all(&value.to_le_bytes()),
        Value::U32(value) => out.write_all(&value.to_le_bytes()),
        Value::I32(value) => out.write_all(&value.to_le_bytes()),
        Value::F32(value) => out.write_all(&value.to_le_bytes()),
        Value::Bool(value) => out.write_all(&[u8::from(*value)]),
        Value::String(value) => text(out, value),
        Value::U64(value) => out.write_all(&value.to_le_bytes()),
        Value::I64(value) => out.write_all(&value.to_le_bytes()),
        Value::F64(value) => out.write_all(&value.to_le_bytes()),
        Value::Array(array) => write_array(out, array),
    }
}

fn write_array(out: &mut dyn Write, array: &Array) -> Written<()> {
    out.write_all(&array.element_code().to_le_bytes())?;
    out.write_all(&(array.len() as u64).to_le_bytes())?;
    match array {
        Array::U8(values) => out.write_all(values),
        Array::I8(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::U16(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::I16(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::U32(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::I32(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::F32(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::Bool(values) => values.iter().try_for_each(|value| out.write_all(&[u8::from(*value)])),
        Array::String(values) => values.iter().try_for_each(|value| text(out, value)),
        Array::U64(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::I64(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::F64(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
        Array::Nested(values) => values.iter().try_for_each(|value| write_array(out, value)),
    }
}
