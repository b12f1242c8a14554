//! The system's allocator with a counter for each thread and one for all: for tests that compare planned memory with what
//! is taken, and for those that look for memory that is never given back.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: compute::allocation::Counting = compute::allocation::Counting;
//! let before = compute::allocation::held();
//! let numbers = vec![0u8; 1000];
//! assert_eq!(compute::allocation::held() - before, 1000);
//! # drop(numbers);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// To be set as `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

static HELD_BY_ALL: AtomicIsize = AtomicIsize::new(0);

/// Bytes that all threads have taken, less those that were given back, whoever did it.
pub fn held_by_all() -> isize {
    HELD_BY_ALL.load(Ordering::Relaxed)
}

/// Bytes that this thread has taken, less those that it has given back.
pub fn held() -> isize {
    HELD.get()
}

fn add(bytes: isize) {
    HELD_BY_ALL.fetch_add(bytes, Ordering::Relaxed);
    // A thread that ends gives back its own memory when the counter is gone.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: everything is passed on to the system's allocator; the counter neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
