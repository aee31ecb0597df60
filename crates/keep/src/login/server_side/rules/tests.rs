//! Tests the table at the top of `rules.rs`, row by row.

use tower_keep_core::{RememberPeriod, SessionKey, Timestamp};

use super::*;
use crate::client::SessionProtection;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::Proofs;
use crate::login::rules_fixtures::{
    ABSOLUTE, FORCED, GRACE, IDLE, NOW, TOUCH, User, opened, policy,
};

/// The record's generation.
const N: u32 = 5;
const ID: SessionId = SessionId([1; 16]);
const OTHER_ID: SessionId = SessionId([2; 16]);

fn ago(seconds: u32) -> Timestamp {
    Timestamp::from_secs(NOW - seconds)
}

/// A record of generation N, which began and was seen 500 seconds ago. It was last used 10 seconds
/// ago.
fn record() -> SessionRecord {
    let (key, expires) = (SessionKey::new([0; 32]), Timestamp::from_secs(NOW + 1_000));
    let mut record = SessionRecord::new(key, "1".into(), [0; 16], ago(5_000), expires);
    record.generation = N;
    (record.rotated_at, record.seen_at) = (Some(ago(500)), Some(ago(500)));
    (record.session_started, record.last_seen) = (ago(500), ago(10));
    record.remember = Some(RememberPeriod::new(expires, 6_000));
    record
}

fn record_with(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    let mut record = record();
    change(&mut record);
    record
}

fn rotated_ago(seconds: u32, seen_ago: Option<u32>) -> SessionRecord {
    record_with(|record| {
        record.rotated_at = Some(ago(seconds));
        record.seen_at = seen_ago.map(ago);
    })
}

fn ended_ago(seconds: u32, reason: EndReason) -> SessionRecord {
    record_with(|record| record.ended = Some(Ended::new(ago(seconds), reason)))
}

/// When the user last proved who they are.
const PROVED_AT: u32 = NOW - 400;

const TERMS: ServerTerms = ServerTerms {
    login_origin: LoginOrigin::PASSWORD,
    is_remembered: true,
    generation: N,
    issued: NOW - 400,
};

fn session(generation: u32) -> Opened<ServerSession> {
    let terms = ServerTerms { generation, ..TERMS };
    opened(ServerSession {
        id: ID,
        terms,
        proofs: Proofs::password(PROVED_AT),
        stamp: 1,
        client: 1,
        user_hint: Some("1".into()),
    })
}

fn remember(generation: u32) -> Opened<ServerRemember> {
    opened(ServerRemember {
        id: ID,
        login_origin: LoginOrigin::PASSWORD,
        generation,
        verifier: [0; 16],
        expires: NOW + 1_000,
        stamp: 1,
    })
}

fn edit<T>(mut opened: Opened<T>, change: impl FnOnce(&mut Opened<T>)) -> Opened<T> {
    change(&mut opened);
    opened
}

/// What happens when the request rotates or ends the session.
#[derive(Clone, Copy, PartialEq)]
enum Race {
    Won,
    /// Another request has rotated first, and the new generation is unseen.
    Lost,
    /// The rotation loses every time.
    AlwaysLost,
    /// Another request has ended the session first.
    Ended,
    /// The record was removed.
    Gone,
}

/// One request, and the record and the user in the store.
struct Case {
    policy: Policy,
    session: Option<Opened<ServerSession>>,
    remember: Option<Opened<ServerRemember>>,
    is_same_client: bool,
    is_logout: bool,
    record: Option<SessionRecord>,
    user: User,
    verifier_matches: bool,
    race: Race,
}

/// The outcome of a case: the verdict, and a word for each step.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Verdict,
    steps: Vec<String>,
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
            is_same_client: true,
            is_logout: false,
            record,
            user: User::Fine,
            verifier_matches: true,
            race: Race::Won,
        }
    }

    fn with_user(self, user: User) -> Self {
        Self { user, ..self }
    }

    fn with_race(self, race: Race) -> Self {
        Self { race, ..self }
    }

    fn on_another_client(self) -> Self {
        Self { is_same_client: false, ..self }
    }

    fn logging_out(self) -> Self {
        Self { is_logout: true, ..self }
    }

    fn with_policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn rotated(record: &SessionRecord) -> SessionRecord {
        let mut next = record.clone();
        next.generation += 1;
        (next.rotated_at, next.seen_at) = (Some(Timestamp::from_secs(NOW)), None);
        next
    }

    fn run(&self) -> Outcome {
        let presented = Presented {
            now: NOW,
            session: self.session.as_ref(),
            remember: self.remember.as_ref(),
            is_same_client: self.is_same_client,
            is_logout: self.is_logout,
        };
        let mut rules = Rules::new(&self.policy, presented);
        let mut steps = Vec::new();
        let mut step = rules.start();
        loop {
            step = match step {
                Step::Load { id, .. } => {
                    steps.push("load".to_owned());
                    let user = self.user.facts();
                    let record = self.record.clone().filter(|_| id == ID);
                    rules.loaded(record.map(|record| StoredSession { record: record.into(), user }))
                }
                Step::CheckVerifier => {
                    steps.push("verify".to_owned());
                    rules.verifier_checked(self.verifier_matches)
                }
                Step::Rotate => {
                    steps.push("rotate".to_owned());
                    let record = SessionRecord::clone(rules.record().unwrap());
                    rules.rotated(match self.race {
                        Race::Won => Some(Rotated::Won(Self::rotated(&record).into())),
                        Race::Lost => Some(Rotated::Lost(Self::rotated(&record).into())),
                        Race::AlwaysLost => Some(Rotated::Lost(record.into())),
                        Race::Ended => {
                            Some(Rotated::Lost(ended_ago(0, EndReason::LoggedOut).into()))
                        }
                        Race::Gone => None,
                    })
                }
                Step::End(reason) => {
                    steps.push(reason.to_string());
                    rules.ended(reason, self.race != Race::Ended)
                }
                Step::AskLoaders => {
                    steps.push("loaders".to_owned());
                    break;
                }
                Step::Busy => {
                    steps.push("busy".to_owned());
                    break;
                }
                Step::Done => break,
            };
        }
        Outcome { verdict: rules.finish().0, steps }
    }
}

fn no_user(session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { session, remember, ..Verdict::default() }
}

fn no_user_alarm(alarm: Alarm, session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { alarm: Some(alarm), ..no_user(session, remember) }
}

fn user() -> Verdict {
    Verdict {
        logged_in: LoggedIn::User { fresh_since: Some(PROVED_AT), is_active: true },
        ..Verdict::default()
    }
}

/// The verdict if the login is restored for this request only.
fn restored_for_this_request() -> Verdict {
    let logged_in = LoggedIn::User { fresh_since: None, is_active: true };
    Verdict { logged_in, is_restored: true, ..Verdict::default() }
}

/// The verdict if the login is restored with a session cookie of this generation.
fn restored(generation: u32) -> Verdict {
    let terms = ServerTerms { generation, issued: NOW, ..TERMS };
    Verdict { session: SessionChange::Restore(terms), ..restored_for_this_request() }
}

fn issuing_remember(verdict: Verdict, generation: u32) -> Verdict {
    let remember = RememberChange::Reissue {
        login_origin: LoginOrigin::PASSWORD,
        generation,
        expires: NOW + 1_000,
    };
    Verdict { remember, ..verdict }
}

#[test]
fn the_rules_follow_every_row_of_the_table() {
    use EndReason::{LoggedOut, Replaced, Revoked as ByUser};
    use RememberChange as R;
    use SessionChange as S;
    use SessionProtection::{None as Off, Strong};
    let both = |c, p, record| Case::of(Some(session(c)), Some(remember(p)), Some(record));
    let session_only = |c, record| Case::of(Some(session(c)), None, Some(record));
    let remember_only = |p, record| Case::of(None, Some(remember(p)), Some(record));
    let (clear_both, keep_both) = (|| no_user(S::Clear, R::Clear), || no_user(S::Keep, R::Keep));
    let clear_session = || no_user(S::Clear, R::Keep);
    let clear_remember = || no_user(S::Keep, R::Clear);
    let other_client = |verdict| Verdict { is_other_client: true, ..verdict };
    let marking_seen = |verdict| Verdict { marks_seen: true, ..verdict };
    let touching = |verdict| Verdict { is_touched: true, ..verdict };
    let reissuing_session =
        |keeps_proofs| Verdict { session: S::Reissue { terms: TERMS, keeps_proofs }, ..user() };
    let replay = || no_user_alarm(Alarm::Replay, S::Clear, R::Clear);
    let idle = || record_with(|record| record.last_seen = ago(IDLE));
    let too_old = || record_with(|record| record.session_started = ago(ABSOLUTE));
    let remember_expired =
        || record_with(|record| record.remember = Some(RememberPeriod::new(ago(0), 6_000)));
    let acted_for = || record_with(|record| record.acting_user = Some("admin".into()));
    let not_remembered = || record_with(|record| record.remember = None);
    let first_generation = || {
        record_with(|record| {
            (record.generation, record.rotated_at, record.seen_at) = (0, None, None)
        })
    };
    let due_for_touch = |mut record: SessionRecord| {
        record.last_seen = ago(TOUCH);
        record
    };
    let with_previous_key = |mut case: Case| {
        let slot = KeySlot::new(1, 1);
        case.session = case.session.map(|opened| Opened { slot, ..opened });
        case.remember = case.remember.map(|opened| Opened { slot, ..opened });
        case
    };
    let unknown_reason: EndReason = "of_a_newer_node".parse().unwrap();
    let expired_remember = edit(remember(N), |opened| opened.cookie.expires = NOW);
    let other_remember = edit(remember(N), |opened| opened.cookie.id = OTHER_ID);
    #[rustfmt::skip]
    let table: Vec<(&str, Case, Verdict, &[&str])> = vec![
        // No cookie, or no record.
        ("no cookie", Case::of(None, None, None), keep_both(), &["loaders"]),
        ("session, no record", Case::of(Some(session(N)), None, None), clear_session(), &["load", "loaders"]),
        ("remember, no record", Case::of(None, Some(remember(N)), None), clear_remember(), &["load", "loaders"]),
        ("both, no record", Case::of(Some(session(N)), Some(remember(N)), None), clear_both(), &["load", "loaders"]),
        ("session fine, remember of another session",
            Case { remember: Some(other_remember.clone()), ..session_only(N, record()) }, user(), &["load"]),
        ("session ended, remember of another that is gone",
            Case { remember: Some(other_remember), ..session_only(N, ended_ago(0, LoggedOut)) }, clear_both(), &["load", "load", "loaders"]),
        // Ended.
        ("logged out just now", both(N, N, ended_ago(0, LoggedOut)), clear_both(), &["load", "loaders"]),
        ("ended by the user", both(N, N, ended_ago(0, ByUser)), clear_both(), &["load", "loaders"]),
        ("replaced just now", both(N, N, ended_ago(0, Replaced)), keep_both(), &["load", "loaders"]),
        ("replaced at most the grace ago", both(N, N, ended_ago(GRACE, Replaced)), keep_both(), &["load", "loaders"]),
        ("replaced earlier than the grace", both(N, N, ended_ago(GRACE + 1, Replaced)), clear_both(), &["load", "loaders"]),
        ("ended for a reason of a newer version", both(N, N, ended_ago(GRACE + 1, unknown_reason)), keep_both(), &["load", "loaders"]),
        ("ended for a reason of a newer version, remember alone", remember_only(N, ended_ago(0, unknown_reason)), keep_both(), &["load", "loaders"]),
        ("ended, remember alone", remember_only(N, ended_ago(0, LoggedOut)), clear_remember(), &["load", "loaders"]),
        ("replaced, remember alone", remember_only(N, ended_ago(5, Replaced)), keep_both(), &["load", "loaders"]),
        // Another user acts as this user.
        ("another user acts", both(N, N, acted_for()), keep_both(), &["load", "loaders"]),
        ("another user acts, session alone", session_only(N, acted_for()), keep_both(), &["load", "loaders"]),
        ("another user acts, remember alone", remember_only(N, acted_for()), keep_both(), &["load", "loaders"]),
        // The user.
        ("user gone", both(N, N, record()).with_user(User::Gone), clear_both(), &["load", "loaders"]),
        ("user gone, session", session_only(N, record()).with_user(User::Gone), clear_session(), &["load", "loaders"]),
        ("stamp changed", both(N, N, record()).with_user(User::StampChanged), keep_both(), &["load", "loaders"]),
        ("stamp changed, remember", remember_only(N, record()).with_user(User::StampChanged), keep_both(), &["load", "loaders"]),
        ("inactive", both(N, N, record()).with_user(User::Inactive), clear_both(), &["load", "inactive"]),
        ("inactive, remember", remember_only(N, record()).with_user(User::Inactive), clear_both(), &["load", "inactive"]),
        // The session's limits.
        ("idle for too long", session_only(N, idle()), clear_session(), &["load", "loaders"]),
        ("too old", session_only(N, too_old()), clear_session(), &["load", "loaders"]),
        ("idle, remembered", both(N, N, idle()), issuing_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("not quite idle", session_only(N, record_with(|record| record.last_seen = ago(IDLE - 1))), touching(user()), &["load"]),
        // The session's generation.
        ("c=n", session_only(N, record()), user(), &["load"]),
        ("c=n, unseen", session_only(N, rotated_ago(500, None)), marking_seen(user()), &["load"]),
        ("c=n, the first", session_only(0, first_generation()), user(), &["load"]),
        ("c=n, due for a touch", session_only(N, due_for_touch(record())), touching(user()), &["load"]),
        ("c=n, unseen and due for a touch", session_only(N, due_for_touch(rotated_ago(500, None))), touching(marking_seen(user())), &["load"]),
        ("c=n-1, unseen", session_only(N - 1, rotated_ago(500, None)), user(), &["load"]),
        ("c=n-1, seen exactly the grace ago", session_only(N - 1, rotated_ago(500, Some(GRACE))), user(), &["load"]),
        ("c=n-1, seen earlier than the grace", session_only(N - 1, rotated_ago(500, Some(GRACE + 1))), keep_both(), &["load", "loaders"]),
        ("c=n-2, unseen", session_only(N - 2, rotated_ago(500, None)), keep_both(), &["load", "loaders"]),
        ("c>n", session_only(N + 1, record()), keep_both(), &["load", "loaders"]),
        ("c=n-2, p=n", both(N - 2, N, record()), issuing_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        // The client.
        ("another client, protection off", session_only(N, record()).with_policy(|policy| policy.protection = Off).on_another_client(), user(), &["load"]),
        ("another client, basic protection", session_only(N, record()).on_another_client(), other_client(Verdict {
            logged_in: LoggedIn::User { fresh_since: None, is_active: true }, ..reissuing_session(false) }), &["load"]),
        ("another client, strong protection", both(N, N, record()).with_policy(|policy| policy.protection = Strong).on_another_client(),
            other_client(clear_both()), &["load", "protection"]),
        ("another client, strong protection, generation no longer valid",
            session_only(N - 2, record()).with_policy(|policy| policy.protection = Strong).on_another_client(), keep_both(), &["load", "loaders"]),
        ("another client, persistent", session_only(N, record()).on_another_client().with_policy(|policy| {
            policy.protection = Strong;
            policy.is_persistent = true;
        }), other_client(Verdict { logged_in: LoggedIn::User { fresh_since: None, is_active: true }, ..reissuing_session(false) }), &["load"]),
        // Reasons to reissue the cookies.
        ("previous key", with_previous_key(session_only(N, record())), reissuing_session(true), &["load"]),
        ("previous key, c=n-1", with_previous_key(session_only(N - 1, rotated_ago(500, None))), user(), &["load"]),
        ("another client, c=n-1", session_only(N - 1, rotated_ago(500, None)).on_another_client(), other_client(Verdict {
            logged_in: LoggedIn::User { fresh_since: None, is_active: true }, ..Verdict::default() }), &["load"]),
        ("previous key, both", with_previous_key(both(N, N, record())), issuing_remember(reissuing_session(true), N), &["load", "verify"]),
        ("previous key, p=n-1", with_previous_key(both(N, N - 1, record())), reissuing_session(true), &["load"]),
        ("persistent, due for a touch", session_only(N, due_for_touch(record())).with_policy(|policy| policy.is_persistent = true),
            touching(reissuing_session(true)), &["load"]),
        // The remember cookie's expiry.
        ("expired", Case { remember: Some(expired_remember), ..Case::of(None, None, Some(record())) }, clear_remember(), &["loaders"]),
        ("expired in the record", remember_only(N, remember_expired()), clear_remember(), &["load", "loaders"]),
        ("not remembered in the record", remember_only(N, not_remembered()), clear_remember(), &["load", "loaders"]),
        // The remember cookie's generation.
        ("wrong verifier", Case { verifier_matches: false, ..remember_only(N, record()) },
            no_user_alarm(Alarm::WrongVerifier, S::Keep, R::Keep), &["load", "verify", "loaders"]),
        ("p=n, never rotated", remember_only(0, first_generation()), issuing_remember(restored(1), 1), &["load", "verify", "rotate"]),
        ("p=n, rotated exactly the grace ago", remember_only(N, rotated_ago(GRACE, Some(GRACE))),
            issuing_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("p=n, rotated less than the grace ago", remember_only(N, rotated_ago(GRACE - 1, Some(5))), restored(N), &["load", "verify"]),
        ("p=n, rotated less than the grace ago, unseen", remember_only(N, rotated_ago(GRACE - 1, None)), marking_seen(restored(N)), &["load", "verify"]),
        ("p=n, rotated less than the grace ago, previous key", with_previous_key(remember_only(N, rotated_ago(GRACE - 1, Some(5)))),
            issuing_remember(restored(N), N), &["load", "verify"]),
        ("p=n, another request was faster", remember_only(N, record()).with_race(Race::Lost),
            issuing_remember(restored(N + 1), N + 1), &["load", "verify", "rotate"]),
        ("p=n, other requests are faster every time", remember_only(N, record()).with_race(Race::AlwaysLost), keep_both(),
            &["load", "verify", "rotate", "rotate", "rotate", "busy"]),
        ("p=n, ended during the rotation", remember_only(N, record()).with_race(Race::Ended), clear_remember(),
            &["load", "verify", "rotate", "loaders"]),
        ("p=n, removed during the rotation", remember_only(N, record()).with_race(Race::Gone), clear_remember(),
            &["load", "verify", "rotate", "loaders"]),
        ("p=n-1, unseen", remember_only(N - 1, rotated_ago(5_000, None)), issuing_remember(restored(N), N), &["load", "verify"]),
        ("p=n-1, seen exactly the grace ago", remember_only(N - 1, rotated_ago(500, Some(GRACE))), restored_for_this_request(), &["load", "verify"]),
        ("p=n-1, seen earlier than the grace", remember_only(N - 1, rotated_ago(500, Some(GRACE + 1))), replay(), &["load", "verify", "replay", "loaders"]),
        ("p=n-2, rotated exactly the grace ago", remember_only(N - 2, rotated_ago(GRACE, Some(GRACE))), keep_both(), &["load", "verify", "loaders"]),
        ("p=n-2, rotated earlier than the grace", remember_only(N - 2, rotated_ago(GRACE + 1, None)), replay(), &["load", "verify", "replay", "loaders"]),
        ("a replay whose session another request has ended", remember_only(N - 2, rotated_ago(GRACE + 1, None)).with_race(Race::Ended),
            no_user_alarm(Alarm::Replay, S::Keep, R::Keep), &["load", "verify", "replay", "loaders"]),
        ("p=0, rotated earlier than the grace", remember_only(0, rotated_ago(500, Some(500))), replay(), &["load", "verify", "replay", "loaders"]),
        ("p>n", remember_only(N + 1, record()), no_user_alarm(Alarm::RolledBack, S::Keep, R::Keep), &["load", "verify", "loaders"]),
        ("rotated in the future, because clocks differ",
            remember_only(N, record_with(|record| record.rotated_at = Some(Timestamp::from_secs(NOW + 30)))), restored(N), &["load", "verify"]),
        // A request that logs out rotates, records and reissues nothing.
        ("logging out, session", session_only(N, due_for_touch(rotated_ago(500, None))).logging_out(), user(), &["load"]),
        ("logging out, remember", remember_only(N, record()).logging_out(), restored_for_this_request(), &["load", "verify"]),
        ("logging out, p=n-1", remember_only(N - 1, rotated_ago(500, None)).logging_out(), restored_for_this_request(), &["load", "verify"]),
        ("logging out, replay", remember_only(N - 1, record()).logging_out(), replay(), &["load", "verify", "replay", "loaders"]),
    ];
    for (name, case, verdict, steps) in table {
        let steps = steps.iter().map(ToString::to_string).collect();
        assert_eq!(case.run(), Outcome { verdict, steps }, "{name}");
    }
}

#[test]
fn a_recorded_use_extends_the_remember_cookie_if_refresh_is_on() {
    let refresh = |case: Case| case.with_policy(|policy| policy.refreshes_remember = true);
    let both = |record| refresh(Case::of(Some(session(N)), Some(remember(N)), Some(record)));
    assert_eq!(both(record()).run().verdict, user());
    let due_for_touch = record_with(|record| record.last_seen = ago(TOUCH));
    let expires = NOW + 6_000;
    let renewed = Verdict {
        remember: RememberChange::Reissue {
            login_origin: LoginOrigin::PASSWORD,
            generation: N,
            expires,
        },
        remember_expires: Some(expires),
        is_touched: true,
        ..user()
    };
    assert_eq!(both(due_for_touch.clone()).run().verdict, renewed);
    // A cookie with a wrong verifier is not reissued, and a request without a remember cookie gets
    // none.
    let touched = || Verdict { is_touched: true, ..user() };
    assert_eq!(
        Case { verifier_matches: false, ..both(due_for_touch.clone()) }.run().verdict,
        touched()
    );
    let alone = refresh(Case::of(Some(session(N)), None, Some(due_for_touch)));
    assert_eq!(alone.run().verdict, touched());
    // A remember cookie with a short duration is renewed more often.
    let short = record_with(|record| {
        record.remember = Some(RememberPeriod::new(record.expires, 100));
    });
    assert_eq!(both(short).run().verdict.remember_expires, Some(NOW + 100));
}

#[test]
fn a_forced_login_of_an_inactive_user_stays_valid() {
    let mut forced = session(N);
    forced.cookie.terms.login_origin = FORCED;
    let case = |user| Case::of(Some(forced.clone()), None, Some(record())).with_user(user);
    let verdict = case(User::Inactive).run().verdict;
    assert_eq!(
        verdict.logged_in,
        LoggedIn::User { fresh_since: Some(PROVED_AT), is_active: false }
    );
    // When the user has become active, the cookie is reissued as not forced.
    let issued =
        Verdict { session: SessionChange::Reissue { terms: TERMS, keeps_proofs: true }, ..user() };
    assert_eq!(case(User::Fine).run().verdict, issued);
}

#[test]
fn confirming_rotates_unless_the_record_is_ahead_of_the_cookies() {
    for (record, sent_generation, rotates) in [
        (record(), Some(N), true),
        (rotated_ago(500, None), Some(N), true),
        (rotated_ago(500, None), Some(N - 1), false),
        (rotated_ago(500, None), None, false),
        // The generation was seen, so the browser holds its cookies, although this request did not
        // send them.
        (rotated_ago(500, Some(5)), Some(N - 1), true),
    ] {
        assert_eq!(
            confirming_rotates(&record, sent_generation),
            rotates,
            "{sent_generation:?} of {record:?}"
        );
    }
}

#[test]
fn a_record_expires_when_neither_its_session_nor_its_remember_cookie_can_be_valid() {
    let policy = policy();
    assert_eq!(policy.record_expires(NOW, NOW - 9_500, None), NOW + 500);
    assert_eq!(policy.record_expires(NOW, NOW, None), NOW + IDLE);
    assert_eq!(policy.record_expires(NOW, NOW, Some(NOW + 5_000)), NOW + 5_000);
    let unlimited = Policy { idle_limit: None, absolute_limit: None, ..policy };
    assert_eq!(unlimited.record_expires(NOW, NOW, Some(NOW)), u32::MAX);
}
