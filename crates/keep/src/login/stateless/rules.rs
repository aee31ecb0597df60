//! The rules for logins that only cookies hold.
//!
//! The first row that applies counts:
//!
//! | sent | condition | who is logged in | cookies |
//! | --- | --- | --- | --- |
//! | session | past its idle or absolute limit | try remember | clear session |
//! | session | another client, strong protection, session not persistent | no user; loaders are not asked | clear both |
//! | session | another client, basic protection or a persistent session | continue, no longer fresh | reissue session, if it was fresh |
//! | session | the user no longer exists | try remember | clear session |
//! | session | security stamp changed | try remember | unchanged |
//! | session | user inactive, and the login was not forced | no user; loaders are not asked | clear both |
//! | session | otherwise | the user | reissue, if there is a reason (below) |
//! | remember | expired | ask the loaders | clear remember |
//! | remember | the user no longer exists | ask the loaders | clear remember |
//! | remember | security stamp changed | ask the loaders | unchanged |
//! | remember | user inactive, and the login was not forced | no user; loaders are not asked | clear both |
//! | remember | otherwise | the user, not fresh | new session; reissue remember, if there is a reason (below) |
//! | nothing | | ask the loaders | unchanged |
//!
//! "Try remember" applies the table to the remember cookie. If the request sent no remember cookie,
//! the loaders are asked. A cookie without a valid signature counts as not sent. It is not cleared
//! either: by the time the response arrives, another request may have set a new cookie.
//!
//! The session cookie is reissued if it has reached the renewal age, if its key is a previous one,
//! or if a forced login's user has become active. A valid remember cookie of the same user is
//! reissued if its key is a previous one, or if a forced login's user has become active. If uses
//! extend its validity, it is reissued with every use.
//!
//! What the rules with and without server-side sessions decide alike (another client, the user's
//! state and stamp, how a session goes on) is in `shared_rules.rs`.

use tower_keep_core::UserId;

use super::remember_cookie::{Remember, RememberTerms};
use super::session_cookie::{Session, SessionTerms};
use crate::cookie::contents::Opened;
use crate::cookie::login_origin::LoginOrigin;
use crate::login::policy::Policy;
use crate::login::shared_rules::{
    self, Continuation, LoggedIn, UserCheck, UserFacts, check_client, check_user, continue_session,
    current_origin, restored,
};

/// The cookies that a request sent, as far as their signatures are valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Opened<Session>>,
    pub(crate) remember: Option<&'a Opened<Remember>>,
    /// Whether the session was issued to the client that sent the request.
    pub(crate) is_same_client: bool,
}

/// What the caller does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Load the user with this id, then call [`Rules::loaded`].
    Load(&'a UserId),
    /// The cookies identify no user: ask the request loaders, then finish.
    AskLoaders,
    /// The rules have decided: call [`Rules::finish`].
    Done,
}

/// What happens to the session cookie.
pub(crate) type SessionChange = shared_rules::SessionChange<SessionTerms, LoginOrigin>;

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
    pub(crate) logged_in: LoggedIn,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// Whether the request sent a remember cookie of this user that is valid and has not expired.
    pub(crate) is_remembered: bool,
    /// Whether session protection has found that another client sent the request.
    pub(crate) is_other_client: bool,
}

/// The state machine; `shared_rules.rs` says how to use it.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    presented: Presented<'a>,
    state: State<'a>,
    verdict: Verdict,
}

/// What the rules are deciding.
#[derive(Clone, Copy, Debug)]
enum State<'a> {
    CheckSession(&'a Opened<Session>),
    CheckRemember(&'a Opened<Remember>),
    Finished,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, presented: Presented<'a>) -> Self {
        Self { policy, presented, state: State::Finished, verdict: Verdict::default() }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.session else { return self.try_remember() };
        if self.policy.is_past_limit(
            opened.cookie.terms.renewed,
            opened.cookie.terms.started,
            self.presented.now,
        ) {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        let client = check_client(self.policy, self.presented.is_same_client);
        self.verdict.is_other_client = client.is_other;
        if client.ends_session {
            return self.clear_both();
        }
        self.state = State::CheckSession(opened);
        Step::Load(&opened.cookie.user)
    }

    /// Takes the result of [`Step::Load`]: `None` if the user no longer exists.
    pub(crate) fn loaded(&mut self, facts: Option<UserFacts>) -> Step<'a> {
        match self.state {
            State::CheckSession(opened) => self.check_session(opened, facts),
            State::CheckRemember(opened) => self.check_remember(opened, facts),
            State::Finished => Step::Done,
        }
    }

    pub(crate) fn finish(self) -> Verdict {
        self.verdict
    }

    fn check_session(&mut self, opened: &'a Opened<Session>, facts: Option<UserFacts>) -> Step<'a> {
        let terms = opened.cookie.terms;
        let stamp_matches = |facts: &UserFacts| facts.session_stamp_matches;
        let facts = match check_user(facts, stamp_matches, terms.login_origin) {
            UserCheck::Passes(facts) => facts,
            UserCheck::IsGone => {
                self.verdict.session = SessionChange::Clear;
                return self.try_remember();
            }
            UserCheck::HasNewStamp => return self.try_remember(),
            UserCheck::IsInactive => return self.clear_both(),
        };
        let is_other_client = self.verdict.is_other_client;
        let Continuation { logged_in, login_origin, keeps_proofs, is_changed } =
            continue_session(&opened.cookie.proofs, terms.login_origin, facts, is_other_client);
        self.verdict.logged_in = logged_in;
        let age = self.presented.now.saturating_sub(terms.renewed);
        let is_due = self.policy.renewal_age.is_some_and(|after| age >= after);
        if is_due || is_changed || opened.slot.is_previous() {
            let renewed = if is_due { self.presented.now } else { terms.renewed };
            self.verdict.session = SessionChange::Reissue {
                terms: SessionTerms { login_origin, renewed, ..terms },
                keeps_proofs,
            };
        }
        let same_user = |opened: &&Opened<Remember>| {
            self.presented.session.is_some_and(|session| session.cookie.user == opened.cookie.user)
        };
        if let Some(opened) = self.presented.remember.filter(same_user)
            && facts.remember_stamp_matches
            && !self.is_expired(opened)
        {
            self.accept_remember(opened, facts);
        }
        Step::Done
    }

    fn check_remember(
        &mut self,
        opened: &'a Opened<Remember>,
        facts: Option<UserFacts>,
    ) -> Step<'a> {
        self.state = State::Finished;
        let sent_origin = opened.cookie.terms.login_origin;
        let facts = match check_user(facts, |facts| facts.remember_stamp_matches, sent_origin) {
            UserCheck::Passes(facts) => facts,
            UserCheck::IsGone => {
                self.verdict.remember = RememberChange::Clear;
                return Step::AskLoaders;
            }
            UserCheck::HasNewStamp => return Step::AskLoaders,
            UserCheck::IsInactive => return self.clear_both(),
        };
        self.verdict.logged_in = restored(facts);
        self.verdict.session = SessionChange::Restore(current_origin(sent_origin, facts));
        self.accept_remember(opened, facts);
        Step::Done
    }

    fn try_remember(&mut self) -> Step<'a> {
        self.state = State::Finished;
        let Some(opened) = self.presented.remember else { return Step::AskLoaders };
        if self.is_expired(opened) {
            self.verdict.remember = RememberChange::Clear;
            return Step::AskLoaders;
        }
        self.state = State::CheckRemember(opened);
        Step::Load(&opened.cookie.user)
    }

    fn is_expired(&self, opened: &Opened<Remember>) -> bool {
        self.presented.now >= opened.cookie.terms.expires
    }

    /// Accepts a valid remember cookie of the user, and reissues it if there is a reason.
    fn accept_remember(&mut self, opened: &Opened<Remember>, facts: UserFacts) {
        self.verdict.is_remembered = true;
        let sent_terms = opened.cookie.terms;
        let login_origin = current_origin(sent_terms.login_origin, facts);
        let terms = RememberTerms { login_origin, ..sent_terms };
        let new_terms = if self.policy.refreshes_remember {
            let duration = terms.expires.saturating_sub(terms.issued);
            let now = self.presented.now;
            RememberTerms { issued: now, expires: now.saturating_add(duration), ..terms }
        } else {
            terms
        };
        if new_terms != sent_terms || opened.slot.is_previous() {
            self.verdict.remember = RememberChange::Reissue(new_terms);
        }
    }

    fn clear_both(&mut self) -> Step<'a> {
        self.state = State::Finished;
        self.verdict.logged_in = LoggedIn::Nobody;
        self.verdict.session = SessionChange::Clear;
        self.verdict.remember = RememberChange::Clear;
        Step::Done
    }
}

#[cfg(test)]
mod tests;
