//! Who holds which block of the cache, and which blocks are kept because a later prompt may begin like them.
//!
//! A block is free, private to one sequence, or kept: complete, with known tokens, readable by any sequence of the same
//! tenant and adapter whose text begins with the tokens of this block and of all before it. Kept blocks form a tree;
//! one that no sequence reads stays until its place is needed, the longest unused first. The keys hold the tokens
//! themselves, so no collision of hashes can ever hand out a foreign block, and they begin with the tenant, so nobody can
//! measure what another tenant has asked.

use std::collections::{BTreeSet, HashMap};

/// Whose blocks may serve whom: the same tenant with the same adapter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub tenant: String,
    pub adapter: Option<usize>,
}

/// What a kept block follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Parent {
    Beginning(Scope),
    Block(u32),
}

type Key = (Parent, Box<[u32]>);

/// A kept block.
struct Kept {
    key: Key,
    /// Running sequences that read it.
    users: usize,
    /// Kept blocks that follow it.
    children: usize,
    last_used: u64,
}

/// All blocks of one cache.
pub struct Blocks {
    /// Positions in one block.
    positions: usize,
    /// Whether blocks are kept at all.
    keeping: bool,
    free: Vec<u32>,
    /// By block.
    kept: Vec<Option<Kept>>,
    by_key: HashMap<Key, u32>,
    /// Kept blocks without users and children, by their last use: those that may go.
    idle: BTreeSet<(u64, u32)>,
    /// Kept blocks without users.
    unused: usize,
    clock: u64,
}

impl Blocks {
    pub fn new(blocks: usize, positions: usize, keeping: bool) -> Blocks {
        Blocks {
            positions,
            keeping,
            free: (0..blocks as u32).rev().collect(),
            kept: std::iter::repeat_with(|| None).take(blocks).collect(),
            by_key: HashMap::new(),
            idle: BTreeSet::new(),
            unused: 0,
            clock: 0,
        }
    }

    /// Kept blocks that hold the beginning of a text, in order. The last of `tokens` is never among them: its row must be
    /// computed in any case, for what follows it.
    pub fn find(&self, scope: &Scope, tokens: &[u32]) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        if !self.keeping || tokens.is_empty() {
            return found;
        }
        for part in tokens[..tokens.len() - 1].chunks_exact(self.positions) {
            let parent = parent(scope, found.last().copied());
            let Some(&block) = self.by_key.get(&(parent, part.into())) else { break };
            found.push(block);
        }
        found
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// How many are read or written by requests now.
    pub fn held(&self) -> usize {
        self.kept.len() - self.free.len() - self.unused
    }

    /// Whether `count` more private blocks could be had beside `found`, were these held.
    pub fn has_room(&self, found: &[u32], count: usize) -> bool {
        let held_anew = found.iter().filter(|&&block| self.users(block) == 0).count();
        count + held_anew <= self.available()
    }

    /// Blocks that could be had as private ones now.
    pub fn available(&self) -> usize {
        self.free.len() + self.unused
    }

    /// Reads kept blocks from now on.
    pub fn hold(&mut self, blocks: &[u32]) {
        for &block in blocks {
            let Some(kept) = &mut self.kept[block as usize] else { continue };
            if kept.users == 0 {
                self.unused -= 1;
                self.idle.remove(&(kept.last_used, block));
            }
            kept.users += 1;
        }
    }

    /// Takes private blocks; kept ones that nobody reads give way. `None`, and nothing taken, if there are too few.
    pub fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if !self.has_room(&[], count) {
            return None;
        }
        while self.free.len() < count {
            let (_, block) = self.idle.pop_first()?;
            self.forget(block);
        }
        Some(self.free.split_off(self.free.len() - count))
    }

    /// A private block is complete. It is kept, with one user, or, if an equal one is kept already, that one is held and
    /// the private one is free again. Returns the block to read from now on; `None` if nothing is kept.
    pub fn keep(&mut self, scope: &Scope, before: Option<u32>, tokens: &[u32], block: u32) -> Option<u32> {
        if !self.keeping {
            return None;
        }
        let key: Key = (parent(scope, before), tokens.into());
        if let Some(&equal) = self.by_key.get(&key) {
            self.hold(&[equal]);
            self.free.push(block);
            return Some(equal);
        }
        if let Some(before) = before.and_then(|before| self.kept[before as usize].as_mut()) {
            before.children += 1;
        }
        self.by_key.insert(key.clone(), block);
        self.kept[block as usize] = Some(Kept { key, users: 1, children: 0, last_used: 0 });
        Some(block)
    }

    /// A sequence leaves its kept blocks.
    pub fn leave(&mut self, blocks: &[u32]) {
        self.clock += 1;
        for &block in blocks {
            let Some(kept) = &mut self.kept[block as usize] else { continue };
            kept.users -= 1;
            kept.last_used = self.clock;
            if kept.users == 0 {
                self.unused += 1;
                if kept.children == 0 {
                    self.idle.insert((self.clock, block));
                }
            }
        }
    }

    /// Private blocks are free again.
    pub fn give_back(&mut self, blocks: &[u32]) {
        self.free.extend(blocks);
    }

    fn users(&self, block: u32) -> usize {
        self.kept[block as usize].as_ref().map_or(0, |kept| kept.users)
    }

    /// Frees a kept block that has neither users nor children.
    fn forget(&mut self, block: u32) {
        let Some(kept) = self.kept[block as usize].take() else { return };
        self.unused -= 1;
        self.by_key.remove(&kept.key);
        self.free.push(block);
        if let Parent::Block(before) = kept.key.0
            && let Some(parent) = &mut self.kept[before as usize]
        {
            parent.children -= 1;
            if parent.children == 0 && parent.users == 0 {
                self.idle.insert((parent.last_used, before));
            }
        }
    }
}

fn parent(scope: &Scope, before: Option<u32>) -> Parent {
    before.map_or_else(|| Parent::Beginning(scope.clone()), Parent::Block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(tenant: &str) -> Scope {
        Scope { tenant: tenant.to_string(), adapter: None }
    }

    /// Runs a text of whole blocks of 2 positions through the cache, as a sequence would, and lets go of it.
    fn run(blocks: &mut Blocks, tenant: &str, tokens: &[u32]) -> usize {
        let scope = scope(tenant);
        let mut held = blocks.find(&scope, tokens);
        let found = held.len();
        blocks.hold(&held);
        let private = blocks.take(tokens.len() / 2 - found).unwrap();
        for (number, block) in private.into_iter().enumerate() {
            let part = &tokens[(found + number) * 2..][..2];
            held.push(blocks.keep(&scope, held.last().copied(), part, block).unwrap());
        }
        blocks.leave(&held);
        found
    }

    #[test]
    fn a_text_that_begins_alike_finds_its_blocks() {
        let mut blocks = Blocks::new(8, 2, true);
        assert_eq!(run(&mut blocks, "a", &[1, 2, 3, 4]), 0);
        assert_eq!(run(&mut blocks, "a", &[1, 2, 3, 4]), 1, "the last token's row is computed again");
        assert_eq!(run(&mut blocks, "a", &[1, 2, 3, 4, 5, 6]), 2);
        assert_eq!(run(&mut blocks, "a", &[9, 2, 3, 4]), 0);
        assert_eq!(run(&mut blocks, "b", &[1, 2, 3, 4]), 0, "another tenant finds nothing");
        let adapted = Scope { adapter: Some(0), ..scope("a") };
        assert_eq!(blocks.find(&adapted, &[1, 2, 3, 4]), [] as [u32; 0]);
    }

    #[test]
    fn the_longest_unused_goes_first_and_leaves_before_their_parents() {
        let mut blocks = Blocks::new(4, 2, true);
        run(&mut blocks, "a", &[1, 1, 2, 2]);
        run(&mut blocks, "a", &[3, 3, 4, 4]);
        run(&mut blocks, "a", &[1, 1, 2, 2, 9, 9]);
        let find = |blocks: &Blocks, tokens: &[u32]| blocks.find(&scope("a"), tokens).len();
        assert_eq!(find(&blocks, &[3, 3, 4, 4, 0]), 1, "the end of the older text made room");
        assert_eq!(find(&blocks, &[1, 1, 2, 2, 9, 9, 0]), 3);
        let all = blocks.take(4).unwrap();
        assert_eq!(find(&blocks, &[1, 1, 2, 2, 9, 9, 0]), 0);
        assert_eq!(blocks.take(1), None);
        blocks.give_back(&all);
        assert!(blocks.has_room(&[], 4));
    }

    #[test]
    fn what_is_read_stays() {
        let mut blocks = Blocks::new(3, 2, true);
        run(&mut blocks, "a", &[1, 1, 2, 2]);
        let held = blocks.find(&scope("a"), &[1, 1, 2, 2, 3]);
        assert!(blocks.has_room(&held, 1) && !blocks.has_room(&held, 2));
        blocks.hold(&held);
        assert_eq!(blocks.take(2), None);
        blocks.leave(&held);
        assert_eq!(blocks.take(3).map(|blocks| blocks.len()), Some(3));
    }

    #[test]
    fn of_two_equal_blocks_one_is_kept() {
        let mut blocks = Blocks::new(2, 2, true);
        let private = blocks.take(2).unwrap();
        let first = blocks.keep(&scope("a"), None, &[1, 1], private[0]).unwrap();
        let second = blocks.keep(&scope("a"), None, &[1, 1], private[1]).unwrap();
        assert_eq!(first, second);
        assert!(blocks.has_room(&[], 1), "the other one is free");
    }

    #[test]
    fn random_use_loses_no_block() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let mut blocks = Blocks::new(12, 2, true);
        let mut running: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        for _ in 0..5_000 {
            if random(2) == 0 || running.is_empty() {
                let tokens: Vec<u32> = (0..2 * (1 + random(4))).map(|_| random(2) as u32).collect();
                let scope = scope(["a", "b"][random(2)]);
                let mut held = blocks.find(&scope, &tokens);
                let missing = tokens.len() / 2 - held.len();
                if !blocks.has_room(&held, missing) {
                    continue;
                }
                blocks.hold(&held);
                let mut private = blocks.take(missing).unwrap();
                for _ in 0..random(missing + 1) {
                    let part = &tokens[held.len() * 2..][..2];
                    let block = private.remove(0);
                    held.push(blocks.keep(&scope, held.last().copied(), part, block).unwrap());
                }
                running.push((held, private));
            } else {
                let (held, private) = running.swap_remove(random(running.len()));
                blocks.leave(&held);
                blocks.give_back(&private);
            }
        }
        for (held, private) in running {
            blocks.leave(&held);
            blocks.give_back(&private);
        }
        assert_eq!(blocks.take(12).map(|all| all.into_iter().collect::<BTreeSet<_>>().len()), Some(12));
    }
}
