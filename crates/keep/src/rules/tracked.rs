//! Where a login has a record: its generations, and what a replay looks like.
//!
//! n is the record's generation, c that of the session cookie, p that of the remember cookie, G the
//! grace. In order, the first that applies:
//!
//! | presented | condition | who | store | cookies |
//! | --- | --- | --- | --- | --- |
//! | any | no record | try remember | | clear |
//! | any | ended | try remember | | clear; none if replaced at most G ago |
//! | any | user gone | try remember | | clear |
//! | any | stamp changed | try remember | | - |
//! | any | user inactive, and the login was not forced | nobody; loaders are not asked | end | clear both |
//! | session | past its idle or absolute limit | try remember | | clear |
//! | session | not (c=n, or c=n-1 and n unseen or seen at most G ago) | try remember | | - |
//! | session | another client, strong protection | nobody; loaders are not asked | end | clear both |
//! | session | another client, basic protection | go on, no longer fresh | | session n, if c=n |
//! | session | else | the user | note that n is seen, and the use | session n, if c=n and its key is old |
//! | remember | expired | ask the loaders | | clear |
//! | remember | wrong verifier | ask the loaders | | none; event |
//! | remember | p=n, never rotated or at least G ago | the user | rotate; lost: again | session n+1, remember n+1 |
//! | remember | p=n, rotated less than G ago | the user | note that n is seen | session n |
//! | remember | p=n-1, n unseen | the user | | session n, remember n |
//! | remember | p=n-1, n seen at most G ago | the user, this once | | none: they would be a thief's |
//! | remember | p=n-1, n seen before that | ask the loaders | end: replay | clear; event |
//! | remember | p≤n-2, rotated at most G ago | ask the loaders | | none |
//! | remember | p≤n-2 | ask the loaders | end: replay | clear; event |
//! | remember | p>n: the store was set back | ask the loaders | | none; event |
//!
//! "Try remember" asks the loaders where there is no remember cookie; where it is of the same
//! session, the same record is looked at. What has no genuine seal counts as not presented.
//!
//! A request that logs out is resolved without rotating anything. Confirming rotates whatever the
//! interval, where [`confirming_rotates`] says so.

use std::sync::Arc;

use tower_keep_core::{EndReason, Ended, Rotated, SessionRecord, UserId};

use super::{Facts, Policy, Who, flags_of};
use crate::SessionProtection;
use crate::cookie::{
    FORCED, Held, REMEMBERED, SessionId, TrackedRemember, TrackedSession, TrackedTerms,
};

/// How often a lost compare-and-swap is tried again.
const RETRIES: u8 = 2;

/// What a request presented; only what is genuine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) now: u32,
    pub(crate) session: Option<&'a Held<TrackedSession>>,
    pub(crate) remember: Option<&'a Held<TrackedRemember>>,
    /// Whether the client is the one that the session was made for.
    pub(crate) same_client: bool,
    /// The request logs out.
    pub(crate) is_leaving: bool,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// Load this session and its user, then call [`Rules::loaded`].
    Load(SessionId, Option<&'a UserId>),
    /// See whether the remember cookie fits this record, then call [`Rules::verified`].
    Verify,
    /// Compare and swap this record's generation, then call [`Rules::rotated`].
    Rotate,
    /// End this record, then call [`Rules::ended`].
    End(EndReason),
    /// The cookies name nobody: ask the request loaders, then finish.
    AskLoaders,
    /// All is decided.
    Done,
    /// Too many others change the record at once: a fault.
    Busy,
}

/// What becomes of the session cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum SessionChange {
    #[default]
    Keep,
    Clear,
    /// Made out anew with these terms.
    Issue(TrackedTerms),
    /// A new one for a user whom the remember cookie has brought back.
    Restore(TrackedTerms),
}

/// What becomes of the remember cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RememberChange {
    #[default]
    Keep,
    Clear,
    /// Made out anew for this generation.
    Issue {
        flags: u8,
        generation: u32,
        expires: u32,
    },
}

/// Something that should not happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alarm {
    /// A superseded remember cookie came back.
    Replay,
    /// A remember cookie with a genuine seal and a wrong verifier.
    WrongVerifier,
    /// A cookie of a later generation than the store knows of.
    RolledBack,
}

/// What the rules have come to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) who: Who,
    /// The remember cookie has brought the user back.
    pub(crate) is_restored: bool,
    pub(crate) session: SessionChange,
    pub(crate) remember: RememberChange,
    /// Session protection has found another client.
    pub(crate) protected: bool,
    pub(crate) alarm: Option<Alarm>,
    /// The browser has shown that it holds the record's generation, for the first time.
    pub(crate) is_seen: bool,
    /// The record's note of its last use is old.
    pub(crate) is_touched: bool,
    /// Until when the remember cookie is to count, where its time starts anew.
    pub(crate) remember_expires: Option<u32>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    policy: &'a Policy,
    seen: Seen<'a>,
    at: At<'a>,
    /// What was loaded last, and for which session.
    stored: Option<(SessionId, Option<Stored>)>,
    lost: u8,
    verdict: Verdict,
}

/// A record and what must be known of its user.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) record: Arc<SessionRecord>,
    /// `None` if the user is gone.
    pub(crate) user: Option<Facts>,
}

#[derive(Clone, Copy, Debug)]
enum At<'a> {
    Session(&'a Held<TrackedSession>),
    Remember(&'a Held<TrackedRemember>),
    /// The session is fine, and its remember cookie is looked at for being made out anew.
    Renew(&'a Held<TrackedRemember>),
    End,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policy: &'a Policy, seen: Seen<'a>) -> Self {
        let verdict = Verdict::default();
        Self { policy, seen, at: At::End, stored: None, lost: 0, verdict }
    }

    pub(crate) fn start(&mut self) -> Step<'a> {
        let Some(held) = self.seen.session else { return self.try_remember() };
        self.at = At::Session(held);
        let likely = &held.cookie.likely;
        Step::Load(held.cookie.id, Some(likely).filter(|id| !id.as_str().is_empty()))
    }

    /// What the last step asked for; `None` if there is no such record.
    pub(crate) fn loaded(&mut self, stored: Option<Stored>) -> Step<'a> {
        match self.at {
            At::Session(held) => {
                self.stored = Some((held.cookie.id, stored));
                self.session(held)
            }
            At::Remember(held) => {
                self.stored = Some((held.cookie.id, stored));
                self.remember(held)
            }
            At::Renew(_) | At::End => Step::Done,
        }
    }

    /// Whether the remember cookie fits the record.
    pub(crate) fn verified(&mut self, fits: bool) -> Step<'a> {
        match (self.at, fits) {
            (At::Remember(held), true) => self.generation(held),
            (At::Renew(held), true) => self.renew(held),
            (At::Renew(_), false) => Step::Done,
            _ => {
                self.verdict.alarm = Some(Alarm::WrongVerifier);
                self.nobody()
            }
        }
    }

    /// What became of the compare-and-swap; `None` if the record is gone.
    pub(crate) fn rotated(&mut self, rotated: Option<Rotated>) -> Step<'a> {
        let At::Remember(held) = self.at else { return Step::Done };
        match rotated {
            None => {
                self.verdict.remember = RememberChange::Clear;
                self.nobody()
            }
            Some(Rotated::Won(record)) => {
                self.put(record);
                self.restore(held, true)
            }
            Some(Rotated::Lost(record)) => {
                self.lost += 1;
                self.put(record);
                if self.lost > RETRIES { Step::Busy } else { self.remember_again(held) }
            }
        }
    }

    /// The record was ended, by this request or by another that was faster. What the other did is
    /// not known: perhaps a login has replaced it, whose cookies must stay.
    pub(crate) fn ended(&mut self, reason: EndReason, by_this: bool) -> Step<'a> {
        if by_this {
            self.verdict.session = SessionChange::Clear;
            self.verdict.remember = RememberChange::Clear;
        }
        match reason {
            EndReason::Replay => self.nobody(),
            // Whose session was thrown out gets no second opinion from the loaders.
            _ => {
                self.at = At::End;
                Step::Done
            }
        }
    }

    /// The record that was looked at last.
    pub(crate) fn record(&self) -> Option<&Arc<SessionRecord>> {
        self.stored.as_ref()?.1.as_ref().map(|stored| &stored.record)
    }

    /// Until when the remember cookie of the next generation is to count, if longer than now.
    pub(crate) fn next_remember_expires(&self) -> Option<u32> {
        let record = self.record().filter(|_| self.policy.refresh_remember)?;
        record.remember_expires?;
        Some(self.seen.now.saturating_add(record.remember_seconds))
    }

    pub(crate) fn finish(self) -> (Verdict, Option<Arc<SessionRecord>>) {
        (self.verdict, self.stored.and_then(|(_, stored)| stored).map(|stored| stored.record))
    }

    fn session(&mut self, held: &'a Held<TrackedSession>) -> Step<'a> {
        let Some((_, stored)) = &self.stored else { return Step::Done };
        let Some(Stored { record, user }) = stored.clone() else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if let Some(ended) = &record.ended {
            if !self.is_just_replaced(ended) {
                self.verdict.session = SessionChange::Clear;
            }
            return self.try_remember();
        }
        let Some(facts) = user else {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        };
        if !facts.session_stamp_holds {
            return self.try_remember();
        }
        let terms = held.cookie.terms;
        if !facts.active && terms.flags & FORCED == 0 {
            return Step::End(EndReason::Inactive);
        }
        let (used, started) = (record.last_seen.as_secs(), record.session_started.as_secs());
        if self.policy.is_over(used, started, self.seen.now) {
            self.verdict.session = SessionChange::Clear;
            return self.try_remember();
        }
        let is_current = terms.generation == record.generation;
        let counts =
            is_current || is_previous(terms.generation, &record) && self.still_counts(&record);
        if !counts {
            return self.try_remember();
        }
        if !self.seen.same_client && self.policy.protection != SessionProtection::None {
            self.verdict.protected = true;
            if self.policy.protection == SessionProtection::Strong && !self.policy.persistent {
                return Step::End(EndReason::Protection);
            }
        }
        self.go_on(held, &record, facts, is_current)
    }

    /// The session is fine.
    fn go_on(
        &mut self,
        held: &Held<TrackedSession>,
        record: &SessionRecord,
        facts: Facts,
        is_current: bool,
    ) -> Step<'a> {
        let terms = held.cookie.terms;
        let fresh = if self.verdict.protected { 0 } else { terms.fresh };
        let flags = flags_of(terms.flags, facts);
        self.verdict.who = Who::User { fresh, active: facts.active };
        self.at = At::End;
        if self.seen.is_leaving {
            return Step::Done;
        }
        let unused = self.seen.now.saturating_sub(record.last_seen.as_secs());
        self.verdict.is_touched = unused >= self.touch_interval(record);
        self.verdict.is_seen = is_current && self.is_unseen(record);
        let is_changed = fresh != terms.fresh || flags != terms.flags;
        let is_renewed = self.policy.persistent && self.verdict.is_touched;
        // Only of the present generation: an older one would come in the place of a newer one.
        if is_current && (is_changed || is_renewed || held.slot.is_previous()) {
            self.verdict.session = SessionChange::Issue(TrackedTerms { flags, fresh, ..terms });
        }
        match self.seen.remember {
            Some(remember)
                if remember.cookie.id == held.cookie.id
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

    /// How old the note of the last use may get: less where it also renews a short remembering.
    fn touch_interval(&self, record: &SessionRecord) -> u32 {
        let renews = self.policy.refresh_remember && record.remember_expires.is_some();
        let tenth = (record.remember_seconds / 10).max(1);
        if renews { self.policy.touch.min(tenth) } else { self.policy.touch }
    }

    fn try_remember(&mut self) -> Step<'a> {
        let Some(held) = self.seen.remember else { return self.nobody() };
        if self.seen.now >= held.cookie.expires {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        }
        self.at = At::Remember(held);
        match &self.stored {
            Some((id, _)) if *id == held.cookie.id => self.remember(held),
            _ => Step::Load(held.cookie.id, None),
        }
    }

    fn remember(&mut self, held: &'a Held<TrackedRemember>) -> Step<'a> {
        let Some((_, stored)) = &self.stored else { return Step::Done };
        let Some(Stored { record, user }) = stored.clone() else {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        };
        if let Some(ended) = &record.ended {
            if !self.is_just_replaced(ended) {
                self.verdict.remember = RememberChange::Clear;
            }
            return self.nobody();
        }
        let Some(facts) = user else {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        };
        if !facts.remember_stamp_holds {
            return self.nobody();
        }
        if !facts.active && held.cookie.flags & FORCED == 0 {
            return Step::End(EndReason::Inactive);
        }
        if self.is_expired(held, &record) {
            self.verdict.remember = RememberChange::Clear;
            return self.nobody();
        }
        Step::Verify
    }

    /// After a lost race: the record may have ended or expired since, the cookie still fits.
    fn remember_again(&mut self, held: &'a Held<TrackedRemember>) -> Step<'a> {
        match self.remember(held) {
            Step::Verify => self.generation(held),
            step => step,
        }
    }

    /// The rows of p and n.
    fn generation(&mut self, held: &'a Held<TrackedRemember>) -> Step<'a> {
        let Some(record) = self.record().cloned() else { return Step::Done };
        let (p, n) = (held.cookie.generation, record.generation);
        let rotated = record.rotated_at.map(|at| self.seen.now.saturating_sub(at.as_secs()));
        if p > n {
            self.verdict.alarm = Some(Alarm::RolledBack);
            return self.nobody();
        }
        if p == n {
            let is_due = rotated.is_none_or(|ago| ago >= self.policy.grace);
            if is_due && !self.seen.is_leaving {
                return Step::Rotate;
            }
            self.verdict.is_seen = self.is_unseen(&record) && !self.seen.is_leaving;
            return self.restore(held, held.slot.is_previous());
        }
        if is_previous(p, &record) {
            if record.seen_at.is_none() {
                return self.restore(held, true);
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

    /// The user is back, with cookies of the record's generation.
    fn restore(&mut self, held: &Held<TrackedRemember>, with_remember: bool) -> Step<'a> {
        self.restore_once();
        let Some(Stored { record, user: Some(facts) }) =
            self.stored.as_ref().and_then(|(_, stored)| stored.as_ref())
        else {
            return Step::Done;
        };
        if self.seen.is_leaving {
            return Step::Done;
        }
        let flags = flags_of(held.cookie.flags, *facts) & FORCED;
        let generation = record.generation;
        self.verdict.session = SessionChange::Restore(TrackedTerms {
            flags: flags | REMEMBERED,
            generation,
            issued: self.seen.now,
            fresh: 0,
        });
        if with_remember {
            let expires = record.remember_expires.map_or(held.cookie.expires, |at| at.as_secs());
            self.verdict.remember = RememberChange::Issue { flags, generation, expires };
        }
        Step::Done
    }

    /// The user is back, for this request.
    fn restore_once(&mut self) -> Step<'a> {
        self.at = At::End;
        let user = self.stored.as_ref().and_then(|(_, stored)| stored.as_ref()?.user);
        if let Some(facts) = user {
            self.verdict.who = Who::User { fresh: 0, active: facts.active };
            self.verdict.is_restored = true;
        }
        Step::Done
    }

    /// The remember cookie beside a session that is fine: under the current key, or for longer.
    fn renew(&mut self, held: &Held<TrackedRemember>) -> Step<'a> {
        self.at = At::End;
        let Some(Stored { record, user: Some(facts) }) =
            self.stored.as_ref().and_then(|(_, stored)| stored.as_ref())
        else {
            return Step::Done;
        };
        let flags = flags_of(held.cookie.flags, *facts);
        let generation = record.generation;
        let longer = self.next_remember_expires().filter(|_| self.verdict.is_touched);
        let expires = longer.unwrap_or(held.cookie.expires);
        self.verdict.remember_expires = longer;
        self.verdict.remember = RememberChange::Issue { flags, generation, expires };
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

    /// Whether it is to be noted that a browser holds this generation. The first one has no predecessor
    /// that could end.
    fn is_unseen(&self, record: &SessionRecord) -> bool {
        record.seen_at.is_none() && (record.rotated_at.is_some() || self.policy.notes_first_use)
    }

    /// A login in the same browser is so recent that its cookies may still be on the way.
    fn is_just_replaced(&self, ended: &Ended) -> bool {
        ended.reason == EndReason::Replaced
            && self.seen.now.saturating_sub(ended.at.as_secs()) <= self.policy.grace
    }

    /// Whether the previous generation still counts: until the present one was seen, and the grace.
    fn still_counts(&self, record: &SessionRecord) -> bool {
        let seen = record.seen_at.map(|at| self.seen.now.saturating_sub(at.as_secs()));
        seen.is_none_or(|ago| ago <= self.policy.grace)
    }

    fn is_expired(&self, held: &Held<TrackedRemember>, record: &SessionRecord) -> bool {
        let until = record.remember_expires.map_or(0, |at| at.as_secs());
        self.seen.now >= held.cookie.expires.min(until)
    }
}

/// Whether confirming begins the next generation, given the one that the browser has shown; none of a
/// login in this request.
///
/// The next one is one after what the browser holds, and no more: of two steps at once both answers
/// could be lost, and what the browser holds would look like a replay. So if the record is ahead of the
/// browser already, and nobody has shown that the step has arrived, it is not taken again.
pub(crate) fn confirming_rotates(record: &SessionRecord, shown: Option<u32>) -> bool {
    shown == Some(record.generation) || record.seen_at.is_some()
}

fn is_previous(generation: u32, record: &SessionRecord) -> bool {
    generation.checked_add(1) == Some(record.generation)
}

#[cfg(test)]
mod tests;
