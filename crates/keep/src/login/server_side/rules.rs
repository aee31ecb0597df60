//! The rules for server-side sessions: the generations of a login, and how a replay is detected.
//!
//! In the table, n is the generation of the record, c that of the session cookie and p that of the
//! remember cookie; G is the grace. Generation n is *seen* when its seen mark is set: a request has
//! used its cookies. The first row that applies counts:
//!
//! | sent | condition | who is logged in | store | cookies |
//! | --- | --- | --- | --- | --- |
//! | remember | the cookie has expired | ask the loaders | | clear |
//! | any | no record | try remember | | clear |
//! | any | ended | try remember | | clear; unchanged if replaced at most G ago, or if ended for a reason that only a newer version knows |
//! | any | another user acts as this user, which only a newer version allows | ask the loaders | | unchanged |
//! | any | the user no longer exists | try remember | | clear |
//! | any | security stamp changed | try remember | | unchanged |
//! | any | user inactive, and the login was not forced | no user; loaders are not asked | end | clear both |
//! | session | past its idle or absolute limit | try remember | | clear |
//! | session | not (c=n, or c=n-1 and n unseen or seen at most G ago) | try remember | | unchanged |
//! | session | another client, strong protection, session not persistent | no user; loaders are not asked | end | clear both |
//! | session | another client, basic protection or a persistent session | continue, no longer fresh | | session n, if c=n and it was fresh |
//! | session | otherwise | the user | record the time of use and, if c=n, that n is seen | reissue, if there is a reason (below) |
//! | remember | its period in the record has expired | ask the loaders | | clear |
//! | remember | wrong verifier | ask the loaders | | unchanged; event |
//! | remember | p=n, never rotated or rotated at least G ago | the user | rotate; if another request was faster, try again | session n+1, remember n+1 |
//! | remember | p=n, rotated less than G ago | the user | record that n is seen | session n; remember n, if its key is a previous one |
//! | remember | p=n-1, n unseen | the user | | session n, remember n |
//! | remember | p=n-1, n seen at most G ago | the user, for this request only | | unchanged: the request may come from a thief, who must get no new cookies |
//! | remember | p=n-1, n seen more than G ago | ask the loaders | end: replay | clear; event |
//! | remember | p≤n-2, rotated at most G ago | ask the loaders | | unchanged |
//! | remember | p≤n-2, rotated more than G ago | ask the loaders | end: replay | clear; event |
//! | remember | p>n: the store has lost writes | ask the loaders | | unchanged; event |
//!
//! "Try remember" applies the table to the remember cookie. If the request sent no remember cookie,
//! the loaders are asked. If both cookies belong to the same session, the record is loaded once. A
//! cookie without a valid signature counts as not sent.
//!
//! The session cookie is reissued if c=n and its key is a previous one, if the session is
//! persistent and its use is recorded, or if a forced login's user has become active. The remember
//! cookie of the same session is reissued if p=n and its key is a previous one, or if uses extend
//! its validity and the use is recorded.
//!
//! If the request logs out, nothing is rotated, recorded or reissued. Confirming a login rotates if
//! [`confirming_rotates`] returns `true`, regardless of how long ago the last rotation was.
//!
//! What the rules with and without server-side sessions decide alike (another client, the user's
//! state and stamp, how a session goes on) is in `shared_rules.rs`.

use std::sync::Arc;

use tower_keep_core::{EndReason, Ended, Rotated, SessionRecord, UserId};

use super::cookies::{ServerRemember, ServerSession, ServerTerms, SessionId};
use crate::cookie::contents::Opened;
use crate::cookie::login_origin::LoginOrigin;
use crate::login::policy::Policy;
use crate::login::shared_rules::{
    self, Continuation, LoggedIn, UserCheck, UserFacts, check_client, check_user, continue_session,
    current_origin, restored,
};

/// A rotation that another request has overtaken is tried again at most this many times.
const MAX_RETRIES: u8 = 2;

/// The cookies that a request sent, as far as their signatures are valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Opened<ServerSession>>,
    pub(crate) remember: Option<&'a Opened<ServerRemember>>,
    /// Whether the session was issued to the client that sent the request.
    pub(crate) is_same_client: bool,
    /// Whether the request logs out.
    pub(crate) is_logout: bool,
}

/// What the caller does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Load this session and its user, then call [`Rules::loaded`].
    Load { id: SessionId, user_hint: Option<&'a UserId> },
    /// Check the remember cookie's verifier against [`Rules::record`], then call
    /// [`Rules::verifier_checked`].
    CheckVerifier,
    /// Begin the record's next generation, by compare-and-swap, then call [`Rules::rotated`].
    Rotate,
    /// End the session of [`Rules::record`], then call [`Rules::ended`].
    End(EndReason),
    /// The cookies identify no user: ask the request loaders, then finish.
    AskLoaders,
    /// The rules have decided: call [`Rules::finish`].
    Done,
    /// Too many other requests change the record at the same time: return an error.
    Busy,
}

/// What happens to the session cookie.
pub(crate) type SessionChange = shared_rules::SessionChange<ServerTerms, ServerTerms>;

/// What happens to the remember cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RememberChange {
    #[default]
    Keep,
    Clear,
    /// Reissued for this generation.
    Reissue {
        login_origin: LoginOrigin,
        generation: u32,
        expires: u32,
    },
}

/// A sign of an attack or of lost data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alarm {
    /// The remember cookie of an earlier generation was sent after the grace.
    Replay,
    /// A remember cookie has a valid signature and a wrong verifier.
    WrongVerifier,
    /// A cookie belongs to a later generation than the stored one.
    RolledBack,
}

/// What the rules have decided.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) logged_in: LoggedIn,
    /// Whether the remember cookie has restored the login.
    pub(crate) is_restored: bool,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// Whether session protection has found that another client sent the request.
    pub(crate) is_other_client: bool,
    pub(crate) alarm: Option<Alarm>,
    /// Whether to set the seen mark of the record's generation: no earlier request has sent cookies
    /// of this generation.
    pub(crate) marks_seen: bool,
    /// Whether to write the record's time of last use.
    pub(crate) is_touched: bool,
    /// When the remember cookie expires, if this request extends its validity.
    pub(crate) remember_expires: Option<u32>,
}

/// The state machine; `shared_rules.rs` says how to use it.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    presented: Presented<'a>,
    state: State<'a>,
    last_load: Option<LastLoad>,
    lost_rotations: u8,
    verdict: Verdict,
}

/// The result of the last [`Step::Load`].
#[derive(Debug)]
struct LastLoad {
    id: SessionId,
    /// `None` if there is no record.
    stored: Option<StoredSession>,
}

/// A record, and what the rules need to know about its user.
#[derive(Clone, Debug)]
pub(crate) struct StoredSession {
    pub(crate) record: Arc<SessionRecord>,
    /// `None` if the user no longer exists.
    pub(crate) user: Option<UserFacts>,
}

/// What the rules are deciding.
#[derive(Clone, Copy, Debug)]
enum State<'a> {
    CheckSession(&'a Opened<ServerSession>),
    CheckRemember(&'a Opened<ServerRemember>),
    /// The session is valid, and its remember cookie is reissued if its verifier matches.
    ReissueRemember(&'a Opened<ServerRemember>),
    Finished,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, presented: Presented<'a>) -> Self {
        let verdict = Verdict::default();
        Self {
            policy,
            presented,
            state: State::Finished,
            last_load: None,
            lost_rotations: 0,
            verdict,
        }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.session else { return self.try_remember() };
        self.state = State::CheckSession(opened);
        let id = opened.cookie.id;
        Step::Load { id, user_hint: opened.cookie.user_hint.as_ref() }
    }

    /// Takes the result of [`Step::Load`]: `None` if there is no such record.
    pub(crate) fn loaded(&mut self, stored: Option<StoredSession>) -> Step<'a> {
        match self.state {
            State::CheckSession(opened) => {
                self.last_load = Some(LastLoad { id: opened.cookie.id, stored });
                self.check_session(opened)
            }
            State::CheckRemember(opened) => {
                self.last_load = Some(LastLoad { id: opened.cookie.id, stored });
                self.check_remember(opened)
            }
            State::ReissueRemember(_) | State::Finished => Step::Done,
        }
    }

    /// Takes the result of [`Step::CheckVerifier`].
    pub(crate) fn verifier_checked(&mut self, verifier_matches: bool) -> Step<'a> {
        match (self.state, verifier_matches) {
            (State::CheckRemember(opened), true) => self.check_generation(opened),
            (State::ReissueRemember(opened), true) => self.reissue_remember(opened),
            (State::ReissueRemember(_), false) => Step::Done,
            _ => {
                self.verdict.alarm = Some(Alarm::WrongVerifier);
                self.ask_loaders()
            }
        }
    }

    /// Takes the result of [`Step::Rotate`]: `None` if the record no longer exists.
    pub(crate) fn rotated(&mut self, rotated: Option<Rotated>) -> Step<'a> {
        let State::CheckRemember(opened) = self.state else { return Step::Done };
        match rotated {
            None => {
                self.verdict.remember = RememberChange::Clear;
                self.ask_loaders()
            }
            Some(Rotated::Won(record)) => {
                self.replace_record(record);
                self.restore(opened, true)
            }
            Some(Rotated::Lost(record)) => {
                self.lost_rotations += 1;
                self.replace_record(record);
                if self.lost_rotations > MAX_RETRIES {
                    Step::Busy
                } else {
                    self.retry_remember(opened)
                }
            }
        }
    }

    /// Takes the result of [`Step::End`]: the session has ended, through this request or through
    /// another request that was faster. The other request may have been a login that replaced the
    /// session. The cookies of that login must stay, so the response clears cookies only if this
    /// request has ended the session.
    pub(crate) fn ended(&mut self, reason: EndReason, ended_by_this_request: bool) -> Step<'a> {
        if ended_by_this_request {
            self.verdict.session = SessionChange::Clear;
            self.verdict.remember = RememberChange::Clear;
        }
        match reason {
            EndReason::Replay => self.ask_loaders(),
            // The loaders must not log in the user whose session the rules have just ended.
            _ => {
                self.state = State::Finished;
                Step::Done
            }
        }
    }

    /// Returns the record that was loaded last or, if it was rotated since, the record that the
    /// rotation has returned.
    pub(crate) fn record(&self) -> Option<&Arc<SessionRecord>> {
        self.stored().map(|stored| &stored.record)
    }

    fn stored(&self) -> Option<&StoredSession> {
        self.last_load.as_ref()?.stored.as_ref()
    }

    /// Returns when the remember cookie expires if it is issued now, or `None` if it keeps its
    /// expiry time.
    pub(crate) fn next_remember_expires(&self) -> Option<u32> {
        let record = self.record().filter(|_| self.policy.refreshes_remember)?;
        Some(self.presented.now.saturating_add(record.remember?.seconds))
    }

    pub(crate) fn finish(self) -> (Verdict, Option<Arc<SessionRecord>>) {
        let stored = self.last_load.and_then(|last_load| last_load.stored);
        (self.verdict, stored.map(|stored| stored.record))
    }

    fn check_session(&mut self, opened: &'a Opened<ServerSession>) -> Step<'a> {
        let Some(StoredSession { record, user }) = self.stored().cloned() else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if let Some(ended) = &record.ended {
            if !self.leaves_cookies_unchanged(ended) {
                self.verdict.session = SessionChange::Clear;
            }
            return self.try_remember();
        }
        if record.acting_user.is_some() {
            return self.ask_loaders();
        }
        let terms = opened.cookie.terms;
        let stamp_matches = |facts: &UserFacts| facts.session_stamp_matches;
        let facts = match check_user(user, stamp_matches, terms.login_origin) {
            UserCheck::Passes(facts) => facts,
            UserCheck::IsGone => {
                self.verdict.session = SessionChange::Clear;
                return self.try_remember();
            }
            UserCheck::HasNewStamp => return self.try_remember(),
            UserCheck::IsInactive => return Step::End(EndReason::Inactive),
        };
        let (used, started) = (record.last_seen.as_secs(), record.session_started.as_secs());
        if self.policy.is_past_limit(used, started, self.presented.now) {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        let is_current = terms.generation == record.generation;
        let is_valid =
            is_current || is_previous(terms.generation, &record) && self.is_previous_valid(&record);
        if !is_valid {
            return self.try_remember();
        }
        let client = check_client(self.policy, self.presented.is_same_client);
        self.verdict.is_other_client = client.is_other;
        if client.ends_session {
            return Step::End(EndReason::Protection);
        }
        self.accept_session(opened, &record, facts, is_current)
    }

    /// Logs in the user of a valid session, and decides which of its cookies are reissued.
    fn accept_session(
        &mut self,
        opened: &Opened<ServerSession>,
        record: &SessionRecord,
        facts: UserFacts,
        is_current: bool,
    ) -> Step<'a> {
        let terms = opened.cookie.terms;
        let is_other_client = self.verdict.is_other_client;
        let Continuation { logged_in, login_origin, keeps_proofs, is_changed } =
            continue_session(&opened.cookie.proofs, terms.login_origin, facts, is_other_client);
        self.verdict.logged_in = logged_in;
        self.state = State::Finished;
        if self.presented.is_logout {
            return Step::Done;
        }
        let unused_for = self.presented.now.saturating_sub(record.last_seen.as_secs());
        self.verdict.is_touched = unused_for >= self.touch_interval_of(record);
        self.verdict.marks_seen = is_current && self.needs_seen_mark(record);
        let is_renewed = self.policy.is_persistent && self.verdict.is_touched;
        // Only a cookie of the current generation is reissued: a cookie of the previous generation
        // would replace the current one in the browser.
        if is_current && (is_changed || is_renewed || opened.slot.is_previous()) {
            self.verdict.session = SessionChange::Reissue {
                terms: ServerTerms { login_origin, ..terms },
                keeps_proofs,
            };
        }
        match self.presented.remember {
            Some(remember)
                if remember.cookie.id == opened.cookie.id
                    && remember.cookie.generation == record.generation
                    && facts.remember_stamp_matches
                    && !self.is_expired(remember, record)
                    && (remember.slot.is_previous()
                        || self.policy.refreshes_remember && self.verdict.is_touched) =>
            {
                self.state = State::ReissueRemember(remember);
                Step::CheckVerifier
            }
            _ => Step::Done,
        }
    }

    /// Returns how old the record's time of last use may get. If uses extend the remember cookie's
    /// validity, it is at most a tenth of the remember duration.
    fn touch_interval_of(&self, record: &SessionRecord) -> u32 {
        match record.remember {
            Some(remember) if self.policy.refreshes_remember => {
                self.policy.touch_interval.min((remember.seconds / 10).max(1))
            }
            _ => self.policy.touch_interval,
        }
    }

    fn try_remember(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.remember else { return self.ask_loaders() };
        if self.presented.now >= opened.cookie.expires {
            self.verdict.remember = RememberChange::Clear;
            return self.ask_loaders();
        }
        self.state = State::CheckRemember(opened);
        let id = opened.cookie.id;
        match &self.last_load {
            Some(last_load) if last_load.id == id => self.check_remember(opened),
            _ => Step::Load { id, user_hint: None },
        }
    }

    fn check_remember(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        let Some(StoredSession { record, user }) = self.stored().cloned() else {
            self.verdict.remember = RememberChange::Clear;
            return self.ask_loaders();
        };
        if let Some(ended) = &record.ended {
            if !self.leaves_cookies_unchanged(ended) {
                self.verdict.remember = RememberChange::Clear;
            }
            return self.ask_loaders();
        }
        if record.acting_user.is_some() {
            return self.ask_loaders();
        }
        let sent_origin = opened.cookie.login_origin;
        match check_user(user, |facts| facts.remember_stamp_matches, sent_origin) {
            UserCheck::Passes(_) => {}
            UserCheck::IsGone => {
                self.verdict.remember = RememberChange::Clear;
                return self.ask_loaders();
            }
            UserCheck::HasNewStamp => return self.ask_loaders(),
            UserCheck::IsInactive => return Step::End(EndReason::Inactive),
        }
        if self.is_expired(opened, &record) {
            self.verdict.remember = RememberChange::Clear;
            return self.ask_loaders();
        }
        Step::CheckVerifier
    }

    /// Continues with the new record after another request has rotated it or ended the session. The
    /// remember cookie's verifier was checked before, so it is not checked again.
    fn retry_remember(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        match self.check_remember(opened) {
            Step::CheckVerifier => self.check_generation(opened),
            step => step,
        }
    }

    /// Applies the rows of the table that compare p with n.
    fn check_generation(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        let Some(record) = self.record().cloned() else { return Step::Done };
        let (p, n) = (opened.cookie.generation, record.generation);
        let since_rotation =
            record.rotated_at.map(|at| self.presented.now.saturating_sub(at.as_secs()));
        if p > n {
            self.verdict.alarm = Some(Alarm::RolledBack);
            return self.ask_loaders();
        }
        if p == n {
            let is_due = since_rotation.is_none_or(|ago| ago >= self.policy.grace);
            if is_due && !self.presented.is_logout {
                return Step::Rotate;
            }
            self.verdict.marks_seen = self.needs_seen_mark(&record) && !self.presented.is_logout;
            return self.restore(opened, opened.slot.is_previous());
        }
        if is_previous(p, &record) {
            if record.seen_at.is_none() {
                return self.restore(opened, true);
            }
            if self.is_previous_valid(&record) {
                return self.restore_for_this_request();
            }
        } else if since_rotation.is_some_and(|ago| ago <= self.policy.grace) {
            return self.ask_loaders();
        }
        self.verdict.alarm = Some(Alarm::Replay);
        Step::End(EndReason::Replay)
    }

    /// Restores the login, and issues cookies of the record's generation: a session cookie and, if
    /// `with_remember` is `true`, a remember cookie.
    fn restore(&mut self, opened: &Opened<ServerRemember>, with_remember: bool) -> Step<'a> {
        self.restore_for_this_request();
        let Some(StoredSession { record, user: Some(facts) }) = self.stored().cloned() else {
            return Step::Done;
        };
        if self.presented.is_logout {
            return Step::Done;
        }
        let login_origin = current_origin(opened.cookie.login_origin, facts);
        let generation = record.generation;
        self.verdict.session = SessionChange::Restore(ServerTerms {
            login_origin,
            is_remembered: true,
            generation,
            issued: self.presented.now,
        });
        if with_remember {
            let expires = remember_expires_of(&record).unwrap_or(opened.cookie.expires);
            self.verdict.remember = RememberChange::Reissue { login_origin, generation, expires };
        }
        Step::Done
    }

    /// Restores the login for this request only: the browser gets no cookies.
    fn restore_for_this_request(&mut self) -> Step<'a> {
        self.state = State::Finished;
        if let Some(facts) = self.stored().and_then(|stored| stored.user) {
            self.verdict.logged_in = restored(facts);
            self.verdict.is_restored = true;
        }
        Step::Done
    }

    /// Reissues the remember cookie of a valid session under the current key. If uses extend its
    /// validity and this use is recorded, the new cookie also expires later.
    fn reissue_remember(&mut self, opened: &Opened<ServerRemember>) -> Step<'a> {
        self.state = State::Finished;
        let Some(StoredSession { record, user: Some(facts) }) = self.stored() else {
            return Step::Done;
        };
        let login_origin = current_origin(opened.cookie.login_origin, *facts);
        let generation = record.generation;
        let extended = self.next_remember_expires().filter(|_| self.verdict.is_touched);
        let expires = extended.unwrap_or(opened.cookie.expires);
        self.verdict.remember_expires = extended;
        self.verdict.remember = RememberChange::Reissue { login_origin, generation, expires };
        Step::Done
    }

    fn ask_loaders(&mut self) -> Step<'a> {
        self.state = State::Finished;
        Step::AskLoaders
    }

    fn replace_record(&mut self, record: Arc<SessionRecord>) {
        if let Some(LastLoad { stored: Some(stored), .. }) = &mut self.last_load {
            stored.record = record;
        }
    }

    /// Checks whether a use of the record's generation has to set its seen mark. When the mark is
    /// older than the grace, the previous generation is no longer valid. Before the first
    /// generation there is no other, so its mark is set only if the policy says so.
    fn needs_seen_mark(&self, record: &SessionRecord) -> bool {
        record.seen_at.is_none() && (record.rotated_at.is_some() || self.policy.marks_first_use)
    }

    /// Checks whether the cookies of an ended session stay as they are. They stay if a login in the
    /// same browser has just replaced the session, because clearing them could clear the cookies of
    /// that login. They also stay if only a newer node knows the reason of the end.
    fn leaves_cookies_unchanged(&self, ended: &Ended) -> bool {
        match ended.reason {
            EndReason::Replaced => {
                self.presented.now.saturating_sub(ended.at.as_secs()) <= self.policy.grace
            }
            EndReason::Unknown(_) => true,
            _ => false,
        }
    }

    /// Checks whether the cookies of the previous generation are still valid. They are valid until
    /// the grace has passed since the current generation was seen.
    fn is_previous_valid(&self, record: &SessionRecord) -> bool {
        let since_seen = record.seen_at.map(|at| self.presented.now.saturating_sub(at.as_secs()));
        since_seen.is_none_or(|ago| ago <= self.policy.grace)
    }

    fn is_expired(&self, opened: &Opened<ServerRemember>, record: &SessionRecord) -> bool {
        let until = remember_expires_of(record).unwrap_or_default();
        self.presented.now >= opened.cookie.expires.min(until)
    }
}

/// Checks whether confirming a login begins its next generation. `sent_generation` is the
/// generation of the request's cookies, or `None` for a login that began in this request.
///
/// The record must never be more than one generation ahead of the browser. After two rotations
/// whose responses are both lost, the browser's cookies would look like a replay. So if the record
/// is ahead of the request's cookies, and no request has used the record's generation yet,
/// confirming does not begin another generation.
pub(crate) fn confirming_rotates(record: &SessionRecord, sent_generation: Option<u32>) -> bool {
    sent_generation == Some(record.generation) || record.seen_at.is_some()
}

/// Returns when the remember cookie expires, according to the record.
fn remember_expires_of(record: &SessionRecord) -> Option<u32> {
    record.remember.map(|remember| remember.expires.as_secs())
}

fn is_previous(generation: u32, record: &SessionRecord) -> bool {
    generation.checked_add(1) == Some(record.generation)
}

#[cfg(test)]
mod tests;
