//! Digests, artefacts, keys, the record and the storage layer that all writing goes through.
