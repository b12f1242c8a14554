//! Stage 4: bits per byte and other tasks, in tables per language.
