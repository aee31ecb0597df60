//! Tests the table at the top of the module, row by row.

use tower_keep_core::{RememberPeriod, SessionKey, Timestamp};

use super::*;
use crate::cookie::Proofs;
use crate::keys::KeySlot;

const NOW: u32 = 100_000;
const GRACE: u32 = 60;
const IDLE: u32 = 1_000;
const ABSOLUTE: u32 = 10_000;
const TOUCH: u32 = 100;
/// The record's generation.
const N: u32 = 5;
const ID: SessionId = SessionId([1; 16]);
const OTHER: SessionId = SessionId([2; 16]);

fn policy() -> Policy {
    Policy {
        protection: SessionProtection::Basic,
        persistent: false,
        idle: Some(IDLE),
        renewal: Some(Policy::renewal_of(IDLE)),
        absolute: Some(ABSOLUTE),
        refresh_remember: false,
        grace: GRACE,
        touch: TOUCH,
        notes_first_use: false,
    }
}

fn ago(seconds: u32) -> Timestamp {
    Timestamp::from_secs(NOW - seconds)
}

/// A record of generation N that began and was seen 500 seconds ago, and was used 10 seconds ago.
fn record() -> SessionRecord {
    let (key, expires) = (SessionKey::new([0; 32]), Timestamp::from_secs(NOW + 1_000));
    let mut record = SessionRecord::new(key, "1".into(), [0; 16], ago(5_000), expires);
    record.generation = N;
    (record.rotated_at, record.seen_at) = (Some(ago(500)), Some(ago(500)));
    (record.session_started, record.last_seen) = (ago(500), ago(10));
    record.remember = Some(RememberPeriod::new(expires, 6_000));
    record
}

fn with(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    let mut record = record();
    change(&mut record);
    record
}

fn rotated(seconds: u32, seen: Option<u32>) -> SessionRecord {
    with(|record| {
        record.rotated_at = Some(ago(seconds));
        record.seen_at = seen.map(ago);
    })
}

fn ended(seconds: u32, reason: EndReason) -> SessionRecord {
    with(|record| record.ended = Some(Ended::new(ago(seconds), reason)))
}

/// When the user proved who they are.
const FRESH: u32 = NOW - 400;

const TERMS: ServerTerms =
    ServerTerms { origin: Origin::PASSWORD, is_remembered: true, generation: N, issued: NOW - 400 };

/// The login of an inactive user.
const FORCED: Origin = Origin { is_forced: true, ..Origin::PASSWORD };

fn session(generation: u32) -> Opened<ServerSession> {
    let terms = ServerTerms { generation, ..TERMS };
    let cookie = ServerSession {
        id: ID,
        terms,
        proofs: Proofs::password(FRESH),
        stamp: 1,
        client: 1,
        user_hint: Some("1".into()),
    };
    Opened { cookie, slot: KeySlot::CURRENT }
}

fn remember(generation: u32) -> Opened<ServerRemember> {
    let cookie = ServerRemember {
        id: ID,
        origin: Origin::PASSWORD,
        generation,
        verifier: [0; 16],
        expires: NOW + 1_000,
        stamp: 1,
    };
    Opened { cookie, slot: KeySlot::CURRENT }
}

fn edit<T>(mut opened: Opened<T>, change: impl FnOnce(&mut Opened<T>)) -> Opened<T> {
    change(&mut opened);
    opened
}

/// The user that the store returns.
#[derive(Clone, Copy, PartialEq)]
enum User {
    Gone,
    StampChanged,
    Inactive,
    Fine,
}

/// The outcome of a compare-and-swap.
#[derive(Clone, Copy, PartialEq)]
enum Race {
    Won,
    /// Another request has rotated first, and the new generation is unseen.
    Lost,
    /// The swap fails again and again, for no visible reason.
    Endless,
    /// The session has ended in the meantime.
    Ended,
    Gone,
}

/// One request, and what is stored.
struct Case {
    policy: Policy,
    session: Option<Opened<ServerSession>>,
    remember: Option<Opened<ServerRemember>>,
    same_client: bool,
    is_logout: bool,
    record: Option<SessionRecord>,
    user: User,
    fits: bool,
    race: Race,
}

/// The outcome of a case: the verdict, and a word for each call of the store or the loaders.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Verdict,
    asked: Vec<String>,
}

impl Case {
    fn of(
        session: Option<Opened<ServerSession>>,
        remember: Option<Opened<ServerRemember>>,
        record: Option<SessionRecord>,
    ) -> Self {
        Self {
            policy: policy(),
            session,
            remember,
            same_client: true,
            is_logout: false,
            record,
            user: User::Fine,
            fits: true,
            race: Race::Won,
        }
    }

    fn user(self, user: User) -> Self {
        Self { user, ..self }
    }

    fn race(self, race: Race) -> Self {
        Self { race, ..self }
    }

    fn elsewhere(self) -> Self {
        Self { same_client: false, ..self }
    }

    fn leaving(self) -> Self {
        Self { is_logout: true, ..self }
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn next(record: &SessionRecord) -> SessionRecord {
        let mut next = record.clone();
        next.generation += 1;
        (next.rotated_at, next.seen_at) = (Some(Timestamp::from_secs(NOW)), None);
        next
    }

    fn run(&self) -> Outcome {
        let seen = Presented {
            now: NOW,
            session: self.session.as_ref(),
            remember: self.remember.as_ref(),
            same_client: self.same_client,
            is_logout: self.is_logout,
        };
        let mut rules = Rules::new(&self.policy, seen);
        let mut asked = Vec::new();
        let mut step = rules.start();
        loop {
            step = match step {
                Step::Load(id, _) => {
                    asked.push("load".to_owned());
                    let holds = self.user != User::StampChanged;
                    let active = self.user != User::Inactive;
                    let facts =
                        Facts { active, session_stamp_holds: holds, remember_stamp_holds: holds };
                    let user = (self.user != User::Gone).then_some(facts);
                    let record = self.record.clone().filter(|_| id == ID);
                    rules.loaded(record.map(|record| Stored { record: record.into(), user }))
                }
                Step::Verify => {
                    asked.push("verify".to_owned());
                    rules.verified(self.fits)
                }
                Step::Rotate => {
                    asked.push("rotate".to_owned());
                    let record = SessionRecord::clone(rules.record().unwrap());
                    rules.rotated(match self.race {
                        Race::Won => Some(Rotated::Won(Self::next(&record).into())),
                        Race::Lost => Some(Rotated::Lost(Self::next(&record).into())),
                        Race::Endless => Some(Rotated::Lost(record.into())),
                        Race::Ended => Some(Rotated::Lost(ended(0, EndReason::LoggedOut).into())),
                        Race::Gone => None,
                    })
                }
                Step::End(reason) => {
                    asked.push(reason.to_string());
                    rules.ended(reason, self.race != Race::Ended)
                }
                Step::AskLoaders => {
                    asked.push("loaders".to_owned());
                    break;
                }
                Step::Busy => {
                    asked.push("busy".to_owned());
                    break;
                }
                Step::Done => break,
            };
        }
        Outcome { verdict: rules.finish().0, asked }
    }
}

fn nobody(session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { session, remember, ..Verdict::default() }
}

fn alarmed(alarm: Alarm, session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { alarm: Some(alarm), ..nobody(session, remember) }
}

fn user() -> Verdict {
    Verdict { who: Who::User { fresh_since: Some(FRESH), active: true }, ..Verdict::default() }
}

/// The login is restored for this request only.
fn back() -> Verdict {
    let who = Who::User { fresh_since: None, active: true };
    Verdict { who, is_restored: true, ..Verdict::default() }
}

/// The login is restored, with a session cookie of this generation.
fn restored(generation: u32) -> Verdict {
    let terms = ServerTerms { generation, issued: NOW, ..TERMS };
    Verdict { session: SessionChange::Restore(terms), ..back() }
}

fn with_remember(verdict: Verdict, generation: u32) -> Verdict {
    let remember =
        RememberChange::Issue { origin: Origin::PASSWORD, generation, expires: NOW + 1_000 };
    Verdict { remember, ..verdict }
}

#[test]
fn every_row_of_the_table() {
    use EndReason::{LoggedOut, Replaced, Revoked as ByUser};
    use RememberChange as R;
    use SessionChange as S;
    use SessionProtection::{None as Off, Strong};
    let both = |c, p, record| Case::of(Some(session(c)), Some(remember(p)), Some(record));
    let s = |c, record| Case::of(Some(session(c)), None, Some(record));
    let r = |p, record| Case::of(None, Some(remember(p)), Some(record));
    let (cleared, keep) = (|| nobody(S::Clear, R::Clear), || nobody(S::Keep, R::Keep));
    let clear_session = || nobody(S::Clear, R::Keep);
    let clear_remember = || nobody(S::Keep, R::Clear);
    let protected = |verdict| Verdict { protected: true, ..verdict };
    let seen = |verdict| Verdict { is_seen: true, ..verdict };
    let touched = |verdict| Verdict { is_touched: true, ..verdict };
    let issued =
        |keeps_proofs| Verdict { session: S::Issue { terms: TERMS, keeps_proofs }, ..user() };
    let replay = || alarmed(Alarm::Replay, S::Clear, R::Clear);
    let idle = || with(|record| record.last_seen = ago(IDLE));
    let late = || with(|record| record.session_started = ago(ABSOLUTE));
    let forgotten = || with(|record| record.remember = Some(RememberPeriod::new(ago(0), 6_000)));
    let acted = || with(|record| record.acting_user = Some("admin".into()));
    let plain = || with(|record| record.remember = None);
    let first =
        || with(|record| (record.generation, record.rotated_at, record.seen_at) = (0, None, None));
    let busy = |mut record: SessionRecord| {
        record.last_seen = ago(TOUCH);
        record
    };
    let old_key = |mut case: Case| {
        let slot = KeySlot::new(1, 1);
        case.session = case.session.map(|opened| Opened { slot, ..opened });
        case.remember = case.remember.map(|opened| Opened { slot, ..opened });
        case
    };
    let newer: EndReason = "of_a_newer_node".parse().unwrap();
    let expired = edit(remember(N), |opened| opened.cookie.expires = NOW);
    let elsewhere_remember = edit(remember(N), |opened| opened.cookie.id = OTHER);
    #[rustfmt::skip]
    let table: Vec<(&str, Case, Verdict, &[&str])> = vec![
        // No cookie, or no record.
        ("no cookie", Case::of(None, None, None), keep(), &["loaders"]),
        ("session, no record", Case::of(Some(session(N)), None, None), clear_session(), &["load", "loaders"]),
        ("remember, no record", Case::of(None, Some(remember(N)), None), clear_remember(), &["load", "loaders"]),
        ("both, no record", Case::of(Some(session(N)), Some(remember(N)), None), cleared(), &["load", "loaders"]),
        ("session fine, remember of another session",
            Case { remember: Some(elsewhere_remember.clone()), ..s(N, record()) }, user(), &["load"]),
        ("session ended, remember of another that is gone",
            Case { remember: Some(elsewhere_remember), ..s(N, ended(0, LoggedOut)) }, cleared(), &["load", "load", "loaders"]),
        // Ended.
        ("logged out just now", both(N, N, ended(0, LoggedOut)), cleared(), &["load", "loaders"]),
        ("ended by the user", both(N, N, ended(0, ByUser)), cleared(), &["load", "loaders"]),
        ("replaced just now", both(N, N, ended(0, Replaced)), keep(), &["load", "loaders"]),
        ("replaced at most the grace ago", both(N, N, ended(GRACE, Replaced)), keep(), &["load", "loaders"]),
        ("replaced longer ago", both(N, N, ended(GRACE + 1, Replaced)), cleared(), &["load", "loaders"]),
        ("ended for a reason of a newer version", both(N, N, ended(GRACE + 1, newer)), keep(), &["load", "loaders"]),
        ("the same, remember alone", r(N, ended(0, newer)), keep(), &["load", "loaders"]),
        ("ended, remember alone", r(N, ended(0, LoggedOut)), clear_remember(), &["load", "loaders"]),
        ("replaced, remember alone", r(N, ended(5, Replaced)), keep(), &["load", "loaders"]),
        // Another user acts as this one.
        ("another user acts", both(N, N, acted()), keep(), &["load", "loaders"]),
        ("the same, session alone", s(N, acted()), keep(), &["load", "loaders"]),
        ("the same, remember alone", r(N, acted()), keep(), &["load", "loaders"]),
        // The user.
        ("user gone", both(N, N, record()).user(User::Gone), cleared(), &["load", "loaders"]),
        ("user gone, session", s(N, record()).user(User::Gone), clear_session(), &["load", "loaders"]),
        ("stamp changed", both(N, N, record()).user(User::StampChanged), keep(), &["load", "loaders"]),
        ("stamp changed, remember", r(N, record()).user(User::StampChanged), keep(), &["load", "loaders"]),
        ("inactive", both(N, N, record()).user(User::Inactive), cleared(), &["load", "inactive"]),
        ("inactive, remember", r(N, record()).user(User::Inactive), cleared(), &["load", "inactive"]),
        // The session's limits.
        ("idle for too long", s(N, idle()), clear_session(), &["load", "loaders"]),
        ("too old", s(N, late()), clear_session(), &["load", "loaders"]),
        ("idle, remembered", both(N, N, idle()), with_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("not quite idle", s(N, with(|record| record.last_seen = ago(IDLE - 1))), touched(user()), &["load"]),
        // The session's generation.
        ("c=n", s(N, record()), user(), &["load"]),
        ("c=n, unseen", s(N, rotated(500, None)), seen(user()), &["load"]),
        ("c=n, the first", s(0, first()), user(), &["load"]),
        ("c=n, not used lately", s(N, busy(record())), touched(user()), &["load"]),
        ("c=n, unseen and not used lately", s(N, busy(rotated(500, None))), touched(seen(user())), &["load"]),
        ("c=n-1, unseen", s(N - 1, rotated(500, None)), user(), &["load"]),
        ("c=n-1, seen the grace ago", s(N - 1, rotated(500, Some(GRACE))), user(), &["load"]),
        ("c=n-1, seen before", s(N - 1, rotated(500, Some(GRACE + 1))), keep(), &["load", "loaders"]),
        ("c=n-2, unseen", s(N - 2, rotated(500, None)), keep(), &["load", "loaders"]),
        ("c>n", s(N + 1, record()), keep(), &["load", "loaders"]),
        ("c=n-2, p=n", both(N - 2, N, record()), with_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        // The client.
        ("elsewhere, protection off", s(N, record()).with(|policy| policy.protection = Off).elsewhere(), user(), &["load"]),
        ("elsewhere, basic protection", s(N, record()).elsewhere(), protected(Verdict {
            who: Who::User { fresh_since: None, active: true }, ..issued(false) }), &["load"]),
        ("elsewhere, strong protection", both(N, N, record()).with(|policy| policy.protection = Strong).elsewhere(),
            protected(cleared()), &["load", "protection"]),
        ("elsewhere, strong protection, dead copy",
            s(N - 2, record()).with(|policy| policy.protection = Strong).elsewhere(), keep(), &["load", "loaders"]),
        ("elsewhere, persistent", s(N, record()).elsewhere().with(|policy| {
            policy.protection = Strong;
            policy.persistent = true;
        }), protected(Verdict { who: Who::User { fresh_since: None, active: true }, ..issued(false) }), &["load"]),
        // Reissued.
        ("old key", old_key(s(N, record())), issued(true), &["load"]),
        ("old key, c=n-1", old_key(s(N - 1, rotated(500, None))), user(), &["load"]),
        ("elsewhere, c=n-1", s(N - 1, rotated(500, None)).elsewhere(), protected(Verdict {
            who: Who::User { fresh_since: None, active: true }, ..Verdict::default() }), &["load"]),
        ("old key, both", old_key(both(N, N, record())), with_remember(issued(true), N), &["load", "verify"]),
        ("old key, p=n-1", old_key(both(N, N - 1, record())), issued(true), &["load"]),
        ("persistent, not used lately", s(N, busy(record())).with(|policy| policy.persistent = true),
            touched(issued(true)), &["load"]),
        // The remember cookie's time.
        ("expired", Case { remember: Some(expired), ..Case::of(None, None, Some(record())) }, clear_remember(), &["loaders"]),
        ("expired in the record", r(N, forgotten()), clear_remember(), &["load", "loaders"]),
        ("not remembered in the record", r(N, plain()), clear_remember(), &["load", "loaders"]),
        // The remember cookie's generation.
        ("wrong verifier", Case { fits: false, ..r(N, record()) },
            alarmed(Alarm::WrongVerifier, S::Keep, R::Keep), &["load", "verify", "loaders"]),
        ("p=n, never rotated", r(0, first()), with_remember(restored(1), 1), &["load", "verify", "rotate"]),
        ("p=n, rotated the grace ago", r(N, rotated(GRACE, Some(GRACE))),
            with_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("p=n, rotated less than the grace ago", r(N, rotated(GRACE - 1, Some(5))), restored(N), &["load", "verify"]),
        ("p=n, rotated lately, unseen", r(N, rotated(GRACE - 1, None)), seen(restored(N)), &["load", "verify"]),
        ("p=n, rotated lately, old key", old_key(r(N, rotated(GRACE - 1, Some(5)))),
            with_remember(restored(N), N), &["load", "verify"]),
        ("p=n, lost", r(N, record()).race(Race::Lost),
            with_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("p=n, lost again and again", r(N, record()).race(Race::Endless), keep(),
            &["load", "verify", "rotate", "rotate", "rotate", "busy"]),
        ("p=n, ended meanwhile", r(N, record()).race(Race::Ended), clear_remember(),
            &["load", "verify", "rotate", "loaders"]),
        ("p=n, gone meanwhile", r(N, record()).race(Race::Gone), clear_remember(),
            &["load", "verify", "rotate", "loaders"]),
        ("p=n-1, unseen", r(N - 1, rotated(5_000, None)), with_remember(restored(N), N), &["load", "verify"]),
        ("p=n-1, seen the grace ago", r(N - 1, rotated(500, Some(GRACE))), back(), &["load", "verify"]),
        ("p=n-1, seen before", r(N - 1, rotated(500, Some(GRACE + 1))), replay(), &["load", "verify", "replay", "loaders"]),
        ("p=n-2, rotated the grace ago", r(N - 2, rotated(GRACE, Some(GRACE))), keep(), &["load", "verify", "loaders"]),
        ("p=n-2, rotated before", r(N - 2, rotated(GRACE + 1, None)), replay(), &["load", "verify", "replay", "loaders"]),
        ("a replay that another has ended", r(N - 2, rotated(GRACE + 1, None)).race(Race::Ended),
            alarmed(Alarm::Replay, S::Keep, R::Keep), &["load", "verify", "replay", "loaders"]),
        ("p=0, rotated before", r(0, rotated(500, Some(500))), replay(), &["load", "verify", "replay", "loaders"]),
        ("p>n", r(N + 1, record()), alarmed(Alarm::RolledBack, S::Keep, R::Keep), &["load", "verify", "loaders"]),
        ("rotated in the future: clocks differ",
            r(N, with(|record| record.rotated_at = Some(Timestamp::from_secs(NOW + 30)))), restored(N), &["load", "verify"]),
        // Logging out rotates nothing and records nothing.
        ("leaving, session", s(N, busy(rotated(500, None))).leaving(), user(), &["load"]),
        ("leaving, remember", r(N, record()).leaving(), back(), &["load", "verify"]),
        ("leaving, remember of before", r(N - 1, rotated(500, None)).leaving(), back(), &["load", "verify"]),
        ("leaving, replay", r(N - 1, record()).leaving(), replay(), &["load", "verify", "replay", "loaders"]),
    ];
    for (name, case, verdict, asked) in table {
        let asked = asked.iter().map(ToString::to_string).collect();
        assert_eq!(case.run(), Outcome { verdict, asked }, "{name}");
    }
}

#[test]
fn refresh_starts_the_time_of_remembering_anew_when_the_use_is_noted() {
    let refresh = |case: Case| case.with(|policy| policy.refresh_remember = true);
    let both = |record| refresh(Case::of(Some(session(N)), Some(remember(N)), Some(record)));
    assert_eq!(both(record()).run().verdict, user());
    let busy = with(|record| record.last_seen = ago(TOUCH));
    let expires = NOW + 6_000;
    let renewed = Verdict {
        remember: RememberChange::Issue { origin: Origin::PASSWORD, generation: N, expires },
        remember_expires: Some(expires),
        is_touched: true,
        ..user()
    };
    assert_eq!(both(busy.clone()).run().verdict, renewed);
    // A cookie that does not fit is not renewed, and no cookie is issued where there was none.
    let touched = || Verdict { is_touched: true, ..user() };
    assert_eq!(Case { fits: false, ..both(busy.clone()) }.run().verdict, touched());
    let alone = refresh(Case::of(Some(session(N)), None, Some(busy)));
    assert_eq!(alone.run().verdict, touched());
    // A remember cookie with a short duration is renewed more often.
    let short = with(|record| {
        record.remember = Some(RememberPeriod::new(record.expires, 100));
    });
    assert_eq!(both(short).run().verdict.remember_expires, Some(NOW + 100));
}

#[test]
fn a_forced_login_of_an_inactive_user_goes_on() {
    let mut forced = session(N);
    forced.cookie.terms.origin = FORCED;
    let case = |user| Case::of(Some(forced.clone()), None, Some(record())).user(user);
    let verdict = case(User::Inactive).run().verdict;
    assert_eq!(verdict.who, Who::User { fresh_since: Some(FRESH), active: false });
    // A user who becomes active no longer needs the flag.
    let issued =
        Verdict { session: SessionChange::Issue { terms: TERMS, keeps_proofs: true }, ..user() };
    assert_eq!(case(User::Fine).run().verdict, issued);
}

#[test]
fn confirming_goes_one_generation_ahead_of_what_the_browser_has_shown() {
    for (record, shown, rotates) in [
        (record(), Some(N), true),
        (rotated(500, None), Some(N), true),
        (rotated(500, None), Some(N - 1), false),
        (rotated(500, None), None, false),
        // The generation was seen, so the browser holds it, whatever this request has shown.
        (rotated(500, Some(5)), Some(N - 1), true),
    ] {
        assert_eq!(confirming_rotates(&record, shown), rotates, "{shown:?} of {record:?}");
    }
}

#[test]
fn a_session_lives_as_long_as_its_latest_limit() {
    let policy = policy();
    assert_eq!(policy.lives_until(NOW, NOW - 9_500, None), NOW + 500);
    assert_eq!(policy.lives_until(NOW, NOW, None), NOW + IDLE);
    assert_eq!(policy.lives_until(NOW, NOW, Some(NOW + 5_000)), NOW + 5_000);
    let limitless = Policy { idle: None, absolute: None, ..policy };
    assert_eq!(limitless.lives_until(NOW, NOW, Some(NOW)), u32::MAX);
}
