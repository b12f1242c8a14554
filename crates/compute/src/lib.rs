//! Numbers: every kernel that a decoder needs, forward and explicit backward, on a CPU in f32.
//!
//! Why our own: a training step is a closed set of operations, and whoever owns them can promise what no framework promises:
//! the same bytes on every machine. Each output element is computed by one fixed chain of operations, whichever vector
//! width the processor has, however many rows stand beside it and however the work is cut:
//! - a matrix product's element is one chain of fused multiply-adds in the order of `k` (`product`);
//! - a sum over a row has sixteen lanes, added up in a fixed tree (`lanes`);
//! - `exp`, `ln`, `sin` and `cos` are ours (`elementary`), and so are random numbers (`random`).
//!
//! Kernels are plain functions over slices; they allocate nothing and start no threads (`multiply_parallel` alone spreads
//! over the pool it is called in), so that a caller may run one in each of its threads. This crate alone contains `unsafe`: in the kernels of
//! `product`, `quantised`, `bf16` and `cached_attention`, in the dispatch (`path`), in `team`, in `memory` and in `allocation`.

pub mod activations;
pub mod allocation;
pub mod attention;
pub mod bf16;
pub mod cached_attention;
pub mod cross_entropy;
pub mod device;
pub mod dropout;
pub mod elementary;
pub mod elementwise;
pub mod embedding;
pub mod float16;
pub mod lanes;
pub mod machine;
pub mod memory;
pub mod muon;
pub mod normalisation;
pub mod optimiser;
pub mod path;
pub mod product;
pub mod quantised;
pub mod random;
pub mod rotary;
pub mod routing;
pub mod softmax;
pub mod swiglu;
pub mod team;

#[cfg(test)]
mod testing;

pub use bf16::{Bf16Matrix, Bf16PanelMut, Bf16Rows};
pub use device::{Buffer, Device, View, ViewMut};
pub use path::CpuPath;
pub use product::{
    MatrixMut, MatrixRef, PackedMatrix, PackedPanelMut, Start, multiply, multiply_packed, multiply_packed_on,
    multiply_parallel,
};
pub use quantised::{Bits, PanelMut, QuantisedMatrix, QuantisedRows};
pub use team::Team;
