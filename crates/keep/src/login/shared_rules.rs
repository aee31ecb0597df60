//! What the rules decide in the same way for logins with and without server-side sessions.
//!
//! The rules decide which user is logged in, from the cookies that a request sent. They do no I/O,
//! and use neither a clock nor a type of `http`.
//!
//! `Rules` is a state machine that borrows the cookies. `Rules::start` returns the first `Step`.
//! The caller carries the step out and passes the result to `Rules`, which returns the next step.
//! If a step fails, the caller drops the `Rules`, and nothing that the rules had decided takes
//! effect.

use super::policy::Policy;
use crate::client::SessionProtection;
use crate::cookie::login_origin::{LoginOrigin, Proofs};

/// What the rules need to know about a user who was loaded. A cookie's security stamp matches if
/// the user still has the stamp that the cookie was issued with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserFacts {
    pub(crate) is_active: bool,
    pub(crate) session_stamp_matches: bool,
    pub(crate) remember_stamp_matches: bool,
}

/// Whether the cookies log in a user.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum LoggedIn {
    #[default]
    Nobody,
    /// The user who was loaded last.
    User {
        /// When the user last proved who they are; `None` if the login is not fresh.
        fresh_since: Option<u32>,
        /// `false` for an inactive user whose login was forced.
        is_active: bool,
    },
}

/// Returns the origin of a login for cookies that are issued now. If the user of a forced login has
/// become active, the login is no longer forced, so it ends if the user becomes inactive again.
pub(crate) fn current_origin(login_origin: LoginOrigin, facts: UserFacts) -> LoginOrigin {
    LoginOrigin { is_forced: login_origin.is_forced && !facts.is_active, ..login_origin }
}

/// What happens to the session cookie. Its terms are of type `T`. `R` is what a restored session
/// begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum SessionChange<T, R> {
    #[default]
    Keep,
    Clear,
    /// Reissued for the same session, with these terms. If it does not keep its proofs, the login
    /// is no longer fresh.
    Reissue {
        terms: T,
        keeps_proofs: bool,
    },
    /// Issued for a login that the remember cookie has restored.
    Restore(R),
}

/// What session protection decides about the client that sent a session cookie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClientCheck {
    /// Whether another client sent the request. The login is then no longer fresh.
    pub(crate) is_other: bool,
    /// Whether the session ends for that reason.
    pub(crate) ends_session: bool,
}

/// Decides what session protection does. `is_same_client` says whether the session was issued
/// to the client that sent the request.
pub(crate) fn check_client(policy: &Policy, is_same_client: bool) -> ClientCheck {
    let is_other = !is_same_client && policy.protection != SessionProtection::None;
    let is_strict = policy.protection == SessionProtection::Strong && !policy.is_persistent;
    ClientCheck { is_other, ends_session: is_other && is_strict }
}

/// Whether the user of a cookie may be logged in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UserCheck {
    Passes(UserFacts),
    /// The user no longer exists.
    IsGone,
    /// The user has another security stamp than the cookie.
    HasNewStamp,
    /// The user is inactive, and the login was not forced.
    IsInactive,
}

/// Checks the user of a cookie. `stamp_matches` returns whether the stamp of this cookie matches.
pub(crate) fn check_user(
    user: Option<UserFacts>,
    stamp_matches: fn(&UserFacts) -> bool,
    login_origin: LoginOrigin,
) -> UserCheck {
    match user {
        None => UserCheck::IsGone,
        Some(facts) if !stamp_matches(&facts) => UserCheck::HasNewStamp,
        Some(facts) if !facts.is_active && !login_origin.is_forced => UserCheck::IsInactive,
        Some(facts) => UserCheck::Passes(facts),
    }
}

/// How the session of a valid session cookie goes on.
pub(crate) struct Continuation {
    pub(crate) logged_in: LoggedIn,
    pub(crate) login_origin: LoginOrigin,
    /// Whether the login stays fresh, if it was.
    pub(crate) keeps_proofs: bool,
    /// Whether the cookie must be reissued, because its origin or its proofs have changed.
    pub(crate) is_changed: bool,
}

/// Decides how the session of a cookie with these proofs and this origin goes on.
pub(crate) fn continue_session(
    proofs: &Proofs,
    sent_origin: LoginOrigin,
    facts: UserFacts,
    is_other_client: bool,
) -> Continuation {
    let keeps_proofs = !is_other_client;
    let login_origin = current_origin(sent_origin, facts);
    let fresh_since = proofs.newest().filter(|_| keeps_proofs);
    let loses_proofs = !keeps_proofs && !proofs.is_empty();
    Continuation {
        logged_in: LoggedIn::User { fresh_since, is_active: facts.is_active },
        login_origin,
        keeps_proofs,
        is_changed: loses_proofs || login_origin != sent_origin,
    }
}

/// Returns the login that a remember cookie restores. It is not fresh.
pub(crate) fn restored(facts: UserFacts) -> LoggedIn {
    LoggedIn::User { fresh_since: None, is_active: facts.is_active }
}
