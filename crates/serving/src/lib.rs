//! Stage 7: the OpenAI-compatible server: TLS, keys, tenants, audit.
