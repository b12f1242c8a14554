//! The 24 official EU languages as data, and the language identifier.
