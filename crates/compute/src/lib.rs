//! Numbers: kernels with their backward, on a CPU; the only crate with unsafe code.
