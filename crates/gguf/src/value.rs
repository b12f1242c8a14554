//! Values of a file's metadata: typed scalars, texts, and arrays of them.

use std::collections::BTreeMap;

macro_rules! values {
    ($($name:ident($type:ty) = $code:literal),* $(,)?) => {
        /// One value.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Value {
            $($name($type),)*
            Array(Array),
        }

        /// Values of one type; arrays may hold arrays.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Array {
            $($name(Vec<$type>),)*
            Nested(Vec<Array>),
        }

        impl Value {
            /// The code of its type in the file.
            pub(crate) fn code(&self) -> u32 {
                match self {
                    $(Value::$name(_) => $code,)*
                    Value::Array(_) => ARRAY_CODE,
                }
            }
        }

        impl Array {
            /// The code of its elements' type in the file.
            pub(crate) fn element_code(&self) -> u32 {
                match self {
                    $(Array::$name(_) => $code,)*
                    Array::Nested(_) => ARRAY_CODE,
                }
            }

            /// How many values.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$name(values) => values.len(),)*
                    Array::Nested(values) => values.len(),
                }
            }
        }
    };
}

/// The code of arrays.
pub(crate) const ARRAY_CODE: u32 = 9;

values! {
    U8(u8) = 0, I8(i8) = 1, U16(u16) = 2, I16(i16) = 3, U32(u32) = 4, I32(i32) = 5, F32(f32) = 6, Bool(bool) = 7,
    String(String) = 8, U64(u64) = 10, I64(i64) = 11, F64(f64) = 12,
}

/// Keys and values, in the order of the keys.
pub type Metadata = BTreeMap<String, Value>;

impl Value {
    /// A whole number that is not negative, of any width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::U64(value) => Some(value),
            Value::I8(value) => value.try_into().ok(),
            Value::I16(value) => value.try_into().ok(),
            Value::I32(value) => value.try_into().ok(),
            Value::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A number. An f32 becomes the f64 with the same shortest decimal form: 1e-6 stays 1e-6.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(value) => Some(decimal(value)),
            Value::F64(value) => Some(value),
            _ => self.as_u64().map(|value| value as f64),
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl Array {
    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Texts.
    pub fn as_strings(&self) -> Option<&[String]> {
        match self {
            Array::String(values) => Some(values),
            _ => None,
        }
    }

    /// Whole numbers that are not negative.
    pub(crate) fn to_u64s(&self) -> Option<Vec<u64>> {
        match self {
            Array::U8(values) => Some(values.iter().map(|&value| value.into()).collect()),
            Array::U16(values) => Some(values.iter().map(|&value| value.into()).collect()),
            Array::U32(values) => Some(values.iter().map(|&value| value.into()).collect()),
            Array::U64(values) => Some(values.clone()),
            Array::I32(values) => values.iter().map(|&value| value.try_into().ok()).collect(),
            Array::I64(values) => values.iter().map(|&value| value.try_into().ok()).collect(),
            _ => None,
        }
    }

    /// Floats; whole numbers count as such.
    pub(crate) fn to_f32s(&self) -> Option<Vec<f32>> {
        match self {
            Array::F32(values) => Some(values.clone()),
            Array::F64(values) => Some(values.iter().map(|&value| value as f32).collect()),
            Array::I32(values) => Some(values.iter().map(|&value| value as f32).collect()),
            _ => None,
        }
    }

    /// Truths.
    pub(crate) fn as_bools(&self) -> Option<&[bool]> {
        match self {
            Array::Bool(values) => Some(values),
            _ => None,
        }
    }
}

/// The f64 whose decimal form is the shortest that means this f32.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
