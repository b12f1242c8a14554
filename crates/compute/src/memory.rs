//! Memory for weights, keys and values: aligned to cache lines, in large pages where the system has them.

/// Zeroed bytes at a multiple of 64. The system gives them when they are first touched.
#[derive(Debug, Default)]
pub struct Lines {
    /// Eight bytes each, with seven of them to spare.
    words: Vec<u64>,
    /// Words before the first multiple of 64 bytes.
    skipped: usize,
    length: usize,
}

const LINE: usize = 64;
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
        let words = vec![0u64; length.div_ceil(LINE) * (LINE / 8) + LINE / 8 - 1];
        let skipped = words.as_ptr().align_offset(LINE);
        assert!(skipped < LINE / 8, "a multiple of 64 bytes is at most seven words away");
        if length >= WORTH_LARGE_PAGES {
            advise_large_pages(words.as_ptr() as usize, words.len() * 8);
        }
        Lines { words, skipped, length }
    }

    fn pointer(&self) -> *const u8 {
        self.words[self.skipped.min(self.words.len())..].as_ptr().cast()
    }

    fn pointer_mut(&mut self) -> *mut u8 {
        let skipped = self.skipped.min(self.words.len());
        self.words[skipped..].as_mut_ptr().cast()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: behind the skipped words there are at least `length` bytes.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.length) }
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer_mut(), self.length) }
    }

    /// The bytes as numbers of sixteen bits.
    pub fn numbers(&self) -> &[u16] {
        // SAFETY: a line is 32 such numbers, aligned; any bits are one.
        unsafe { std::slice::from_raw_parts(self.pointer().cast(), self.length / 2) }
    }

    /// The bytes as numbers of sixteen bits.
    pub fn numbers_mut(&mut self) -> &mut [u16] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer_mut().cast(), self.length / 2) }
    }

    /// The bytes as floats.
    pub fn floats(&self) -> &[f32] {
        // SAFETY: a line is 16 floats, aligned; any bits are one.
        unsafe { std::slice::from_raw_parts(self.pointer().cast(), self.length / 4) }
    }

    /// The bytes as floats.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer_mut().cast(), self.length / 4) }
    }
}

/// Asks for large pages: a walk through weights then misses the page tables a few hundred times instead of a hundred thousand.
#[cfg(target_os = "linux")]
fn advise_large_pages(address: usize, length: usize) {
    const PAGE: usize = 4096;
    let begin = address.next_multiple_of(PAGE);
    let end = (address + length) / PAGE * PAGE;
    if begin < end {
        let advice = rustix::mm::Advice::LinuxHugepage;
        // SAFETY: the pages belong to the allocation, and this advice changes no content. A refusal changes nothing.
        let _ = unsafe { rustix::mm::madvise(begin as *mut _, end - begin, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_address: usize, _length: usize) {}
