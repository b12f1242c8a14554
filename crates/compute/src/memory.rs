//! Memory for weights: aligned to cache lines, in large pages where the system has them.

/// Zeroed bytes at a multiple of 64.
#[derive(Debug, Default)]
pub struct Lines {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Below this, a large page is not worth asking for.
const WORTH_LARGE_PAGES: usize = 4 << 20;

impl Clone for Lines {
    fn clone(&self) -> Lines {
        let mut copy = Lines::zeroed(self.length);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}

impl Lines {
    /// `length` bytes.
    pub fn zeroed(length: usize) -> Lines {
        let count = length.div_ceil(64);
        let mut lines: Vec<Line> = Vec::with_capacity(count);
        if length >= WORTH_LARGE_PAGES {
            advise_large_pages(lines.as_mut_ptr().cast(), count * 64);
        }
        lines.resize(count, Line([0; 64]));
        Lines { lines, length }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes without gaps, and `length` is at most 64 times their number.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

impl Lines {
    /// The bytes as numbers of sixteen bits.
    pub fn numbers(&self) -> &[u16] {
        // SAFETY: a line is 32 such numbers, aligned; any bits are one.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length / 2) }
    }

    /// The bytes as floats.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: a line is 16 floats, aligned; any bits are one; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length / 4) }
    }

    /// The bytes as numbers of sixteen bits.
    pub fn numbers_mut(&mut self) -> &mut [u16] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length / 2) }
    }
}

/// Asks for large pages: a walk through weights then misses the page tables a few hundred times instead of a hundred thousand.
#[cfg(target_os = "linux")]
fn advise_large_pages(pointer: *mut u8, length: usize) {
    const PAGE: usize = 4096;
    let begin = (pointer as usize).next_multiple_of(PAGE);
    let end = (pointer as usize + length) / PAGE * PAGE;
    if begin < end {
        let advice = rustix::mm::Advice::LinuxHugepage;
        // SAFETY: the pages belong to the allocation, and this advice changes no content. A refusal changes nothing.
        let _ = unsafe { rustix::mm::madvise(begin as *mut _, end - begin, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_pointer: *mut u8, _length: usize) {}
