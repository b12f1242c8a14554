//! Stage 1: identify, filter, deduplicate, redact and split documents.
