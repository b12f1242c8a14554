//! The types that a tensor's numbers are stored in, and the sizes of their blocks (`ggml-common.h` of llama.cpp).

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// 32 signed bytes with one f16 scale.
    Q8_0,
    /// 32 four-bit numbers around 8 with one f16 scale.
    Q4_0,
    /// 32 four-bit numbers with an f16 scale and minimum.
    Q4_1,
    /// 32 five-bit numbers around 16 with one f16 scale.
    Q5_0,
    /// 32 five-bit numbers with an f16 scale and minimum.
    Q5_1,
    /// 256 four-bit numbers in eight groups with six-bit scales and minima.
    Q4K,
    /// 256 five-bit numbers in eight groups with six-bit scales and minima.
    Q5K,
    /// 256 six-bit numbers in sixteen groups with eight-bit scales.
    Q6K,
}

/// Type, code in the file, name, elements of a block, bytes of a block.
const TYPES: [(ElementType, u32, &str, usize, usize); 11] = [
    (ElementType::F32, 0, "F32", 1, 4),
    (ElementType::F16, 1, "F16", 1, 2),
    (ElementType::Q4_0, 2, "Q4_0", 32, 18),
    (ElementType::Q4_1, 3, "Q4_1", 32, 20),
    (ElementType::Q5_0, 6, "Q5_0", 32, 22),
    (ElementType::Q5_1, 7, "Q5_1", 32, 24),
    (ElementType::Q8_0, 8, "Q8_0", 32, 34),
    (ElementType::Q4K, 12, "Q4_K", 256, 144),
    (ElementType::Q5K, 13, "Q5_K", 256, 176),
    (ElementType::Q6K, 14, "Q6_K", 256, 210),
    (ElementType::Bf16, 30, "BF16", 1, 2),
];

/// Types that exist and are not read here, for messages.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl ElementType {
    /// The type with this code; the error names a code that is not read here.
    pub(crate) fn from_code(code: u32) -> Result<ElementType, String> {
        if let Some(entry) = TYPES.iter().find(|entry| entry.1 == code) {
            return Ok(entry.0);
        }
        let name = OTHERS.iter().find(|(other, _)| *other == code).map_or("unknown", |(_, name)| name);
        let known: Vec<&str> = TYPES.iter().map(|entry| entry.2).collect();
        Err(format!(
            "type {code} ({name}) is not supported; supported are {}: get the model in one of them",
            known.join(", ")
        ))
    }

    fn entry(self) -> &'static (ElementType, u32, &'static str, usize, usize) {
        TYPES.iter().find(|entry| entry.0 == self).unwrap_or(&TYPES[0])
    }

    /// Its code in the file.
    pub fn code(self) -> u32 {
        self.entry().1
    }

    /// Its name, as llama.cpp writes it.
    pub fn name(self) -> &'static str {
        self.entry().2
    }

    /// Numbers in a block; a row is a whole number of blocks.
    pub fn block_elements(self) -> usize {
        self.entry().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.entry().4
    }

    /// Bytes of a row of `columns` numbers; `None` where the row is no whole number of blocks or too long.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_elements()) {
            return None;
        }
        (columns / self.block_elements()).checked_mul(self.block_bytes())
    }
}
