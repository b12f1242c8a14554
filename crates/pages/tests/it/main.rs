//! Pages in 24 languages and many layouts, broken and hostile pages.

mod content;
mod hostile;
mod site;
mod text;
