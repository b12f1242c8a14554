//! The engine and the scorer from outside: over a toy whose answers are known, and over a real decoder.

mod real;
mod toy;
