//! Short texts that are put together from pieces, in place.

/// The first `N` bytes of a text. `Copy`, so it holds no memory elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
    cut: bool,
}

impl<const N: usize> Short<N> {
    pub(super) const EMPTY: Self = Self { bytes: [0; N], len: 0, cut: false };

    pub(super) fn push(&mut self, piece: &[u8]) {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        let fits = piece.len().min(free.len());
        for (to, from) in free.iter_mut().zip(piece) {
            *to = *from;
        }
        self.len += fits;
        self.cut |= fits < piece.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The text, unless it was longer than `N` bytes.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        if self.cut { None } else { self.bytes.get(..self.len) }
    }

    /// The text as a string, unless it was longer than `N` bytes, is empty or is not UTF-8.
    pub(super) fn to_text(self) -> Option<String> {
        let text = str::from_utf8(self.whole()?).ok()?;
        (!text.is_empty()).then(|| text.to_owned())
    }
}
