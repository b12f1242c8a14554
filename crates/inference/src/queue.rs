//! Who is next: waiting requests of different tenants take turns by what they have used.
//!
//! Each tenant has an account of tokens computed for it; of those that wait, the one with the lowest account goes first,
//! its own requests in order of arrival. A tenant that was away does not come back with a credit: its account is raised
//! to the lowest of those present (start-time fair queueing, Goyal et al. 1996, over tokens).

use std::collections::{BTreeMap, VecDeque};

/// Waiting requests by tenant.
pub struct FairQueue<T> {
    tenants: BTreeMap<String, Account<T>>,
    waiting: usize,
}

struct Account<T> {
    used_tokens: u64,
    waiting: VecDeque<T>,
    /// Requests that were taken and are not finished.
    running: usize,
}

impl<T> FairQueue<T> {
    pub fn new() -> FairQueue<T> {
        FairQueue { tenants: BTreeMap::new(), waiting: 0 }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn waiting_of(&self, tenant: &str) -> usize {
        self.tenants.get(tenant).map_or(0, |account| account.waiting.len())
    }

    /// Adds a request at the end of its tenant's line.
    pub fn push(&mut self, tenant: &str, request: T) {
        let lowest = self.tenants.values().map(|account| account.used_tokens).min().unwrap_or(0);
        let account = self.tenants.entry(tenant.to_string()).or_insert_with(|| Account {
            used_tokens: lowest,
            waiting: VecDeque::new(),
            running: 0,
        });
        account.waiting.push_back(request);
        self.waiting += 1;
    }

    /// Takes the next request in fair order, leaving out tenants that run `most_running` already. If it does not fit,
    /// nothing is taken: letting smaller ones pass would keep a large one waiting for ever.
    pub fn take(&mut self, most_running: usize, fits: impl Fn(&T) -> bool) -> Option<T> {
        let tenant = self
            .tenants
            .iter()
            .filter(|(_, account)| account.running < most_running && !account.waiting.is_empty())
            .min_by_key(|(_, account)| account.used_tokens)
            .map(|(tenant, _)| tenant.clone())?;
        let account = self.tenants.get_mut(&tenant)?;
        if !account.waiting.front().is_some_and(fits) {
            return None;
        }
        account.running += 1;
        self.waiting -= 1;
        account.waiting.pop_front()
    }

    /// Books computed tokens.
    pub fn charge(&mut self, tenant: &str, tokens: usize) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.used_tokens += tokens as u64;
        }
    }

    /// A request that was taken has ended. Accounts live as long as something of the tenant waits or runs.
    pub fn finished(&mut self, tenant: &str) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.running -= 1;
        }
        self.forget_absent();
    }

    /// Removes and returns all waiting requests for which `gone`.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for account in self.tenants.values_mut() {
            let (out, stay): (VecDeque<T>, VecDeque<T>) = account.waiting.drain(..).partition(&gone);
            account.waiting = stay;
            removed.extend(out);
        }
        self.waiting -= removed.len();
        self.forget_absent();
        removed
    }

    fn forget_absent(&mut self) {
        self.tenants.retain(|_, account| account.running > 0 || !account.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns_by_what_they_used() {
        let mut queue = FairQueue::new();
        for request in ["a1", "a2", "a3", "b1", "b2"] {
            queue.push(&request[..1], request);
        }
        let mut order = Vec::new();
        while let Some(request) = queue.take(9, |_| true) {
            order.push(request);
            queue.charge(&request[..1], if request == "b1" { 30 } else { 10 });
        }
        assert_eq!(order, ["a1", "b1", "a2", "a3", "b2"]);
    }

    #[test]
    fn a_newcomer_has_neither_credit_nor_debt() {
        let mut queue = FairQueue::new();
        queue.push("a", 1);
        queue.take(9, |_| true);
        queue.charge("a", 1_000);
        queue.push("b", 2);
        queue.push("a", 3);
        assert_eq!(queue.take(9, |_| true), Some(3), "equal accounts go by name");
        queue.charge("a", 1);
        queue.push("a", 4);
        assert_eq!(queue.take(9, |_| true), Some(2));
    }

    #[test]
    fn a_large_request_is_not_passed_by_small_ones() {
        let mut queue = FairQueue::new();
        queue.push("a", 100);
        queue.push("b", 1);
        assert_eq!(queue.take(9, |size| *size < 10), None);
    }

    #[test]
    fn a_tenant_keeps_within_its_places() {
        let mut queue = FairQueue::new();
        for request in ["a1", "a2", "b1"] {
            queue.push(&request[..1], request);
        }
        assert_eq!(queue.take(1, |_| true), Some("a1"));
        assert_eq!(queue.take(1, |_| true), Some("b1"));
        assert_eq!(queue.take(1, |_| true), None);
        queue.finished("a");
        assert_eq!(queue.take(1, |_| true), Some("a2"));
    }

    #[test]
    fn what_has_gone_is_removed() {
        let mut queue = FairQueue::new();
        queue.push("a", 1);
        queue.push("a", 2);
        assert_eq!(queue.remove(|request| *request == 1), [1]);
        assert_eq!((queue.waiting(), queue.waiting_of("a")), (1, 1));
    }
}
