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

use super::{Facts, Policy, Who, flags_of};
use crate::client::SessionProtection;
use crate::cookie::{FORCED, Held, REMEMBERED, Remember, RememberTerms, Session, SessionTerms};

/// What a request sent. Only cookies with a valid seal are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Held<Session>>,
    pub(crate) remember: Option<&'a Held<Remember>>,
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
    /// Reissued for the same session, with these terms.
    Reissue(SessionTerms),
    /// A new cookie with these flags, for a login that the remember cookie has restored.
    Restore(u8),
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
    Session(&'a Held<Session>),
    Remember(&'a Held<Remember>),
    End,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, presented: Presented<'a>) -> Self {
        Self { policy, presented, at: At::End, verdict: Verdict::default() }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(held) = self.presented.session else { return self.try_remember() };
        if self.policy.is_over(
            held.cookie.terms.renewed,
            held.cookie.terms.started,
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
        self.at = At::Session(held);
        Step::Load(&held.cookie.user)
    }

    /// Takes the result of [`Step::Load`]: `None` if there is no such user.
    pub(crate) fn loaded(&mut self, facts: Option<Facts>) -> Step<'a> {
        match self.at {
            At::Session(held) => self.session_user(held, facts),
            At::Remember(held) => self.remembered_user(held, facts),
            At::End => Step::Done,
        }
    }

    pub(crate) fn finish(self) -> Verdict {
        self.verdict
    }

    fn session_user(&mut self, held: &'a Held<Session>, facts: Option<Facts>) -> Step<'a> {
        let Some(facts) = facts else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if !facts.session_stamp_holds {
            return self.try_remember();
        }
        let terms = held.cookie.terms;
        if !facts.active && terms.flags & FORCED == 0 {
            return self.end_login();
        }
        let fresh = if self.verdict.protected { 0 } else { terms.fresh };
        let flags = flags_of(terms.flags, facts);
        let age = self.presented.now.saturating_sub(terms.renewed);
        let is_due = self.policy.renewal().is_some_and(|after| age >= after);
        let is_changed = fresh != terms.fresh || flags != terms.flags;
        if is_due || is_changed || held.slot.is_previous() {
            let renewed = if is_due { self.presented.now } else { terms.renewed };
            self.verdict.session =
                SessionChange::Reissue(SessionTerms { flags, renewed, fresh, ..terms });
        }
        self.verdict.who = Who::User { fresh, active: facts.active };
        let same_user = |held: &&Held<Remember>| {
            self.presented.session.is_some_and(|session| session.cookie.user == held.cookie.user)
        };
        if let Some(held) = self.presented.remember.filter(same_user)
            && facts.remember_stamp_holds
            && !self.is_expired(held)
        {
            self.keep_remember(held, facts);
        }
        Step::Done
    }

    fn remembered_user(&mut self, held: &'a Held<Remember>, facts: Option<Facts>) -> Step<'a> {
        self.at = At::End;
        let Some(facts) = facts else {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        };
        if !facts.remember_stamp_holds {
            return Step::AskLoaders;
        }
        if !facts.active && held.cookie.terms.flags & FORCED == 0 {
            return self.end_login();
        }
        let flags = flags_of(held.cookie.terms.flags, facts) & FORCED;
        self.verdict.who = Who::User { fresh: 0, active: facts.active };
        self.verdict.session = SessionChange::Restore(flags | REMEMBERED);
        self.keep_remember(held, facts);
        Step::Done
    }

    fn try_remember(&mut self) -> Step<'a> {
        self.at = At::End;
        let Some(held) = self.presented.remember else { return Step::AskLoaders };
        if self.is_expired(held) {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        }
        self.at = At::Remember(held);
        Step::Load(&held.cookie.user)
    }

    fn is_expired(&self, held: &Held<Remember>) -> bool {
        self.presented.now >= held.cookie.terms.expires
    }

    /// Reissues a valid remember cookie of this user if its time is renewed or its key is old.
    fn keep_remember(&mut self, held: &Held<Remember>, facts: Facts) {
        self.verdict.remembered = true;
        let presented = held.cookie.terms;
        let terms = RememberTerms { flags: flags_of(presented.flags, facts), ..presented };
        let kept = if self.policy.refresh_remember {
            let duration = terms.expires.saturating_sub(terms.issued);
            let now = self.presented.now;
            RememberTerms { issued: now, expires: now.saturating_add(duration), ..terms }
        } else {
            terms
        };
        if kept != presented || held.slot.is_previous() {
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
