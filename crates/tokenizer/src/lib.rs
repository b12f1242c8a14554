//! Stage 2: train a byte-level BPE vocabulary, encode, decode, and measure fairness over the languages.
