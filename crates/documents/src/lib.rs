//! Document and Shard: reading and writing them.
