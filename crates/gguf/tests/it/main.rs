//! Files as strangers send them, and the numbers of llama.cpp's own package.

mod blocks;
mod containers;
mod models;
mod tokenizers;
