//! The rules for server-side sessions: the generations of a login, and how a replay is detected.
//!
//! In the table, n is the generation of the record, c that of the session cookie and p that of the
//! remember cookie; G is the grace. The first row that applies counts:
//!
//! | sent | condition | who is logged in | store | cookies |
//! | --- | --- | --- | --- | --- |
//! | any | no record | try remember | | clear |
//! | any | ended | try remember | | clear; unchanged if replaced at most G ago, or if ended for a reason that only a newer version knows |
//! | any | another user acts as this one, which only a newer version allows | ask the loaders | | unchanged |
//! | any | user gone | try remember | | clear |
//! | any | security stamp changed | try remember | | unchanged |
//! | any | user inactive, and the login was not forced | no user; loaders are not asked | end | clear both |
//! | session | past its idle or absolute limit | try remember | | clear |
//! | session | not (c=n, or c=n-1 and n unseen or seen at most G ago) | try remember | | unchanged |
//! | session | another client, strong protection | no user; loaders are not asked | end | clear both |
//! | session | another client, basic protection | continue, no longer fresh | | session n, if c=n |
//! | session | otherwise | the user | record that n is seen, and the use | session n, if c=n and its key is old |
//! | remember | expired | ask the loaders | | clear |
//! | remember | wrong verifier | ask the loaders | | unchanged; event |
//! | remember | p=n, never rotated or rotated at least G ago | the user | rotate; if lost, try again | session n+1, remember n+1 |
//! | remember | p=n, rotated less than G ago | the user | record that n is seen | session n |
//! | remember | p=n-1, n unseen | the user | | session n, remember n |
//! | remember | p=n-1, n seen at most G ago | the user, for this request only | | unchanged: a thief could get new ones |
//! | remember | p=n-1, n seen earlier than that | ask the loaders | end: replay | clear; event |
//! | remember | p≤n-2, rotated at most G ago | ask the loaders | | unchanged |
//! | remember | p≤n-2, rotated earlier than that | ask the loaders | end: replay | clear; event |
//! | remember | p>n: the store was set back | ask the loaders | | unchanged; event |
//!
//! "Try remember" applies the table to the remember cookie. If there is none, it asks the loaders.
//! If the remember cookie belongs to the same session, the same record is used. A cookie without a
//! valid seal counts as not sent.
//!
//! A request that logs out is resolved without a rotation. Confirming rotates regardless of how
//! long ago the last rotation was, if [`confirming_rotates`] returns `true`.

use std::sync::Arc;

use tower_keep_core::{EndReason, Ended, Rotated, SessionRecord, UserId};

use super::{Facts, Policy, Who, origin_now};
use crate::client::SessionProtection;
use crate::cookie::{Opened, Origin, ServerRemember, ServerSession, ServerTerms, SessionId};

/// How often a lost compare-and-swap is tried again.
const RETRIES: u8 = 2;

/// What a request sent. Only cookies with a valid seal are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Opened<ServerSession>>,
    pub(crate) remember: Option<&'a Opened<ServerRemember>>,
    /// Whether the session was made for this client.
    pub(crate) same_client: bool,
    /// Whether the request logs out.
    pub(crate) is_logout: bool,
}

/// What the caller does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Load this session and its user, then call [`Rules::loaded`].
    Load(SessionId, Option<&'a UserId>),
    /// Check whether the remember cookie fits this record, then call [`Rules::verified`].
    Verify,
    /// Compare and swap this record's generation, then call [`Rules::rotated`].
    Rotate,
    /// End this record, then call [`Rules::ended`].
    End(EndReason),
    /// The cookies identify no user: ask the request loaders, then finish.
    AskLoaders,
    /// Everything is decided.
    Done,
    /// Too many other requests change the record at the same time, which is an error.
    Busy,
}

/// What happens to the session cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum SessionChange {
    #[default]
    Keep,
    Clear,
    /// Reissued with these terms. Without proofs it is no longer fresh.
    Issue {
        terms: ServerTerms,
        keeps_proofs: bool,
    },
    /// A new cookie, for a login that the remember cookie has restored.
    Restore(ServerTerms),
}

/// What happens to the remember cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RememberChange {
    #[default]
    Keep,
    Clear,
    /// Reissued for this generation.
    Issue {
        origin: Origin,
        generation: u32,
        expires: u32,
    },
}

/// Something that should not happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alarm {
    /// A superseded remember cookie was sent.
    Replay,
    /// A remember cookie has a valid seal and a wrong verifier.
    WrongVerifier,
    /// A cookie belongs to a later generation than the stored one.
    RolledBack,
}

/// What the rules have decided.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) who: Who,
    /// Whether the remember cookie has restored the login.
    pub(crate) is_restored: bool,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// Whether session protection has found another client.
    pub(crate) protected: bool,
    pub(crate) alarm: Option<Alarm>,
    /// Whether the browser has shown for the first time that it holds the record's generation.
    pub(crate) is_seen: bool,
    /// Whether the record's time of last use is so old that it is written again.
    pub(crate) is_touched: bool,
    /// Until when the remember cookie is valid, if its time starts again.
    pub(crate) remember_expires: Option<u32>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    presented: Presented<'a>,
    at: At<'a>,
    /// What was loaded last, and for which session.
    stored: Option<(SessionId, Option<Stored>)>,
    lost: u8,
    verdict: Verdict,
}

/// A record, and what the rules need to know about its user.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) record: Arc<SessionRecord>,
    /// `None` if the user is gone.
    pub(crate) user: Option<Facts>,
}

#[derive(Clone, Copy, Debug)]
enum At<'a> {
    Session(&'a Opened<ServerSession>),
    Remember(&'a Opened<ServerRemember>),
    /// The session is valid, and its remember cookie may be reissued.
    Renew(&'a Opened<ServerRemember>),
    End,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, presented: Presented<'a>) -> Self {
        let verdict = Verdict::default();
        Self { policy, presented, at: At::End, stored: None, lost: 0, verdict }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.session else { return self.try_remember() };
        self.at = At::Session(opened);
        Step::Load(opened.cookie.id, opened.cookie.user_hint.as_ref())
    }

    /// Takes the result of [`Step::Load`]: `None` if there is no such record.
    pub(crate) fn loaded(&mut self, stored: Option<Stored>) -> Step<'a> {
        match self.at {
            At::Session(opened) => {
                self.stored = Some((opened.cookie.id, stored));
                self.session(opened)
            }
            At::Remember(opened) => {
                self.stored = Some((opened.cookie.id, stored));
                self.remember(opened)
            }
            At::Renew(_) | At::End => Step::Done,
        }
    }

    /// Takes the result of [`Step::Verify`]: whether the remember cookie fits the record.
    pub(crate) fn verified(&mut self, fits: bool) -> Step<'a> {
        match (self.at, fits) {
            (At::Remember(opened), true) => self.generation(opened),
            (At::Renew(opened), true) => self.renew(opened),
            (At::Renew(_), false) => Step::Done,
            _ => {
                self.verdict.alarm = Some(Alarm::WrongVerifier);
                self.nobody()
            }
        }
    }

    /// Takes the result of [`Step::Rotate`]: `None` if the record is gone.
    pub(crate) fn rotated(&mut self, rotated: Option<Rotated>) -> Step<'a> {
        let At::Remember(opened) = self.at else { return Step::Done };
        match rotated {
            None => {
                self.verdict.remember = RememberChange::Clear;
                self.nobody()
            }
            Some(Rotated::Won(record)) => {
                self.put(record);
                self.restore(opened, true)
            }
            Some(Rotated::Lost(record)) => {
                self.lost += 1;
                self.put(record);
                if self.lost > RETRIES { Step::Busy } else { self.remember_again(opened) }
            }
        }
    }

    /// Takes the result of [`Step::End`]: the record was ended, by this request or by another that
    /// was faster. What the other request did is not known. It may have been a login that replaced
    /// the session, and the cookies of that login must stay.
    pub(crate) fn ended(&mut self, reason: EndReason, by_this: bool) -> Step<'a> {
        if by_this {
            self.verdict.session = SessionChange::Clear;
            self.verdict.remember = RememberChange::Clear;
        }
        match reason {
            EndReason::Replay => self.nobody(),
            // The loaders must not log in a user whose session was just ended by the rules.
            _ => {
                self.at = At::End;
                Step::Done
            }
        }
    }

    /// Returns the record that was looked at last.
    pub(crate) fn record(&self) -> Option<&Arc<SessionRecord>> {
        self.stored.as_ref()?.1.as_ref().map(|stored| &stored.record)
    }

    /// Returns until when the remember cookie of the next generation is valid, or `None` if its
    /// time is not renewed.
    pub(crate) fn next_remember_expires(&self) -> Option<u32> {
        let record = self.record().filter(|_| self.policy.refresh_remember)?;
        Some(self.presented.now.saturating_add(record.remember?.seconds))
    }

    pub(crate) fn finish(self) -> (Verdict, Option<Arc<SessionRecord>>) {
        (self.verdict, self.stored.and_then(|(_, stored)| stored).map(|stored| stored.record))
    }

    fn session(&mut self, opened: &'a Opened<ServerSession>) -> Step<'a> {
        let Some((_, stored)) = &self.stored else { return Step::Done };
        let Some(Stored { record, user }) = stored.clone() else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if let Some(ended) = &record.ended {
            if !self.keeps_cookies(ended) {
                self.verdict.session = SessionChange::Clear;
            }
            return self.try_remember();
        }
        if record.acting_user.is_some() {
            return self.nobody();
        }
        let Some(facts) = user else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if !facts.session_stamp_holds {
            return self.try_remember();
        }
        let terms = opened.cookie.terms;
        if !facts.active && !terms.origin.is_forced {
            return Step::End(EndReason::Inactive);
        }
        let (used, started) = (record.last_seen.as_secs(), record.session_started.as_secs());
        if self.policy.is_over(used, started, self.presented.now) {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        let is_current = terms.generation == record.generation;
        let counts =
            is_current || is_previous(terms.generation, &record) && self.still_counts(&record);
        if !counts {
            return self.try_remember();
        }
        if !self.presented.same_client && self.policy.protection != SessionProtection::None {
            self.verdict.protected = true;
            if self.policy.protection == SessionProtection::Strong && !self.policy.persistent {
                return Step::End(EndReason::Protection);
            }
        }
        self.go_on(opened, &record, facts, is_current)
    }

    /// Decides the rest for a session that is valid.
    fn go_on(
        &mut self,
        opened: &Opened<ServerSession>,
        record: &SessionRecord,
        facts: Facts,
        is_current: bool,
    ) -> Step<'a> {
        let terms = opened.cookie.terms;
        let keeps_proofs = !self.verdict.protected;
        let origin = origin_now(terms.origin, facts);
        self.verdict.who = Who::User {
            fresh_since: opened.cookie.proofs.newest().filter(|_| keeps_proofs),
            active: facts.active,
        };
        self.at = At::End;
        if self.presented.is_logout {
            return Step::Done;
        }
        let unused = self.presented.now.saturating_sub(record.last_seen.as_secs());
        self.verdict.is_touched = unused >= self.touch_interval(record);
        self.verdict.is_seen = is_current && self.is_unseen(record);
        let loses_proofs = !keeps_proofs && !opened.cookie.proofs.is_empty();
        let is_changed = loses_proofs || origin != terms.origin;
        let is_renewed = self.policy.persistent && self.verdict.is_touched;
        // Only a cookie of the current generation is reissued: an older one would replace a newer
        // one in the browser.
        if is_current && (is_changed || is_renewed || opened.slot.is_previous()) {
            self.verdict.session =
                SessionChange::Issue { terms: ServerTerms { origin, ..terms }, keeps_proofs };
        }
        match self.presented.remember {
            Some(remember)
                if remember.cookie.id == opened.cookie.id
                    && remember.cookie.generation == record.generation
                    && facts.remember_stamp_holds
                    && !self.is_expired(remember, record)
                    && (remember.slot.is_previous()
                        || self.policy.refresh_remember && self.verdict.is_touched) =>
            {
                self.at = At::Renew(remember);
                Step::Verify
            }
            _ => Step::Done,
        }
    }

    /// Returns how old the time of last use may get. It is less where writing it also renews a
    /// remember cookie with a short duration.
    fn touch_interval(&self, record: &SessionRecord) -> u32 {
        match record.remember {
            Some(remember) if self.policy.refresh_remember => {
                self.policy.touch.min((remember.seconds / 10).max(1))
            }
            _ => self.policy.touch,
        }
    }

    fn try_remember(&mut self) -> Step<'a> {
        let Some(opened) = self.presented.remember else { return self.nobody() };
        if self.presented.now >= opened.cookie.expires {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        }
        self.at = At::Remember(opened);
        match &self.stored {
            Some((id, _)) if *id == opened.cookie.id => self.remember(opened),
            _ => Step::Load(opened.cookie.id, None),
        }
    }

    fn remember(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        let Some((_, stored)) = &self.stored else { return Step::Done };
        let Some(Stored { record, user }) = stored.clone() else {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        };
        if let Some(ended) = &record.ended {
            if !self.keeps_cookies(ended) {
                self.verdict.remember = RememberChange::Clear;
            }
            return self.nobody();
        }
        if record.acting_user.is_some() {
            return self.nobody();
        }
        let Some(facts) = user else {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        };
        if !facts.remember_stamp_holds {
            return self.nobody();
        }
        if !facts.active && !opened.cookie.origin.is_forced {
            return Step::End(EndReason::Inactive);
        }
        if self.is_expired(opened, &record) {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        }
        Step::Verify
    }

    /// Continues after a lost race. The record may have ended or expired since; the cookie still
    /// fits.
    fn remember_again(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        match self.remember(opened) {
            Step::Verify => self.generation(opened),
            step => step,
        }
    }

    /// Applies the table's rows of p and n.
    fn generation(&mut self, opened: &'a Opened<ServerRemember>) -> Step<'a> {
        let Some(record) = self.record().cloned() else { return Step::Done };
        let (p, n) = (opened.cookie.generation, record.generation);
        let rotated = record.rotated_at.map(|at| self.presented.now.saturating_sub(at.as_secs()));
        if p > n {
            self.verdict.alarm = Some(Alarm::RolledBack);
            return self.nobody();
        }
        if p == n {
            let is_due = rotated.is_none_or(|ago| ago >= self.policy.grace);
            if is_due && !self.presented.is_logout {
                return Step::Rotate;
            }
            self.verdict.is_seen = self.is_unseen(&record) && !self.presented.is_logout;
            return self.restore(opened, opened.slot.is_previous());
        }
        if is_previous(p, &record) {
            if record.seen_at.is_none() {
                return self.restore(opened, true);
            }
            if self.still_counts(&record) {
                return self.restore_once();
            }
        } else if rotated.is_some_and(|ago| ago <= self.policy.grace) {
            return self.nobody();
        }
        self.verdict.alarm = Some(Alarm::Replay);
        Step::End(EndReason::Replay)
    }

    /// Restores the login, with cookies of the record's generation.
    fn restore(&mut self, opened: &Opened<ServerRemember>, with_remember: bool) -> Step<'a> {
        self.restore_once();
        let Some(Stored { record, user: Some(facts) }) =
            self.stored.as_ref().and_then(|(_, stored)| stored.as_ref())
        else {
            return Step::Done;
        };
        if self.presented.is_logout {
            return Step::Done;
        }
        let origin = origin_now(opened.cookie.origin, *facts);
        let generation = record.generation;
        self.verdict.session = SessionChange::Restore(ServerTerms {
            origin,
            is_remembered: true,
            generation,
            issued: self.presented.now,
        });
        if with_remember {
            let expires = expires_of(record).unwrap_or(opened.cookie.expires);
            self.verdict.remember = RememberChange::Issue { origin, generation, expires };
        }
        Step::Done
    }

    /// Restores the login for this request only.
    fn restore_once(&mut self) -> Step<'a> {
        self.at = At::End;
        let user = self.stored.as_ref().and_then(|(_, stored)| stored.as_ref()?.user);
        if let Some(facts) = user {
            self.verdict.who = Who::User { fresh_since: None, active: facts.active };
            self.verdict.is_restored = true;
        }
        Step::Done
    }

    /// Reissues the remember cookie of a valid session, under the current key or for longer.
    fn renew(&mut self, opened: &Opened<ServerRemember>) -> Step<'a> {
        self.at = At::End;
        let Some(Stored { record, user: Some(facts) }) =
            self.stored.as_ref().and_then(|(_, stored)| stored.as_ref())
        else {
            return Step::Done;
        };
        let origin = origin_now(opened.cookie.origin, *facts);
        let generation = record.generation;
        let longer = self.next_remember_expires().filter(|_| self.verdict.is_touched);
        let expires = longer.unwrap_or(opened.cookie.expires);
        self.verdict.remember_expires = longer;
        self.verdict.remember = RememberChange::Issue { origin, generation, expires };
        Step::Done
    }

    fn nobody(&mut self) -> Step<'a> {
        self.at = At::End;
        Step::AskLoaders
    }

    fn put(&mut self, record: Arc<SessionRecord>) {
        if let Some((_, Some(stored))) = &mut self.stored {
            stored.record = record;
        }
    }

    /// Checks whether the browser's first use of this generation has to be recorded. The first
    /// generation has no predecessor that could end, so its first use is recorded only where the
    /// policy says so.
    fn is_unseen(&self, record: &SessionRecord) -> bool {
        record.seen_at.is_none() && (record.rotated_at.is_some() || self.policy.notes_first_use)
    }

    /// Checks whether the cookies of an ended session are left as they are. This is so if a login
    /// in the same browser is so recent that its cookies may still be on the way, or if a newer
    /// node knows more about the end.
    fn keeps_cookies(&self, ended: &Ended) -> bool {
        match ended.reason {
            EndReason::Replaced => {
                self.presented.now.saturating_sub(ended.at.as_secs()) <= self.policy.grace
            }
            EndReason::Unknown(_) => true,
            _ => false,
        }
    }

    /// Checks whether the previous generation still counts. It does until the grace has passed
    /// since the current generation was seen.
    fn still_counts(&self, record: &SessionRecord) -> bool {
        let seen = record.seen_at.map(|at| self.presented.now.saturating_sub(at.as_secs()));
        seen.is_none_or(|ago| ago <= self.policy.grace)
    }

    fn is_expired(&self, opened: &Opened<ServerRemember>, record: &SessionRecord) -> bool {
        let until = expires_of(record).unwrap_or_default();
        self.presented.now >= opened.cookie.expires.min(until)
    }
}

/// Checks whether confirming begins the next generation. `shown` is the generation that the browser
/// has shown, or `None` for a login in this request.
///
/// The record must never be more than one generation ahead of the browser. After two rotations
/// whose responses are both lost, the browser's cookies would look like a replay. So if the record
/// is ahead already, and no request has shown that the browser received the newer generation,
/// confirming does not begin another one.
pub(crate) fn confirming_rotates(record: &SessionRecord, shown: Option<u32>) -> bool {
    shown == Some(record.generation) || record.seen_at.is_some()
}

/// Returns when the remember cookie expires, in seconds since 1970.
fn expires_of(record: &SessionRecord) -> Option<u32> {
    record.remember.map(|remember| remember.expires.as_secs())
}

fn is_previous(generation: u32, record: &SessionRecord) -> bool {
    generation.checked_add(1) == Some(record.generation)
}

#[cfg(test)]
mod tests;
