//! The requirement of a guard: a pure check of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::reason::Rejection;
use crate::login::handle::is_recent;
use crate::login::state::Identity;

/// The requirement of a guard.
///
/// [`check`](Self::check) takes the time as a function, because most requirements don't need the
/// time.
pub(crate) enum Requirement<U> {
    LoggedIn,
    /// The user has logged in or confirmed the login in this session, at most this long ago.
    Fresh {
        within: Option<Duration>,
    },
    User(Arc<dyn Fn(&U) -> bool + Send + Sync>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl<U> Requirement<U> {
    pub(crate) fn check(
        &self,
        identity: &Identity<U>,
        now: &dyn Fn() -> u32,
    ) -> Result<(), Rejection> {
        let user = || identity.user().ok_or(Rejection::Unauthenticated);
        match self {
            Self::LoggedIn => user().map(|_| ()),
            Self::Fresh { within } => {
                user()?;
                let since = identity.fresh_since().ok_or(Rejection::NotFresh)?;
                let is_fresh = within.is_none_or(|age| is_recent(since, now(), age));
                if is_fresh { Ok(()) } else { Err(Rejection::NotFresh) }
            }
            Self::User(test) => {
                if test(user()?) {
                    Ok(())
                } else {
                    Err(Rejection::Forbidden)
                }
            }
            Self::All(all) => {
                let rejections = all.iter().filter_map(|each| each.check(identity, now).err());
                rejections.max_by_key(|rejection| rejection.rank_in_all()).map_or(Ok(()), Err)
            }
            Self::Any(any) => {
                let rejection_by = |each: &Self| each.check(identity, now).err();
                if any.iter().any(|each| rejection_by(each).is_none()) {
                    return Ok(());
                }
                let rejections = any.iter().filter_map(rejection_by);
                Err(rejections
                    .min_by_key(|rejection| rejection.rank_in_any())
                    .unwrap_or(Rejection::Forbidden))
            }
            Self::Not(other) => match other.check(identity, now) {
                Ok(()) => Err(Rejection::Forbidden),
                Err(_) => Ok(()),
            },
        }
    }
}

impl<U> Clone for Requirement<U> {
    fn clone(&self) -> Self {
        match self {
            Self::LoggedIn => Self::LoggedIn,
            Self::Fresh { within } => Self::Fresh { within: *within },
            Self::User(test) => Self::User(Arc::clone(test)),
            Self::All(all) => Self::All(all.clone()),
            Self::Any(any) => Self::Any(any.clone()),
            Self::Not(other) => Self::Not(other.clone()),
        }
    }
}

impl<U> fmt::Debug for Requirement<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedIn => f.write_str("LoggedIn"),
            Self::Fresh { within } => f.debug_struct("Fresh").field("within", within).finish(),
            Self::User(_) => f.write_str("User(…)"),
            Self::All(all) => f.debug_tuple("All").field(all).finish(),
            Self::Any(any) => f.debug_tuple("Any").field(any).finish(),
            Self::Not(other) => f.debug_tuple("Not").field(other).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Rejection::{Forbidden, NotFresh, Unauthenticated};

    const NOW: u32 = 1_000;

    fn session(
        name: &'static str,
        fresh_since: impl Into<Option<u32>>,
        is_active: bool,
    ) -> Identity<&'static str> {
        Identity::Session { user: Arc::new(name), fresh_since: fresh_since.into(), is_active }
    }

    #[test]
    fn each_guard_passes_only_identities_that_meet_its_requirement() {
        use Requirement::{All, Any, Fresh, LoggedIn, Not, User};
        let admin = || User(Arc::new(|user: &&str| *user == "admin"));
        let recent = || Fresh { within: Some(Duration::from_secs(10)) };
        let fresh = || Fresh { within: None };
        let guards = [
            LoggedIn,
            fresh(),
            recent(),
            admin(),
            All(vec![admin(), fresh()]),
            Any(vec![admin(), fresh()]),
            Not(Box::new(LoggedIn)),
            Any(vec![Not(Box::new(LoggedIn)), admin()]),
        ];
        let (no, stale, forbidden) = (Err(Unauthenticated), Err(NotFresh), Err(Forbidden));
        let loader = Identity::Loader { user: Arc::new("admin") };
        #[rustfmt::skip]
        let table = [
            ("nobody", Identity::Anonymous, [no, no, no, no, no, no, Ok(()), Ok(())]),
            ("forced, inactive", session("admin", 990, false),
                [no, no, no, no, no, no, Ok(()), Ok(())]),
            ("restored user", session("user", None, true),
                [Ok(()), stale, stale, forbidden, forbidden, stale, forbidden, forbidden]),
            ("restored admin", session("admin", None, true),
                [Ok(()), stale, stale, Ok(()), stale, Ok(()), forbidden, Ok(())]),
            ("fresh long ago", session("user", 989, true),
                [Ok(()), Ok(()), stale, forbidden, forbidden, Ok(()), forbidden, forbidden]),
            ("fresh lately", session("user", 990, true),
                [Ok(()), Ok(()), Ok(()), forbidden, forbidden, Ok(()), forbidden, forbidden]),
            ("fresh in the future", session("user", 2_000, true),
                [Ok(()), Ok(()), Ok(()), forbidden, forbidden, Ok(()), forbidden, forbidden]),
            ("found by a loader", loader,
                [Ok(()), stale, stale, Ok(()), stale, Ok(()), forbidden, Ok(())]),
        ];
        for (name, identity, expected) in table {
            for (guard, expected) in guards.iter().zip(expected) {
                assert_eq!(guard.check(&identity, &|| NOW), expected, "{name} at {guard:?}");
            }
        }
    }
}
