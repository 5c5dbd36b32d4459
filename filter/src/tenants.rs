//! The tenants that one worker knows, and the strangers it turned away lately. Both are bounded.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use weir_domain::id::{self, TenantId};

use self::entries::Entries;
use crate::tenant::Tenant;

mod entries;

pub use self::entries::Index;

/// The most strangers that are remembered; past that all are forgotten.
const MAX_STRANGERS: usize = 1_024;
/// How long a stranger is turned away without asking, in ns. A tenant that is created meanwhile is
/// pushed by the control plane.
const STRANGER_NS: u64 = 5_000_000_000;
/// The most tenants that wait to be known at once.
const MAX_UNPROVEN: usize = 1_000;

#[derive(Debug, Default)]
pub struct Tenants {
    /// By credential; for now that is the tenant's id, which stands in its entry.
    by_credential: HashTable<Index>,
    hasher: DefaultHashBuilder,
    entries: Entries,
    strangers: HashMap<Vec<u8>, u64>,
    /// Tenants that no answer has confirmed yet.
    unproven: usize,
}

/// What is known of a credential.
pub enum Known {
    Tenant(Index),
    Stranger,
    /// Too many credentials are being looked up at this moment.
    Overloaded,
}

impl Tenants {
    /// The tenant of `credential`; one that was never seen gets an entry, to be confirmed or removed
    /// by the control plane's answer.
    #[inline]
    pub fn find(&mut self, credential: &[u8], now_ns: u64) -> Known {
        match self.index_by(credential) {
            Some(index) => Known::Tenant(index),
            None => self.look_up(credential, now_ns),
        }
    }

    /// The tenant with this credential, if this worker knows it.
    pub fn index_of_credential(&self, credential: &[u8]) -> Option<Index> {
        self.index_by(credential)
    }

    #[inline]
    fn index_by(&self, credential: &[u8]) -> Option<Index> {
        let is_it = |index: &Index| is_of(&self.entries, *index, credential);
        self.by_credential.find(self.hasher.hash_one(credential), is_it).copied()
    }

    #[inline(never)]
    fn look_up(&mut self, credential: &[u8], now_ns: u64) -> Known {
        match self.strangers.get(credential) {
            Some(until_ns) if now_ns < *until_ns => return Known::Stranger,
            Some(_) => {
                self.strangers.remove(credential);
            }
            None => {}
        }
        let Some(id) = std::str::from_utf8(credential)
            .ok()
            .filter(|text| id::check(text).is_ok())
            .and_then(|text| TenantId::new(text).ok())
        else {
            return Known::Stranger;
        };
        if self.unproven >= MAX_UNPROVEN {
            return Known::Overloaded;
        }
        Known::Tenant(self.add(id))
    }

    /// Adds a tenant, to be proven or removed.
    pub fn add(&mut self, id: TenantId) -> Index {
        self.unproven += 1;
        let hash = self.hasher.hash_one(id.as_str().as_bytes());
        let index = self.entries.insert(Tenant::new(id));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_credential.insert_unique(hash, index, |other| {
            let tenant = entries.get(*other);
            hasher.hash_one(tenant.map_or(&b""[..], |tenant| tenant.id.as_str().as_bytes()))
        });
        index
    }

    #[inline]
    pub fn get_mut(&mut self, index: Index) -> Option<&mut Tenant> {
        self.entries.get_mut(index)
    }

    /// The tenant with this id, if this worker knows it.
    pub fn index_of(&self, id: &TenantId) -> Option<Index> {
        self.index_by(id.as_str().as_bytes())
    }

    /// The control plane has said that this tenant exists.
    pub fn prove(&mut self, index: Index) {
        if let Some(tenant) = self.entries.get_mut(index)
            && !tenant.proven
        {
            tenant.proven = true;
            self.unproven = self.unproven.saturating_sub(1);
        }
    }

    /// Forgets a tenant.
    pub fn remove(&mut self, index: Index) {
        let Some(tenant) = self.entries.remove(index) else {
            return;
        };
        let hash = self.hasher.hash_one(tenant.id.as_str().as_bytes());
        if let Ok(known) = self.by_credential.find_entry(hash, |other| *other == index) {
            known.remove();
        }
        if !tenant.proven {
            self.unproven = self.unproven.saturating_sub(1);
        }
    }

    /// Remembers that there is no such tenant.
    pub fn add_stranger(&mut self, id: &TenantId, now_ns: u64) {
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.clear();
        }
        self.strangers.insert(id.as_str().as_bytes().to_vec(), now_ns + STRANGER_NS);
    }

    /// Forgets that there was no such tenant.
    pub fn forget_stranger(&mut self, id: &TenantId) {
        self.strangers.remove(id.as_str().as_bytes());
    }

    pub fn forget_strangers(&mut self) {
        self.strangers.clear();
    }

    /// All indexes in use.
    pub fn indexes(&self) -> Vec<Index> {
        self.by_credential.iter().copied().collect()
    }
}

#[inline]
fn is_of(entries: &Entries, index: Index, credential: &[u8]) -> bool {
    entries.get(index).is_some_and(|tenant| tenant.id.as_str().as_bytes() == credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_stays_bounded() {
        let mut tenants = Tenants::default();
        for n in 0..100_000 {
            if let Known::Tenant(index) = tenants.find(format!("s{n}").as_bytes(), 0) {
                let id = tenants.get_mut(index).unwrap().id.clone();
                tenants.remove(index);
                tenants.add_stranger(&id, 0);
            }
        }
        assert!(tenants.strangers.len() <= MAX_STRANGERS);
        assert_eq!(tenants.entries.places(), 1);
        assert_eq!(tenants.by_credential.len(), 0);
    }

    #[test]
    fn what_cannot_be_an_id_is_a_stranger_at_once() {
        let mut tenants = Tenants::default();
        for credential in [&b""[..], b"a b", b"\xff\xfe", &[b'a'; 65]] {
            assert!(matches!(tenants.find(credential, 0), Known::Stranger));
        }
    }

    #[test]
    fn a_stranger_is_asked_for_again_later() {
        let mut tenants = Tenants::default();
        tenants.add_stranger(&TenantId::new("new").unwrap(), 0);
        assert!(matches!(tenants.find(b"new", 1), Known::Stranger));
        assert!(matches!(tenants.find(b"new", STRANGER_NS), Known::Tenant(_)));
    }
}
