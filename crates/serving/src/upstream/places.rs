//! Places at one engine: how many requests it has at once, and how many of them are one tenant's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::share_of_one;

/// Places that are taken. Outlives a reload, which may change how many there are.
#[derive(Default)]
pub struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<String, usize>,
}

/// One request's place; free again when it is dropped.
pub struct Place {
    places: Arc<Places>,
    tenant: String,
}

impl Places {
    /// A place for a request of this tenant, where the engine has `most`. `None` when all are taken, or all that one
    /// tenant may have.
    pub fn take(self: &Arc<Self>, tenant: &str, most: usize) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.by_tenant.get(tenant).copied().unwrap_or(0);
        if taken.all >= most || own as u64 >= share_of_one(most as u64) {
            return None;
        }
        taken.all += 1;
        taken.by_tenant.insert(tenant.to_string(), own + 1);
        Some(Place { places: self.clone(), tenant: tenant.to_string() })
    }

    /// Requests that have a place.
    pub fn running(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing that holds the lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub fn tenant(&self) -> &str {
        &self.tenant
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_tenant.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_places_for_others() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = std::iter::from_fn(|| places.take("a", 8)).collect();
        assert_eq!(held.len(), 6);
        held.extend(std::iter::from_fn(|| places.take("b", 8)));
        assert_eq!((held.len(), places.running()), (8, 8));
        assert!(places.take("c", 8).is_none() && places.take("c", 9).is_some(), "a reload may add some");
        held.clear();
        assert_eq!(places.running(), 0);
        assert!(places.taken().by_tenant.is_empty());
        assert!(places.take("a", 1).is_some(), "of one place, one is a share");
    }
}
