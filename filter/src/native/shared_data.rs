//! Data that all workers of this process share: the counterpart of what Envoy has for its VMs. It stays
//! when configurations are replaced.

use std::{
    hash::BuildHasher,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use hashbrown::{
    DefaultHashBuilder, HashTable,
    hash_table::{AbsentEntry, OccupiedEntry},
};

#[derive(Default)]
struct Shared {
    entries: HashTable<Entry>,
    hasher: DefaultHashBuilder,
}

/// A key and its value. There are as many of these as tenants, so both are one piece of memory: the length
/// of the key in one byte, the key, and the value.
struct Entry(Box<[u8]>);

static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

/// A change is made at once or not at all, so whoever panicked has left nothing half done.
fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// `None` where the key is longer than 255 bytes; none of the filter's is.
    fn new(key: &str, value: &[u8]) -> Option<Self> {
        let length = u8::try_from(key.len()).ok()?;
        Some(Self([&[length], key.as_bytes(), value].concat().into()))
    }

    fn key_and_value(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self.0.split_first().unwrap_or((&0, &[]));
        rest.split_at_checked(usize::from(*length)).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.key_and_value().1
    }

    /// Puts `value` in the place of the present one.
    fn set(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let start = 1 + key.len();
        match self.0.get_mut(start..) {
            Some(present) if present.len() == value.len() => present.copy_from_slice(value),
            _ => *self = Self::new(key, value)?,
        }
        Some(())
    }
}

impl Shared {
    fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }

    fn find(&mut self, key: &str) -> Result<OccupiedEntry<'_, Entry>, AbsentEntry<'_, Entry>> {
        let hash = self.hash(key);
        self.entries.find_entry(hash, |entry| entry.key_and_value().0 == key.as_bytes())
    }

    fn insert(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let (hash, entry) = (self.hash(key), Entry::new(key, value)?);
        let rehash = |entry: &Entry| self.hasher.hash_one(entry.key_and_value().0);
        self.entries.insert_unique(hash, entry, rehash);
        Some(())
    }
}

/// The value of `key`.
pub fn read(key: &str) -> Option<Vec<u8>> {
    shared().find(key).ok().map(|found| found.get().value().to_vec())
}

/// Changes `key`: `change` sees the present value (`None` if absent) and returns the next one, or `None` to
/// leave it as it is; an empty one removes it. Returns what `change` returned beside the value.
pub fn update<T>(
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<Vec<u8>>, T),
) -> Option<T> {
    let mut shared = shared();
    let Ok(mut found) = shared.find(key) else {
        let (next, result) = change(None);
        if let Some(next) = next.filter(|next| !next.is_empty()) {
            shared.insert(key, &next)?;
        }
        return Some(result);
    };
    let (next, result) = change(Some(found.get().value()));
    match next {
        None => {}
        Some(next) if next.is_empty() => drop(found.remove()),
        Some(next) => found.get_mut().set(key, &next)?,
    }
    Some(result)
}

/// Removes `key`.
pub fn clear(key: &str) {
    if let Ok(found) = shared().find(key) {
        found.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_changed_left_and_removed() {
        let key = "weir/1/test";
        assert_eq!(update(key, |value| (Some(vec![1]), value.is_none())), Some(true));
        assert_eq!(update(key, |value| (None, value.map(<[u8]>::to_vec))), Some(Some(vec![1])));
        update(key, |_| (Some(vec![2, 3]), ()));
        assert_eq!(read(key), Some(vec![2, 3]));
        update(key, |_| (Some(vec![4, 5]), ()));
        assert_eq!(read(key), Some(vec![4, 5]));
        update(key, |_| (Some(Vec::new()), ()));
        assert_eq!(read(key), None);
        update(key, |_| (Some(vec![4]), ()));
        clear(key);
        assert_eq!(read(key), None);
    }

    #[test]
    fn keys_stay_apart_whatever_the_values() {
        let keys: Vec<String> = (0..1_000).map(|n| format!("weir/1/apart/{n}")).collect();
        for key in &keys {
            update(key, |_| (Some(key.clone().into_bytes()), ()));
        }
        assert!(keys.iter().all(|key| read(key).as_deref() == Some(key.as_bytes())));
        let too_long = "k".repeat(256);
        assert_eq!(update(&too_long, |_| (Some(vec![1]), ())), None);
        assert_eq!(read(&too_long), None);
        keys.iter().for_each(|key| clear(key));
    }
}
