//! Where tenants stand.

use crate::tenant::Tenant;

/// Where a tenant stands in [`Entries`].
pub type Index = u32;

/// So many stand in one piece.
const PIECE: usize = 1_024;

/// In pieces, so that none moves when they become more, and no room is left behind where they stood.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pieces: Vec<Vec<Option<Tenant>>>,
    free: Vec<Index>,
}

impl Entries {
    #[inline]
    fn place(&self, index: Index) -> Option<&Option<Tenant>> {
        self.pieces.get(index as usize / PIECE)?.get(index as usize % PIECE)
    }

    #[inline]
    fn place_mut(&mut self, index: Index) -> Option<&mut Option<Tenant>> {
        self.pieces.get_mut(index as usize / PIECE)?.get_mut(index as usize % PIECE)
    }

    #[inline]
    pub(super) fn get(&self, index: Index) -> Option<&Tenant> {
        self.place(index)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut Tenant> {
        self.place_mut(index)?.as_mut()
    }

    pub(super) fn insert(&mut self, tenant: Tenant) -> Index {
        let index = self.free.pop().unwrap_or_else(|| self.extend());
        if let Some(place) = self.place_mut(index) {
            *place = Some(tenant);
        }
        index
    }

    pub(super) fn remove(&mut self, index: Index) -> Option<Tenant> {
        let tenant = self.place_mut(index)?.take()?;
        self.free.push(index);
        Some(tenant)
    }

    /// One more place.
    fn extend(&mut self) -> Index {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let before = (self.pieces.len() - 1) * PIECE;
        let piece = self.pieces.last_mut().map_or(0, |piece| {
            piece.push(None);
            piece.len() - 1
        });
        Index::try_from(before + piece).unwrap_or(Index::MAX)
    }

    /// How many places there are, free ones too.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use weir_domain::id::TenantId;

    use super::*;

    #[test]
    fn each_stands_where_it_was_put_until_it_is_removed() {
        let mut entries = Entries::default();
        let tenant = |number: usize| Tenant::new(TenantId::new(format!("t{number}")).unwrap());
        let count = 3 * PIECE + 1;
        let indexes: Vec<Index> = (0..count).map(|number| entries.insert(tenant(number))).collect();
        for (number, index) in indexes.iter().enumerate() {
            assert_eq!(entries.get(*index).unwrap().id.as_str(), format!("t{number}"));
        }
        let removed = indexes[PIECE];
        assert_eq!(entries.remove(removed).unwrap().id.as_str(), format!("t{PIECE}"));
        assert!(entries.get(removed).is_none() && entries.remove(removed).is_none());
        assert_eq!(entries.insert(tenant(0)), removed);
        assert_eq!(entries.places(), count);
        assert!(entries.get(Index::MAX).is_none());
    }
}
