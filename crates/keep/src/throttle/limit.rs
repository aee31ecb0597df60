//! A limit, and one use of it.

use tower_keep_core::CounterRule;

/// A limit: what is limited, and how.
///
/// Make it a constant. Its name is part of the key of each of its counters, so two limits of one
/// name share their counters. The numbers of a [`CounterRule`] are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub(super) name: &'static str,
    pub(super) rule: CounterRule,
}

impl Limit {
    /// Creates a limit with this name and this rule.
    pub const fn new(name: &'static str, rule: CounterRule) -> Self {
        Self { name, rule }
    }

    /// Returns the name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a use of this limit that is counted by `subject`, such as a user's id or an address
    /// of e-mail. Different subjects have counters of their own, byte for byte.
    pub fn of(&self, subject: impl AsRef<[u8]>) -> LimitUse {
        LimitUse { limit: *self, subject: Some(subject.as_ref().to_owned()) }
    }

    /// Returns a use that is not counted, and never refused.
    pub(crate) fn of_nothing(&self) -> LimitUse {
        LimitUse { limit: *self, subject: None }
    }
}

/// One use of a [`Limit`], by one subject. Created by [`Limit::of`].
#[derive(Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub(super) limit: Limit,
    /// What the use is counted by; `None` if it is not counted.
    pub(super) subject: Option<Vec<u8>>,
}

/// Does not show the subject.
impl std::fmt::Debug for LimitUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitUse").field("limit", &self.limit).finish_non_exhaustive()
    }
}
