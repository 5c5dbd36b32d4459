//! Data that all workers of this process share: the counterpart of what Envoy has for its VMs. It stays
//! when configurations are replaced.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

type Shared = HashMap<Box<str>, Box<[u8]>>;

static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

/// A change is made at once or not at all, so whoever panicked has left nothing half done.
fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of `key`.
pub fn read(key: &str) -> Option<Vec<u8>> {
    shared().get(key).map(|value| value.to_vec())
}

/// Changes `key`: `change` sees the present value (`None` if absent) and returns the next one, or `None` to
/// leave it as it is; an empty one removes it. Returns what `change` returned beside the value.
pub fn update<T>(
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<Vec<u8>>, T),
) -> Option<T> {
    let mut shared = shared();
    let present = shared.get_mut(key);
    let (next, result) = change(present.as_deref().map(|value| &**value));
    match (next, present) {
        (None, _) => {}
        (Some(next), _) if next.is_empty() => {
            shared.remove(key);
        }
        (Some(next), Some(present)) if present.len() == next.len() => {
            present.copy_from_slice(&next)
        }
        (Some(next), Some(present)) => *present = next.into(),
        (Some(next), None) => {
            shared.insert(key.into(), next.into());
        }
    }
    Some(result)
}

/// Removes `key`.
pub fn clear(key: &str) {
    shared().remove(key);
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
        update(key, |_| (Some(Vec::new()), ()));
        assert_eq!(read(key), None);
        update(key, |_| (Some(vec![4]), ()));
        clear(key);
        assert_eq!(read(key), None);
    }
}
