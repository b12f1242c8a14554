//! The engine: KV cache, sampling, batching of requests; no network.
