//! Which of the keys has sealed a cookie.

/// The key that a cookie was sealed under. The current key is the first, followed by the previous
/// keys and by the next keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySlot {
    pub(crate) index: usize,
    is_previous: bool,
}

impl KeySlot {
    pub(crate) const CURRENT: Self = Self { index: 0, is_previous: false };

    /// Returns the slot of the key at this index.
    pub(crate) fn new(index: usize, previous_count: usize) -> Self {
        Self { index, is_previous: (1..=previous_count).contains(&index) }
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::CURRENT
    }

    /// Checks whether this is a previous key, so that its cookies are reissued under the current
    /// key. The cookies of a next key are not reissued: in a rolling deployment other nodes already
    /// make such cookies, and would reissue the cookies of this node in turn.
    pub(crate) fn is_previous(self) -> bool {
        self.is_previous
    }
}
