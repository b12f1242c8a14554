//! Batches, optimisers, schedules, checkpoints and exact resume.
