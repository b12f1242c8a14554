//! The commands, one file each: what they read, what they do, what they print.

pub mod answering;
pub mod audit;
pub mod bench;
pub mod bench_inference;
pub mod bench_quality;
pub mod chat;
pub mod convert;
pub mod corpus_export;
pub mod corpus_report;
pub mod doctor;
pub mod estimate;
pub mod gc;
pub mod generate;
pub mod identify;
pub mod inspect;
pub mod keys;
pub mod load;
pub mod opt_out;
pub mod plot;
pub mod pull;
pub mod quantize;
pub mod run;
pub mod sample;
pub mod score;
pub mod serve;
pub mod verify;
