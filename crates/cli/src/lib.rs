//! The program `eulalia`: flags, recipes, progress, and the commands that are not stages.
//!
//! The way in: [`program::main`] reads the flags and calls one command; [`run::run`] carries a recipe through its
//! stages; [`kinds::KINDS`] is the one table that says what each stage takes and which crate builds it.

pub mod arguments;
pub mod commands;
pub mod console;
pub mod errors;
pub mod kinds;
pub mod machine;
pub mod program;
pub mod ranks;
pub mod recipe;
pub mod run;
pub mod summary;
