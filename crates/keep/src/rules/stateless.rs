//! The rules for logins that only cookies hold.
//!
//! The first row that applies counts:
//!
//! | sent | condition | who is logged in | cookies |
//! | --- | --- | --- | --- |
//! | session | past its idle or absolute limit | try remember | clear session |
//! | session | another client, strong protection | no user; loaders are not asked | clear both |
//! | session | another client, basic protection | continue, no longer fresh | reissue session |
//! | session | user gone | try remember | clear session |
//! | session | security stamp changed | try remember | unchanged |
//! | session | user inactive, and the login was not forced | no user; loaders are not asked | clear both |
//! | session | otherwise | the user | reissue when due |
//! | remember | expired | ask the loaders | clear remember |
//! | remember | user gone | ask the loaders | clear remember |
//! | remember | security stamp changed | ask the loaders | unchanged |
//! | remember | user inactive, and the login was not forced | no user; loaders are not asked | clear both |
//! | remember | otherwise | the user, not fresh | new session |
//! | nothing | | ask the loaders | unchanged |
//!
//! A cookie without a valid seal counts as not sent. It is not cleared either: a late rejection
//! must not undo a login that another request has just made.

use tower_keep_core::UserId;

use super::{Facts, Policy, Who, origin_now};
use crate::client::SessionProtection;
use crate::cookie::{Opened, Origin, Remember, RememberTerms, Session, SessionTerms};

/// What a request sent. Only cookies with a valid seal are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Opened<Session>>,
    pub(crate) remember: Option<&'a Opened<Remember>>,
    /// Whether the session was made for this client.
    pub(crate) same_client: bool,
}

/// What the caller does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Look this user up, then call [`Rules::loaded`].
    Load(&'a UserId),
    /// The cookies identify no user: ask the request loaders, then finish.
    AskLoaders,
    /// Everything is decided.
    Done,
}

/// What happens to the session cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum SessionChange {
    #[default]
    Keep,
    Clear,
    /// Reissued for the same session, with these terms. Without proofs it is no longer fresh.
    Reissue {
        terms: SessionTerms,
        keeps_proofs: bool,
    },
    /// A new cookie, for a login that the remember cookie has restored.
    Restore(Origin),
}

/// What happens to the remember cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RememberChange {
    #[default]
    Keep,
    Clear,
    Reissue(RememberTerms),
}

/// What the rules have decided.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) who: Who,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// Whether the request sent a remember cookie of this user that is valid and has not expired.
    pub(crate) remembered: bool,
    /// Whether session protection has found another client.
    pub(crate) protected: bool,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    presented: Presented<'a>,
    at: At<'a>,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum At<'a> {
    Session(&'a Opened<Session>),
    Remember(&'a Opened<Remember>),
    End,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, presented: Presented<'a>) -> Self {
        Self { policy, presented, at: At::End, verdict: Verdict::default() }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.session else { return self.try_remember() };
        if self.policy.is_over(
            opened.cookie.terms.renewed,
            opened.cookie.terms.started,
            self.presented.now,
        ) {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        if !self.presented.same_client && self.policy.protection != SessionProtection::None {
            self.verdict.protected = true;
            if self.policy.protection == SessionProtection::Strong && !self.policy.persistent {
                return self.end_login();
            }
        }
        self.at = At::Session(opened);
        Step::Load(&opened.cookie.user)
    }

    /// Takes the result of [`Step::Load`]: `None` if there is no such user.
    pub(crate) fn loaded(&mut self, facts: Option<Facts>) -> Step<'a> {
        match self.at {
            At::Session(opened) => self.session_user(opened, facts),
            At::Remember(opened) => self.remembered_user(opened, facts),
            At::End => Step::Done,
        }
    }

    pub(crate) fn finish(self) -> Verdict {
        self.verdict
    }

    fn session_user(&mut self, opened: &'a Opened<Session>, facts: Option<Facts>) -> Step<'a> {
        let Some(facts) = facts else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if !facts.session_stamp_holds {
            return self.try_remember();
        }
        let terms = opened.cookie.terms;
        if !facts.active && !terms.origin.is_forced {
            return self.end_login();
        }
        let keeps_proofs = !self.verdict.protected;
        let origin = origin_now(terms.origin, facts);
        let age = self.presented.now.saturating_sub(terms.renewed);
        let is_due = self.policy.renewal.is_some_and(|after| age >= after);
        let loses_proofs = !keeps_proofs && !opened.cookie.proofs.is_empty();
        let is_changed = loses_proofs || origin != terms.origin;
        if is_due || is_changed || opened.slot.is_previous() {
            let renewed = if is_due { self.presented.now } else { terms.renewed };
            self.verdict.session = SessionChange::Reissue {
                terms: SessionTerms { origin, renewed, ..terms },
                keeps_proofs,
            };
        }
        self.verdict.who = Who::User {
            fresh_since: opened.cookie.proofs.newest().filter(|_| keeps_proofs),
            active: facts.active,
        };
        let same_user = |opened: &&Opened<Remember>| {
            self.presented.session.is_some_and(|session| session.cookie.user == opened.cookie.user)
        };
        if let Some(opened) = self.presented.remember.filter(same_user)
            && facts.remember_stamp_holds
            && !self.is_expired(opened)
        {
            self.keep_remember(opened, facts);
        }
        Step::Done
    }

    fn remembered_user(&mut self, opened: &'a Opened<Remember>, facts: Option<Facts>) -> Step<'a> {
        self.at = At::End;
        let Some(facts) = facts else {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        };
        if !facts.remember_stamp_holds {
            return Step::AskLoaders;
        }
        if !facts.active && !opened.cookie.terms.origin.is_forced {
            return self.end_login();
        }
        let origin = origin_now(opened.cookie.terms.origin, facts);
        self.verdict.who = Who::User { fresh_since: None, active: facts.active };
        self.verdict.session = SessionChange::Restore(origin);
        self.keep_remember(opened, facts);
        Step::Done
    }

    fn try_remember(&mut self) -> Step<'a> {
        self.at = At::End;
        let Some(opened) = self.presented.remember else { return Step::AskLoaders };
        if self.is_expired(opened) {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        }
        self.at = At::Remember(opened);
        Step::Load(&opened.cookie.user)
    }

    fn is_expired(&self, opened: &Opened<Remember>) -> bool {
        self.presented.now >= opened.cookie.terms.expires
    }

    /// Reissues a valid remember cookie of this user if its time is renewed or its key is old.
    fn keep_remember(&mut self, opened: &Opened<Remember>, facts: Facts) {
        self.verdict.remembered = true;
        let presented = opened.cookie.terms;
        let terms = RememberTerms { origin: origin_now(presented.origin, facts), ..presented };
        let kept = if self.policy.refresh_remember {
            let duration = terms.expires.saturating_sub(terms.issued);
            let now = self.presented.now;
            RememberTerms { issued: now, expires: now.saturating_add(duration), ..terms }
        } else {
            terms
        };
        if kept != presented || opened.slot.is_previous() {
            self.verdict.remember = RememberChange::Reissue(kept);
        }
    }

    fn end_login(&mut self) -> Step<'a> {
        self.at = At::End;
        self.verdict.who = Who::Nobody;
        self.verdict.session = SessionChange::Clear;
        self.verdict.remember = RememberChange::Clear;
        Step::Done
    }
}

#[cfg(test)]
mod tests;
