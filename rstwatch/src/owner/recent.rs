//! A bounded memory that keeps what was used of late.

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::RandomState;

/// Values by key. When as many have come as one generation holds, it becomes the older one, and
/// what that held is forgotten unless it was used since: so what is in use stays, for the price of
/// one lookup, and no more than two generations are kept.
#[derive(Clone, Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    generation: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Empty; `generation` values make a generation.
    pub fn new(generation: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            generation,
        }
    }

    /// The value of `key`.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let mut recent = Recent::new(10);
        recent.insert(0, "in use");
        for key in 1..1_000 {
            recent.insert(key, "passing");
            assert_eq!(recent.get(&0), Some("in use"));
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert_eq!(recent.get(&999), Some("passing"));
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_one_before() {
        let mut recent = Recent::new(1);
        recent.insert(1, "a");
        recent.insert(2, "b");
        recent.insert(1, "c");
        assert_eq!(recent.get(&1), Some("c"));
        recent.insert(1, "d");
        assert_eq!(recent.get(&1), Some("d"));
    }
}
