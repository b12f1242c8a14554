//! The engine and the scorer from outside: over a toy whose answers are known, and over a real decoder.

mod format;
mod fuzz;
mod invariance;
mod real;
mod sharing;
mod toy;
mod validator;
