//! A value that many read and that is now and then replaced as a whole: settings and certificates of a running server.

use std::sync::{Arc, PoisonError, RwLock};

/// The value in use. Who has read it keeps it unchanged until the end of what it is needed for.
pub struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub fn new(value: T) -> Live<T> {
        Live(RwLock::new(Arc::new(value)))
    }

    /// The value as it is now. A lock that is held for the copy of a pointer.
    pub fn get(&self) -> Arc<T> {
        // Nothing that holds the lock can panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another value in its place, for all that ask from now on.
    pub fn replace(&self, value: T) {
        let value = Arc::new(value);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_read_a_value_keeps_it() {
        let live = Live::new("old");
        let read = live.get();
        live.replace("new");
        assert_eq!((*read, *live.get()), ("old", "new"));
    }
}
