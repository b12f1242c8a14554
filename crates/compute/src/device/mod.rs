//! The device: memory, and the operations that a training step queues on it.
//!
//! Model and training code hold a [`Device`], allocate [`Buffer`]s from it once, and call its operations on [`View`]s of
//! them, in order. They never touch an element themselves: what the host needs to know comes back through
//! [`Device::read`], which waits for everything queued before it. The CPU is the first device: an operation has finished
//! when it returns, its rows or blocks shared out over the device's threads. Which thread takes which piece never decides
//! a bit: pieces do not share a sum, or their sums are cut at fixed rows and added in order.
//!
//! `memory` is buffers and views, `cpu` the threads, `operations` what a decoder needs, `mixture` what a mixture of
//! experts needs besides, `optimisers` what moves it, `moments` what they remember.

mod cpu;
mod memory;
mod mixture;
mod moments;
mod operations;
mod optimisers;
#[cfg(test)]
mod tests;

pub use cpu::ThreadsError;
pub use memory::{Buffer, Element, MatrixView, MatrixViewMut, View, ViewMut};
pub use mixture::ExpertMatrices;
pub use moments::{Bf16, MomentFormat, Moments};
pub use operations::{Attention, AttentionSums, LossGradients, rows_of_logits};
pub use optimisers::{Rule, Stretch};

use cpu::Cpu;
use std::sync::Arc;

/// A place to compute. Clones speak to the same device.
#[derive(Clone, Debug)]
pub struct Device {
    cpu: Arc<Cpu>,
}

impl Device {
    /// This machine's processor, with that many threads (at least one).
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Device, ThreadsError> {
        Ok(Device { cpu: Arc::new(Cpu::new(threads.max(1))?) })
    }

    /// Threads of the device.
    pub fn threads(&self) -> usize {
        self.cpu.threads()
    }

    /// Runs `work`, which queues operations, next to the device: each of them then starts sooner.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.cpu.run(work)
    }

    /// A buffer of zeros.
    pub fn zeros<T: Element>(&self, length: usize) -> Buffer<T> {
        Buffer::from_host(vec![T::default(); length])
    }

    /// A buffer with these elements.
    pub fn upload<T: Element>(&self, elements: Vec<T>) -> Buffer<T> {
        Buffer::from_host(elements)
    }

    /// Copies elements from the host to the beginning of a view.
    ///
    /// # Panics
    /// When the view is shorter.
    pub fn write<T: Element>(&self, elements: &[T], target: ViewMut<T>) {
        target.elements[..elements.len()].copy_from_slice(elements);
    }

    /// Waits for the queued operations and copies elements to the host.
    pub fn read<T: Element>(&self, source: View<T>) -> Vec<T> {
        source.elements.to_vec()
    }

    /// Waits for the queued operations and lends the elements to the host, for writing them out: without a copy where the
    /// device's memory is the host's.
    pub fn lend<'a, T: Element>(&self, source: View<'a, T>) -> std::borrow::Cow<'a, [T]> {
        source.elements.into()
    }

    /// Waits for the queued operations.
    pub fn synchronise(&self) {}
}
