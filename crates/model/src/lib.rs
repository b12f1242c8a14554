//! The decoder: layer specifications, parameters, forward and backward, weights on disk.
