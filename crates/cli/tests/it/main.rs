//! What needs the whole: the program and its stages together.

mod arrows;
mod bad_inputs;
mod checkpoints;
mod commands;
mod conversions;
mod corpus_faults;
mod corpus_inputs;
mod faults;
mod generating;
mod golden;
mod kills;
mod licences;
mod opt_outs;
mod plots;
mod pulls;
mod ranks;
mod recipes;
mod reruns;
mod server_full_disk;
mod server_kills;
mod signatures;
mod states;
mod stored;
mod support;
mod tampering;
