//! Who is next: waiting requests of different tenants take turns by what they have used.
//!
//! Each tenant has an account of tokens computed for it; of those that wait, the one with the lowest account goes first,
//! its own requests in order of arrival. A tenant that was away does not come back with a credit: its account is raised
//! to the lowest of those present (start-time fair queueing, Goyal et al. 1996, over tokens).
//!
//! Places and cache blocks are not taken back from who has them, so where others may come nobody is given the last of them:
//! a tenant may hold three times what is left free (dynamic thresholds, Choudhury and Hahne 1998). Alone it fills three
//! quarters; when others come, its share shrinks as its requests end, and there is room for a newcomer at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What a tenant may hold, in parts of what is left free.
const SHARE: usize = 3;
/// A tenant counts as present for so long after its last request.
const PRESENCE: Duration = Duration::from_secs(60);

/// Waiting requests by tenant.
pub struct FairQueue<T> {
    tenants: BTreeMap<String, Account<T>>,
    waiting: usize,
    /// Whether room is left for tenants that are not there yet.
    leaves_room: bool,
    /// The tenant that asked last, and the last one before it that was another.
    seen: [Option<(String, Instant)>; 2],
}

struct Account<T> {
    used_tokens: u64,
    /// With the blocks that each needs.
    waiting: VecDeque<(usize, T)>,
    /// Requests that were taken and are not finished.
    running: usize,
    /// Blocks that these may come to need.
    held_blocks: usize,
}

/// What is free for requests to begin.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub places: usize,
    pub blocks: usize,
}

impl<T> Account<T> {
    /// Whether the tenant may begin its next request without taking what newcomers need.
    fn may_begin(&self, room: Room) -> bool {
        let Some((blocks, _)) = self.waiting.front() else { return false };
        let within = |held: usize, free: usize| held < SHARE.saturating_mul(free);
        // One request of each tenant must be possible, however large.
        let leaves_blocks = self.held_blocks == 0
            || within(self.held_blocks + blocks, room.blocks.saturating_sub(*blocks) + 1);
        leaves_blocks && within(self.running, room.places)
    }
}

impl<T> FairQueue<T> {
    /// Nobody waits. `leaves_room`: for tenants that are not there yet.
    pub fn new(leaves_room: bool) -> FairQueue<T> {
        FairQueue { tenants: BTreeMap::new(), waiting: 0, leaves_room, seen: [None, None] }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn waiting_of(&self, tenant: &str) -> usize {
        self.tenants.get(tenant).map_or(0, |account| account.waiting.len())
    }

    /// Tokens computed for a tenant, beyond those of whom it found when it came.
    pub fn used_tokens(&self, tenant: &str) -> u64 {
        self.tenants.get(tenant).map_or(0, |account| account.used_tokens)
    }

    /// Whether more than one tenant asked within the last minute.
    pub fn is_shared(&self, now: Instant) -> bool {
        let [_, other] = &self.seen;
        other.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < PRESENCE)
    }

    /// Adds a request, which may come to need so many blocks, at the end of its tenant's line.
    pub fn push(&mut self, tenant: &str, blocks: usize, request: T, now: Instant) {
        let lowest = self.tenants.values().map(|account| account.used_tokens).min().unwrap_or(0);
        let account = self.tenants.entry(tenant.to_string()).or_insert_with(|| Account {
            used_tokens: lowest,
            waiting: VecDeque::new(),
            running: 0,
            held_blocks: 0,
        });
        account.waiting.push_back((blocks, request));
        self.waiting += 1;
        if self.seen[0].as_ref().is_none_or(|(last, _)| last != tenant) {
            self.seen.swap(0, 1);
        }
        self.seen[0] = Some((tenant.to_string(), now));
    }

    /// Takes the next request in fair order, leaving out tenants that hold their share of what there is. If it does not
    /// fit, nothing is taken: letting smaller ones pass would keep a large one waiting for ever.
    pub fn take(&mut self, room: Room, fits: impl Fn(&T) -> bool) -> Option<T> {
        let tenant = self
            .tenants
            .iter()
            .filter(|(_, account)| match self.leaves_room {
                true => account.may_begin(room),
                false => !account.waiting.is_empty(),
            })
            .min_by_key(|(_, account)| (account.used_tokens, account.running))
            .map(|(tenant, _)| tenant.clone())?;
        let account = self.tenants.get_mut(&tenant)?;
        if !account.waiting.front().is_some_and(|(_, request)| fits(request)) {
            return None;
        }
        let (blocks, request) = account.waiting.pop_front()?;
        account.running += 1;
        account.held_blocks += blocks;
        self.waiting -= 1;
        Some(request)
    }

    /// Books computed tokens.
    pub fn charge(&mut self, tenant: &str, tokens: usize) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.used_tokens += tokens as u64;
        }
    }

    /// A request that was taken, with so many blocks, has ended. Accounts live as long as something of the tenant waits
    /// or runs.
    pub fn finished(&mut self, tenant: &str, blocks: usize) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.running -= 1;
            account.held_blocks -= blocks;
        }
        self.forget_absent();
    }

    /// Removes and returns all waiting requests for which `gone`.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for account in self.tenants.values_mut() {
            let (out, stay): (VecDeque<_>, VecDeque<_>) =
                account.waiting.drain(..).partition(|(_, request)| gone(request));
            account.waiting = stay;
            removed.extend(out.into_iter().map(|(_, request)| request));
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

    const PLENTY: Room = Room { places: 9, blocks: 1_000 };

    fn push(queue: &mut FairQueue<&'static str>, request: &'static str) {
        queue.push(&request[..1], 1, request, Instant::now());
    }

    #[test]
    fn tenants_take_turns_by_what_they_used() {
        let mut queue = FairQueue::new(true);
        for request in ["a1", "a2", "a3", "b1", "b2"] {
            push(&mut queue, request);
        }
        let mut order = Vec::new();
        while let Some(request) = queue.take(PLENTY, |_| true) {
            order.push(request);
            queue.charge(&request[..1], if request == "b1" { 30 } else { 10 });
        }
        assert_eq!(order, ["a1", "b1", "a2", "a3", "b2"]);
    }

    #[test]
    fn a_newcomer_has_neither_credit_nor_debt() {
        let mut queue = FairQueue::new(true);
        push(&mut queue, "b1");
        queue.take(PLENTY, |_| true);
        queue.charge("b", 1_000);
        push(&mut queue, "a1");
        push(&mut queue, "b2");
        assert_eq!(queue.used_tokens("a"), 1_000);
        assert_eq!(queue.take(PLENTY, |_| true), Some("a1"), "of equals, who has less under way");
        queue.charge("a", 1);
        push(&mut queue, "a2");
        assert_eq!(queue.take(PLENTY, |_| true), Some("b2"));
    }

    #[test]
    fn a_large_request_is_not_passed_by_small_ones() {
        let mut queue = FairQueue::new(true);
        push(&mut queue, "a1");
        push(&mut queue, "b1");
        assert_eq!(queue.take(PLENTY, |request| *request == "b1"), None);
    }

    /// Takes and finishes until nobody may begin, and says who runs.
    fn fill(queue: &mut FairQueue<&'static str>, places: usize, running: &mut Vec<&'static str>) {
        while let Some(request) = queue.take(Room { places: places - running.len(), blocks: 1_000 }, |_| true)
        {
            running.push(request);
        }
    }

    #[test]
    fn floods_leave_places_for_newcomers() {
        let mut queue = FairQueue::new(true);
        let mut running = Vec::new();
        let count = |running: &[&str], tenant| running.iter().filter(|request| **request == tenant).count();
        for (tenant, expected) in [("a", 12), ("b", 3), ("c", 1)] {
            (0..20).for_each(|_| push(&mut queue, tenant));
            fill(&mut queue, 16, &mut running);
            assert_eq!(count(&running, tenant), expected, "{running:?}");
        }
        // One place that a flood gives back is there for the next newcomer, not for the flood.
        let place = running.iter().position(|request| *request == "a").unwrap();
        queue.finished(running.remove(place), 1);
        push(&mut queue, "d");
        fill(&mut queue, 16, &mut running);
        assert_eq!((count(&running, "a"), count(&running, "d")), (11, 1));
    }

    #[test]
    fn a_flood_leaves_blocks_for_newcomers() {
        let mut queue = FairQueue::new(true);
        let now = Instant::now();
        for tenant in ["a", "a", "a", "a", "a"] {
            queue.push(tenant, 20, tenant, now);
        }
        let mut free = 100;
        while queue.take(Room { places: 9, blocks: free }, |_| true).is_some() {
            free -= 20;
        }
        assert_eq!(free, 40, "60 of 100: 80 would leave less than a third of them");
        queue.push("b", 40, "b", now);
        assert_eq!(
            queue.take(Room { places: 9, blocks: free }, |_| true),
            Some("b"),
            "its first, however large"
        );
    }

    #[test]
    fn who_is_alone_for_certain_fills_every_place() {
        let mut queue = FairQueue::new(false);
        let mut running = Vec::new();
        (0..20).for_each(|_| push(&mut queue, "a"));
        while running.len() < 16 {
            let room = Room { places: 16 - running.len(), blocks: 16 - running.len() };
            running.push(queue.take(room, |_| true).unwrap());
        }
    }

    #[test]
    fn one_place_serves_one() {
        let mut queue = FairQueue::new(true);
        push(&mut queue, "a1");
        assert_eq!(queue.take(Room { places: 1, blocks: 1 }, |_| true), Some("a1"));
    }

    #[test]
    fn what_has_gone_is_removed() {
        let mut queue = FairQueue::new(true);
        push(&mut queue, "a1");
        push(&mut queue, "a2");
        assert_eq!(queue.remove(|request| *request == "a1"), ["a1"]);
        assert_eq!((queue.waiting(), queue.waiting_of("a")), (1, 1));
    }

    #[test]
    fn it_is_shared_while_another_tenant_was_there_of_late() {
        let mut queue = FairQueue::new(true);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        queue.push("a", 1, 0, start);
        assert!(!queue.is_shared(start));
        queue.push("b", 1, 0, at(1));
        for second in 2..60 {
            queue.push("a", 1, 0, at(second));
        }
        assert!(queue.is_shared(at(60)) && !queue.is_shared(at(62)));
    }
}
