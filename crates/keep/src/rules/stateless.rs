//! Where cookies are all there is to a login.
//!
//! In order, the first that applies:
//!
//! | presented | condition | who | cookies |
//! | --- | --- | --- | --- |
//! | session | past its idle or absolute limit | try remember | clear session |
//! | session | another client, strong protection | nobody; loaders are not asked | clear both |
//! | session | another client, basic protection | go on, no longer fresh | reissue session |
//! | session | user gone | try remember | clear session |
//! | session | stamp changed | try remember | - |
//! | session | user inactive, and the login was not forced | nobody; loaders are not asked | clear both |
//! | session | else | the user | reissue when due |
//! | remember | expired | ask the loaders | clear remember |
//! | remember | user gone | ask the loaders | clear remember |
//! | remember | stamp changed | ask the loaders | - |
//! | remember | user inactive, and the login was not forced | nobody; loaders are not asked | clear both |
//! | remember | else | the user, not fresh | new session |
//! | nothing | | ask the loaders | - |
//!
//! What has no genuine seal counts as not presented, and is not cleared either: a late refusal must
//! not undo a login that another request has just made.

use tower_keep_core::UserId;

use super::{Facts, Policy, Who, flags_of};
use crate::SessionProtection;
use crate::cookie::{FORCED, Held, REMEMBERED, Remember, RememberTerms, Session, SessionTerms};

/// What a request presented; only what is genuine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Held<Session>>,
    pub(crate) remember: Option<&'a Held<Remember>>,
    /// Whether the client is the one that the session was made for.
    pub(crate) same_client: bool,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Look this user up, then call [`Rules::loaded`].
    Load(&'a UserId),
    /// The cookies name nobody: ask the request loaders, then finish.
    AskLoaders,
    /// All is decided.
    Done,
}

/// What becomes of the session cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum SessionChange {
    #[default]
    Keep,
    Clear,
    /// The same session, with these terms.
    Reissue(SessionTerms),
    /// A new one for a user whom the remember cookie has brought back, with these flags.
    Restore(u8),
}

/// What becomes of the remember cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RememberChange {
    #[default]
    Keep,
    Clear,
    Reissue(RememberTerms),
}

/// What the rules have come to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) who: Who,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// The remember cookie that was presented is genuine, in time, and this user's.
    pub(crate) remembered: bool,
    /// Session protection has found another client.
    pub(crate) protected: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    seen: Seen<'a>,
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
    pub(crate) fn new(policy: &'a Policy, seen: Seen<'a>) -> Self {
        Self { policy, seen, at: At::End, verdict: Verdict::default() }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(held) = self.seen.session else { return self.try_remember() };
        if self.policy.is_over(held.cookie.terms.renewed, held.cookie.terms.started, self.seen.now)
        {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        if !self.seen.same_client && self.policy.protection != SessionProtection::None {
            self.verdict.protected = true;
            if self.policy.protection == SessionProtection::Strong && !self.policy.persistent {
                return self.end_login();
            }
        }
        self.at = At::Session(held);
        Step::Load(&held.cookie.user)
    }

    /// The user whom the last step asked for; `None` if there is no such user.
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
        let age = self.seen.now.saturating_sub(terms.renewed);
        let is_due = self.policy.renewal().is_some_and(|after| age >= after);
        let is_changed = fresh != terms.fresh || flags != terms.flags;
        if is_due || is_changed || held.slot.is_previous() {
            let renewed = if is_due { self.seen.now } else { terms.renewed };
            self.verdict.session =
                SessionChange::Reissue(SessionTerms { flags, renewed, fresh, ..terms });
        }
        self.verdict.who = Who::User { fresh, active: facts.active };
        let same_user = |held: &&Held<Remember>| {
            self.seen.session.is_some_and(|session| session.cookie.user == held.cookie.user)
        };
        if let Some(held) = self.seen.remember.filter(same_user)
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
        let Some(held) = self.seen.remember else { return Step::AskLoaders };
        if self.is_expired(held) {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        }
        self.at = At::Remember(held);
        Step::Load(&held.cookie.user)
    }

    fn is_expired(&self, held: &Held<Remember>) -> bool {
        self.seen.now >= held.cookie.terms.expires
    }

    /// Reissues a genuine remember cookie of this user when its time is renewed or its key is old.
    fn keep_remember(&mut self, held: &Held<Remember>, facts: Facts) {
        self.verdict.remembered = true;
        let presented = held.cookie.terms;
        let terms = RememberTerms { flags: flags_of(presented.flags, facts), ..presented };
        let kept = if self.policy.refresh_remember {
            let duration = terms.expires.saturating_sub(terms.issued);
            let now = self.seen.now;
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
