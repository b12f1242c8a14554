//! How groups of weights lie in a panel of 64 outputs.
//!
//! A panel is a sequence of groups of 32 inputs. A group has a head (scales, and what else its code needs, of 64 outputs) and
//! then its codes: for each four inputs, 64 outputs of four bytes. With four bits, a byte has the code of its place in the
//! first sixteen inputs below and of the last sixteen above.

use super::GROUP;
use crate::float16::f16_value;
use crate::product::PANEL_COLUMNS;

/// Bytes of an f16 for each output of a panel.
const HALVES_BYTES: usize = 2 * PANEL_COLUMNS;
/// Groups of a block of [`Bits::FourNested`].
const BLOCK_GROUPS: usize = 8;

/// How a weight is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// w = scale · q, q from −128 to 127 (GGUF's Q8_0).
    Eight,
    /// w = scale · q, q from −8 to 7 (GGUF's Q4_0).
    Four,
    /// w = scale · q + minimum, q from 0 to 15 (GGUF's Q4_1).
    FourAndMinimum,
    /// w = scale · s · q − minimum · m, q from 0 to 15, where eight groups share scale and minimum and each has its s and m
    /// from 0 to 63 (GGUF's Q4_K). A row is a whole number of such blocks of 256.
    FourNested,
}

impl Bits {
    /// Bytes of one group in one panel, without what a block of groups has in common.
    fn group_bytes(self) -> usize {
        self.head_bytes() + self.code_bytes()
    }

    fn head_bytes(self) -> usize {
        match self {
            Bits::Eight | Bits::Four | Bits::FourNested => HALVES_BYTES,
            Bits::FourAndMinimum => 2 * HALVES_BYTES,
        }
    }

    fn code_bytes(self) -> usize {
        match self {
            Bits::Eight => GROUP * PANEL_COLUMNS,
            Bits::Four | Bits::FourAndMinimum | Bits::FourNested => GROUP * PANEL_COLUMNS / 2,
        }
    }

    /// Bytes of what a block of groups has in common, before its first group.
    fn block_bytes(self) -> usize {
        if self == Bits::FourNested { 2 * HALVES_BYTES } else { 0 }
    }

    /// Bytes of a panel with this many groups.
    pub(crate) fn panel_bytes(self, groups: usize) -> usize {
        groups * self.group_bytes() + groups.div_ceil(BLOCK_GROUPS) * self.block_bytes()
    }

    /// What is added to a code so that it is not negative.
    pub(crate) fn offset(self) -> i32 {
        match self {
            Bits::Eight => 128,
            Bits::Four => 8,
            Bits::FourAndMinimum | Bits::FourNested => 0,
        }
    }

    /// Whether a group has a minimum beside its scale.
    pub(crate) fn has_minimum(self) -> bool {
        matches!(self, Bits::FourAndMinimum | Bits::FourNested)
    }

    /// Numbers that a row's width must be a multiple of for its blocks to be stored as they are.
    pub fn block_inputs(self) -> usize {
        if self == Bits::FourNested { BLOCK_GROUPS * GROUP } else { GROUP }
    }

    /// Bytes of one such block of a row in GGUF.
    pub fn stored_block_bytes(self) -> usize {
        match self {
            Bits::Eight => 34,
            Bits::Four => 18,
            Bits::FourAndMinimum => 20,
            Bits::FourNested => 144,
        }
    }

    /// Where a group, and its block, begin in a panel.
    #[inline(always)]
    fn places(self, group: usize) -> (usize, usize) {
        let (block, bytes, common) = (group / BLOCK_GROUPS, self.group_bytes(), self.block_bytes());
        (group * bytes + (block + 1) * common, block * (BLOCK_GROUPS * bytes + common))
    }

    /// A group's bytes in a panel.
    #[inline(always)]
    pub(crate) fn group(self, panel: &[u8], group: usize) -> Group<'_> {
        let (begin, block) = self.places(group);
        let (head, codes) = panel[begin..begin + self.group_bytes()].split_at(self.head_bytes());
        Group { block: &panel[block..block + self.block_bytes()], head, codes }
    }

    /// As [`Bits::group`], to be written.
    #[inline(always)]
    pub(crate) fn group_mut(self, panel: &mut [u8], group: usize) -> GroupMut<'_> {
        let (begin, block) = self.places(group);
        let (before, here) = panel.split_at_mut(begin);
        let (head, codes) = here[..self.group_bytes()].split_at_mut(self.head_bytes());
        GroupMut { block: &mut before[block..block + self.block_bytes()], head, codes }
    }

    /// Scale and minimum of an output in a group. Exact: no product has more digits than an f32.
    #[inline(always)]
    pub(crate) fn scale_and_minimum(self, group: &Group, column: usize) -> (f32, f32) {
        let half = |bytes: &[u8], column: usize| {
            f16_value(u16::from_le_bytes([bytes[2 * column], bytes[2 * column + 1]]))
        };
        match self {
            Bits::Eight | Bits::Four => (half(group.head, column), 0.0),
            Bits::FourAndMinimum => (half(group.head, column), half(group.head, PANEL_COLUMNS + column)),
            Bits::FourNested => {
                let (scale, minimum) = (half(group.block, column), half(group.block, PANEL_COLUMNS + column));
                let (s, m) = (group.head[column], group.head[PANEL_COLUMNS + column]);
                (scale * s as f32, -(minimum * m as f32))
            }
        }
    }
}

/// One group of a panel: what it has in common with its block, its head, its codes.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub block: &'a [u8],
    pub head: &'a [u8],
    pub codes: &'a [u8],
}

/// One group of a panel that is written.
pub(crate) struct GroupMut<'a> {
    pub block: &'a mut [u8],
    pub head: &'a mut [u8],
    pub codes: &'a mut [u8],
}
