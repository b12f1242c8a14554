//! The program eulalia: flags, recipes, progress.
