//! Typed handles of a device's memory: buffers, views of them, and views with a shape.

use crate::product::{MatrixMut, MatrixRef};
use std::ops::{Bound, Range, RangeBounds};

/// What a buffer may hold.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + PartialEq + 'static {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for u32 {}

/// A stretch of a device's memory, planned once and reused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buffer<T: Element = f32> {
    elements: Vec<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn from_host(elements: Vec<T>) -> Buffer<T> {
        Buffer { elements }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Some of the elements, to be read.
    ///
    /// # Panics
    /// When the span does not lie inside the buffer.
    pub fn at(&self, span: impl RangeBounds<usize>) -> View<'_, T> {
        View { elements: &self.elements[within(span, self.elements.len())] }
    }

    /// Some of the elements, to be written.
    ///
    /// # Panics
    /// When the span does not lie inside the buffer.
    pub fn at_mut(&mut self, span: impl RangeBounds<usize>) -> ViewMut<'_, T> {
        let span = within(span, self.elements.len());
        ViewMut { elements: &mut self.elements[span] }
    }
}

/// Elements that an operation reads.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T: Element = f32> {
    pub(super) elements: &'a [T],
}

impl<'a, T: Element> View<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Some of them.
    ///
    /// # Panics
    /// When the span does not lie inside.
    pub fn at(self, span: impl RangeBounds<usize>) -> View<'a, T> {
        View { elements: &self.elements[within(span, self.elements.len())] }
    }
}

impl<'a> View<'a> {
    /// As a matrix, row after row without gaps.
    pub fn matrix(self, rows: usize, columns: usize) -> MatrixView<'a> {
        MatrixView { matrix: MatrixRef::new(self.elements, rows, columns) }
    }

    /// As a matrix whose rows begin `stride` elements apart.
    pub fn strided(self, rows: usize, columns: usize, stride: usize) -> MatrixView<'a> {
        MatrixView { matrix: MatrixRef::strided(self.elements, rows, columns, stride) }
    }
}

/// Elements that an operation writes.
#[derive(Debug)]
pub struct ViewMut<'a, T: Element = f32> {
    pub(super) elements: &'a mut [T],
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Some of them.
    ///
    /// # Panics
    /// When the span does not lie inside.
    pub fn at_mut(self, span: impl RangeBounds<usize>) -> ViewMut<'a, T> {
        let span = within(span, self.elements.len());
        ViewMut { elements: &mut self.elements[span] }
    }
}

impl<'a> ViewMut<'a> {
    /// As a matrix, row after row without gaps.
    pub fn matrix(self, rows: usize, columns: usize) -> MatrixViewMut<'a> {
        MatrixViewMut { matrix: MatrixMut::new(self.elements, rows, columns) }
    }

    /// As a matrix whose rows begin `stride` elements apart.
    pub fn strided(self, rows: usize, columns: usize, stride: usize) -> MatrixViewMut<'a> {
        MatrixViewMut { matrix: MatrixMut::strided(self.elements, rows, columns, stride) }
    }
}

/// A matrix on a device that is read.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    pub(super) matrix: MatrixRef<'a>,
}

impl MatrixView<'_> {
    /// The same elements with rows and columns exchanged; costs nothing.
    pub fn transposed(self) -> Self {
        MatrixView { matrix: self.matrix.transposed() }
    }
}

/// A matrix on a device that is written.
#[derive(Debug)]
pub struct MatrixViewMut<'a> {
    pub(super) matrix: MatrixMut<'a>,
}

fn within(span: impl RangeBounds<usize>, length: usize) -> Range<usize> {
    let start = match span.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match span.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => length,
    };
    assert!(start <= end && end <= length, "elements {start}..{end} of a buffer of {length}");
    start..end
}
