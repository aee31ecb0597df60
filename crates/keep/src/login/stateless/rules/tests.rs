//! Tests the table at the top of `rules.rs`, row by row.

use super::*;
use crate::client::SessionProtection;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::Proofs;
use crate::login::rules_fixtures::{ABSOLUTE, FORCED, IDLE, NOW, User, opened, policy};

fn previous_key() -> KeySlot {
    KeySlot::new(1, 1)
}

fn session(user: &str) -> Opened<Session> {
    let terms = SessionTerms {
        login_origin: LoginOrigin::PASSWORD,
        is_remembered: false,
        nonce: [1; 8],
        started: NOW - 10,
        renewed: NOW - 10,
    };
    let proofs = Proofs::password(NOW - 10);
    opened(Session { terms, proofs, stamp: 1, client: 1, user: user.into() })
}

fn remember(user: &str) -> Opened<Remember> {
    let (login_origin, nonce) = (LoginOrigin::PASSWORD, [2; 8]);
    let terms = RememberTerms { login_origin, nonce, issued: NOW - 100, expires: NOW + 100 };
    opened(Remember { terms, stamp: 1, user: user.into() })
}

/// One request: its cookies, and the user in the store.
struct Case {
    policy: Policy,
    session: Option<Opened<Session>>,
    remember: Option<Opened<Remember>>,
    is_same_client: bool,
    user: User,
}

/// The outcome of a case: the verdict, whether the loaders were asked, and how many users were
/// loaded.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Verdict,
    asks_loaders: bool,
    load_count: usize,
}

impl Case {
    fn of(
        session: Option<Opened<Session>>,
        remember: Option<Opened<Remember>>,
        user: User,
    ) -> Self {
        Self { policy: policy(), session, remember, is_same_client: true, user }
    }

    fn on_another_client(self) -> Self {
        Self { is_same_client: false, ..self }
    }

    fn with_policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn run(&self) -> Outcome {
        let presented = Presented {
            now: NOW,
            session: self.session.as_ref(),
            remember: self.remember.as_ref(),
            is_same_client: self.is_same_client,
        };
        let mut rules = Rules::new(&self.policy, presented);
        let mut step = rules.start();
        let mut load_count = 0;
        loop {
            match step {
                Step::Load(_) => {
                    load_count += 1;
                    step = rules.loaded(self.user.facts());
                }
                Step::AskLoaders => {
                    return Outcome { verdict: rules.finish(), asks_loaders: true, load_count };
                }
                Step::Done => {
                    return Outcome { verdict: rules.finish(), asks_loaders: false, load_count };
                }
            }
        }
    }
}

fn no_user(session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { session, remember, ..Verdict::default() }
}

fn user(fresh_since: impl Into<Option<u32>>) -> Verdict {
    let fresh_since = fresh_since.into();
    Verdict { logged_in: LoggedIn::User { fresh_since, is_active: true }, ..Verdict::default() }
}

fn restored() -> Verdict {
    Verdict {
        session: SessionChange::Restore(LoginOrigin::PASSWORD),
        is_remembered: true,
        ..user(None)
    }
}

fn edit<T>(mut opened: Opened<T>, change: impl FnOnce(&mut Opened<T>)) -> Option<Opened<T>> {
    change(&mut opened);
    Some(opened)
}

#[test]
fn the_rules_follow_every_row_of_the_table() {
    use RememberChange as R;
    use SessionChange as S;
    use SessionProtection::{None as Off, Strong};
    let session = || session("1");
    let remember = || remember("1");
    let idle = || edit(session(), |opened| opened.cookie.terms.renewed = NOW - IDLE);
    let too_old = || edit(session(), |opened| opened.cookie.terms.started = NOW - ABSOLUTE);
    let expired = || edit(remember(), |opened| opened.cookie.terms.expires = NOW);
    let cleared = || no_user(S::Clear, R::Clear);
    let no_longer_fresh = || S::Reissue { terms: session().cookie.terms, keeps_proofs: false };
    let asks_loaders = |verdict, load_count| Outcome { verdict, asks_loaders: true, load_count };
    let done = |verdict, load_count| Outcome { verdict, asks_loaders: false, load_count };
    let case = Case::of;
    #[rustfmt::skip]
    let table = [
        ("idle for too long", case(idle(), None, User::Fine), asks_loaders(no_user(S::Clear, R::Keep), 0)),
        ("idle, remembered", case(idle(), Some(remember()), User::Fine), done(restored(), 1)),
        ("too old", case(too_old(), None, User::Fine), asks_loaders(no_user(S::Clear, R::Keep), 0)),
        ("another client, protection off",
            case(Some(session()), None, User::Fine).with_policy(|policy| policy.protection = Off).on_another_client(),
            done(user(NOW - 10), 1)),
        ("another client, basic", case(Some(session()), None, User::Fine).on_another_client(),
            done(Verdict { session: no_longer_fresh(), is_other_client: true, ..user(None) }, 1)),
        ("another client, strong",
            case(Some(session()), Some(remember()), User::Fine).with_policy(|policy| policy.protection = Strong).on_another_client(),
            done(Verdict { is_other_client: true, ..cleared() }, 0)),
        ("another client, strong, persistent",
            case(Some(session()), None, User::Fine).on_another_client()
                .with_policy(|policy| { policy.protection = Strong; policy.is_persistent = true }),
            done(Verdict { session: no_longer_fresh(), is_other_client: true, ..user(None) }, 1)),
        ("user gone", case(Some(session()), None, User::Gone), asks_loaders(no_user(S::Clear, R::Keep), 1)),
        ("user gone, remembered", case(Some(session()), Some(remember()), User::Gone),
            asks_loaders(cleared(), 2)),
        ("stamp changed", case(Some(session()), None, User::StampChanged),
            asks_loaders(no_user(S::Keep, R::Keep), 1)),
        ("stamp changed, remembered", case(Some(session()), Some(remember()), User::StampChanged),
            asks_loaders(no_user(S::Keep, R::Keep), 2)),
        ("inactive", case(Some(session()), Some(remember()), User::Inactive), done(cleared(), 1)),
        ("inactive, forced",
            case(edit(session(), |opened| opened.cookie.terms.login_origin = FORCED), None, User::Inactive),
            done(Verdict { logged_in: LoggedIn::User { fresh_since: Some(NOW - 10), is_active: false }, ..Verdict::default() }, 1)),
        ("valid session", case(Some(session()), None, User::Fine), done(user(NOW - 10), 1)),
        ("valid session, remembered", case(Some(session()), Some(remember()), User::Fine),
            done(Verdict { is_remembered: true, ..user(NOW - 10) }, 1)),
        ("remember expired", case(None, expired(), User::Fine), asks_loaders(no_user(S::Keep, R::Clear), 0)),
        ("remembered user gone", case(None, Some(remember()), User::Gone),
            asks_loaders(no_user(S::Keep, R::Clear), 1)),
        ("remembered stamp changed", case(None, Some(remember()), User::StampChanged),
            asks_loaders(no_user(S::Keep, R::Keep), 1)),
        ("remembered user inactive", case(None, Some(remember()), User::Inactive), done(cleared(), 1)),
        ("remembered, forced, inactive",
            case(None, edit(remember(), |opened| opened.cookie.terms.login_origin = FORCED), User::Inactive),
            done(Verdict {
                logged_in: LoggedIn::User { fresh_since: None, is_active: false },
                session: S::Restore(FORCED),
                ..restored()
            }, 1)),
        ("restored", case(None, Some(remember()), User::Fine), done(restored(), 1)),
        ("nothing", case(None, None, User::Fine), asks_loaders(no_user(S::Keep, R::Keep), 0)),
    ];
    for (name, case, expected) in table {
        assert_eq!(case.run(), expected, "{name}");
    }
}

#[test]
fn a_session_is_renewed_after_a_tenth_of_the_idle_limit() {
    let renewed = |ago: u32| {
        let opened = edit(session("1"), |opened| opened.cookie.terms.renewed = NOW - ago);
        match Case::of(opened, None, User::Fine).run().verdict.session {
            SessionChange::Reissue { terms, keeps_proofs: true } => Some(terms.renewed),
            _ => None,
        }
    };
    assert_eq!(renewed(IDLE / 10 - 1), None);
    assert_eq!(renewed(IDLE / 10), Some(NOW));
    assert_eq!(renewed(IDLE - 1), Some(NOW));
}

#[test]
fn renewal_keeps_the_start_and_the_proofs_of_the_session() {
    let opened = edit(session("1"), |opened| opened.cookie.terms.renewed = NOW - IDLE / 2);
    let before = opened.as_ref().unwrap().cookie.terms;
    let after = Case::of(opened, None, User::Fine).run().verdict.session;
    let terms = SessionTerms { renewed: NOW, ..before };
    assert_eq!(after, SessionChange::Reissue { terms, keeps_proofs: true });
}

#[test]
fn cookies_of_a_next_key_are_not_reissued() {
    let next = KeySlot::new(1, 0);
    let next_session = edit(session("1"), |opened| opened.slot = next);
    let next_remember = edit(remember("1"), |opened| opened.slot = next);
    let verdict = Case::of(next_session, next_remember, User::Fine).run().verdict;
    assert_eq!(verdict.session, SessionChange::Keep);
    assert_eq!(verdict.remember, RememberChange::Keep);
}

#[test]
fn cookies_of_a_previous_key_are_reissued_with_the_same_terms() {
    let previous_session = edit(session("1"), |opened| opened.slot = previous_key());
    let previous_remember = edit(remember("1"), |opened| opened.slot = previous_key());
    let verdict = Case::of(previous_session, previous_remember.clone(), User::Fine).run().verdict;
    let terms = session("1").cookie.terms;
    assert_eq!(verdict.session, SessionChange::Reissue { terms, keeps_proofs: true });
    assert_eq!(verdict.remember, RememberChange::Reissue(remember("1").cookie.terms));
    let verdict = Case::of(None, previous_remember, User::Fine).run().verdict;
    assert_eq!(verdict.remember, RememberChange::Reissue(remember("1").cookie.terms));
}

#[test]
fn refresh_extends_only_an_unexpired_remember_cookie_of_the_same_user() {
    let refreshed = |remember: Option<Opened<Remember>>, user| {
        let case = Case::of(Some(session("1")), remember, user);
        case.with_policy(|policy| policy.refreshes_remember = true).run().verdict.remember
    };
    let renewed = RememberTerms { issued: NOW, expires: NOW + 200, ..remember("1").cookie.terms };
    let expired = edit(remember("1"), |opened| opened.cookie.terms.expires = NOW);
    assert_eq!(refreshed(Some(remember("1")), User::Fine), RememberChange::Reissue(renewed));
    assert_eq!(refreshed(Some(remember("2")), User::Fine), RememberChange::Keep);
    assert_eq!(refreshed(None, User::Fine), RememberChange::Keep);
    assert_eq!(refreshed(expired, User::Fine), RememberChange::Keep);
}

#[test]
fn a_clock_that_was_set_back_expires_no_session_and_causes_no_panic() {
    let opened = edit(session("1"), |opened| {
        opened.cookie.terms.started = u32::MAX;
        opened.cookie.terms.renewed = u32::MAX;
    });
    assert_eq!(Case::of(opened, None, User::Fine).run().verdict, user(NOW - 10));
}

#[test]
fn max_age_of_a_persistent_session_is_the_time_until_its_first_limit() {
    let terms = session("1").cookie.terms;
    let persistent = |idle, absolute| Policy {
        is_persistent: true,
        idle_limit: idle,
        absolute_limit: absolute,
        ..policy()
    };
    assert_eq!(policy().session_max_age(terms.started, NOW), None);
    for (idle, absolute, expected) in [
        (Some(IDLE), Some(ABSOLUTE), IDLE),
        (Some(IDLE), Some(500), 490),
        (None, Some(500), 490),
        (Some(IDLE), None, IDLE),
        (None, None, 34_560_000),
    ] {
        let max_age = persistent(idle, absolute).session_max_age(terms.started, NOW);
        assert_eq!(max_age, Some(expected));
    }
}
