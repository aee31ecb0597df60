//! Tests the table at the top of the module, row by row.

use super::*;
use crate::cookie::Proofs;
use crate::keys::KeySlot;

const NOW: u32 = 100_000;
const IDLE: u32 = 1_000;
const ABSOLUTE: u32 = 10_000;
const OLD_KEY: fn() -> KeySlot = || KeySlot::new(1, 1);

fn policy() -> Policy {
    Policy {
        protection: SessionProtection::Basic,
        persistent: false,
        idle: Some(IDLE),
        renewal: Some(Policy::renewal_of(IDLE)),
        absolute: Some(ABSOLUTE),
        refresh_remember: false,
        grace: 60,
        touch: 100,
        notes_first_use: false,
    }
}

fn session(user: &str) -> Opened<Session> {
    let terms = SessionTerms {
        origin: Origin::PASSWORD,
        is_remembered: false,
        nonce: [1; 8],
        started: NOW - 10,
        renewed: NOW - 10,
    };
    Opened {
        cookie: Session {
            terms,
            proofs: Proofs::password(NOW - 10),
            stamp: 1,
            client: 1,
            user: user.into(),
        },
        slot: KeySlot::CURRENT,
    }
}

fn remember(user: &str) -> Opened<Remember> {
    let (origin, nonce) = (Origin::PASSWORD, [2; 8]);
    let terms = RememberTerms { origin, nonce, issued: NOW - 100, expires: NOW + 100 };
    Opened { cookie: Remember { terms, stamp: 1, user: user.into() }, slot: KeySlot::CURRENT }
}

/// The user that the store returns.
#[derive(Clone, Copy)]
enum User {
    Gone,
    StampChanged,
    Inactive,
    Fine,
}

/// One request: its cookies, and the user in the store.
struct Case {
    policy: Policy,
    session: Option<Opened<Session>>,
    remember: Option<Opened<Remember>>,
    same_client: bool,
    user: User,
}

/// The outcome of a case: the verdict, whether the loaders were asked, and how often the store was.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Verdict,
    loaders: bool,
    loads: usize,
}

impl Case {
    fn of(
        session: Option<Opened<Session>>,
        remember: Option<Opened<Remember>>,
        user: User,
    ) -> Self {
        Self { policy: policy(), session, remember, same_client: true, user }
    }

    fn elsewhere(self) -> Self {
        Self { same_client: false, ..self }
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn run(&self) -> Outcome {
        let seen = Presented {
            now: NOW,
            session: self.session.as_ref(),
            remember: self.remember.as_ref(),
            same_client: self.same_client,
        };
        let mut rules = Rules::new(&self.policy, seen);
        let mut step = rules.start();
        let mut loads = 0;
        loop {
            match step {
                Step::Load(_) => {
                    loads += 1;
                    let holds = !matches!(self.user, User::StampChanged);
                    let facts = Facts {
                        active: !matches!(self.user, User::Inactive),
                        session_stamp_holds: holds,
                        remember_stamp_holds: holds,
                    };
                    step = rules.loaded((!matches!(self.user, User::Gone)).then_some(facts));
                }
                Step::AskLoaders => {
                    return Outcome { verdict: rules.finish(), loaders: true, loads };
                }
                Step::Done => return Outcome { verdict: rules.finish(), loaders: false, loads },
            }
        }
    }
}

fn nobody(session: SessionChange, remember: RememberChange) -> Verdict {
    Verdict { session, remember, ..Verdict::default() }
}

/// The login of an inactive user.
const FORCED: Origin = Origin { is_forced: true, ..Origin::PASSWORD };

fn user(fresh_since: impl Into<Option<u32>>) -> Verdict {
    let fresh_since = fresh_since.into();
    Verdict { who: Who::User { fresh_since, active: true }, ..Verdict::default() }
}

fn restored() -> Verdict {
    Verdict { session: SessionChange::Restore(Origin::PASSWORD), remembered: true, ..user(None) }
}

fn edit<T>(mut opened: Opened<T>, change: impl FnOnce(&mut Opened<T>)) -> Option<Opened<T>> {
    change(&mut opened);
    Some(opened)
}

#[test]
fn every_row_of_the_table() {
    use RememberChange as R;
    use SessionChange as S;
    use SessionProtection::{None as Off, Strong};
    let session = || session("1");
    let remember = || remember("1");
    let idle = || edit(session(), |opened| opened.cookie.terms.renewed = NOW - IDLE);
    let old = || edit(session(), |opened| opened.cookie.terms.started = NOW - ABSOLUTE);
    let expired = || edit(remember(), |opened| opened.cookie.terms.expires = NOW);
    let cleared = || nobody(S::Clear, R::Clear);
    let stale = || S::Reissue { terms: session().cookie.terms, keeps_proofs: false };
    let asks = |verdict, loads| Outcome { verdict, loaders: true, loads };
    let done = |verdict, loads| Outcome { verdict, loaders: false, loads };
    let case = Case::of;
    #[rustfmt::skip]
    let table = [
        ("idle for too long", case(idle(), None, User::Fine), asks(nobody(S::Clear, R::Keep), 0)),
        ("idle, remembered", case(idle(), Some(remember()), User::Fine), done(restored(), 1)),
        ("too old", case(old(), None, User::Fine), asks(nobody(S::Clear, R::Keep), 0)),
        ("another client, protection off",
            case(Some(session()), None, User::Fine).with(|policy| policy.protection = Off).elsewhere(),
            done(user(NOW - 10), 1)),
        ("another client, basic", case(Some(session()), None, User::Fine).elsewhere(),
            done(Verdict { session: stale(), protected: true, ..user(None) }, 1)),
        ("another client, strong",
            case(Some(session()), Some(remember()), User::Fine).with(|policy| policy.protection = Strong).elsewhere(),
            done(Verdict { protected: true, ..cleared() }, 0)),
        ("another client, strong, persistent",
            case(Some(session()), None, User::Fine).elsewhere()
                .with(|policy| { policy.protection = Strong; policy.persistent = true }),
            done(Verdict { session: stale(), protected: true, ..user(None) }, 1)),
        ("user gone", case(Some(session()), None, User::Gone), asks(nobody(S::Clear, R::Keep), 1)),
        ("user gone, remembered", case(Some(session()), Some(remember()), User::Gone),
            asks(cleared(), 2)),
        ("stamp changed", case(Some(session()), None, User::StampChanged),
            asks(nobody(S::Keep, R::Keep), 1)),
        ("stamp changed, remembered", case(Some(session()), Some(remember()), User::StampChanged),
            asks(nobody(S::Keep, R::Keep), 2)),
        ("inactive", case(Some(session()), Some(remember()), User::Inactive), done(cleared(), 1)),
        ("inactive, forced",
            case(edit(session(), |opened| opened.cookie.terms.origin = FORCED), None, User::Inactive),
            done(Verdict { who: Who::User { fresh_since: Some(NOW - 10), active: false }, ..Verdict::default() }, 1)),
        ("fine", case(Some(session()), None, User::Fine), done(user(NOW - 10), 1)),
        ("fine and remembered", case(Some(session()), Some(remember()), User::Fine),
            done(Verdict { remembered: true, ..user(NOW - 10) }, 1)),
        ("remember expired", case(None, expired(), User::Fine), asks(nobody(S::Keep, R::Clear), 0)),
        ("remembered user gone", case(None, Some(remember()), User::Gone),
            asks(nobody(S::Keep, R::Clear), 1)),
        ("remembered stamp changed", case(None, Some(remember()), User::StampChanged),
            asks(nobody(S::Keep, R::Keep), 1)),
        ("remembered user inactive", case(None, Some(remember()), User::Inactive), done(cleared(), 1)),
        ("remembered, forced, inactive",
            case(None, edit(remember(), |opened| opened.cookie.terms.origin = FORCED), User::Inactive),
            done(Verdict {
                who: Who::User { fresh_since: None, active: false },
                session: S::Restore(FORCED),
                ..restored()
            }, 1)),
        ("restored", case(None, Some(remember()), User::Fine), done(restored(), 1)),
        ("nothing", case(None, None, User::Fine), asks(nobody(S::Keep, R::Keep), 0)),
    ];
    for (name, case, expected) in table {
        assert_eq!(case.run(), expected, "{name}");
    }
}

#[test]
fn a_session_is_renewed_when_a_tenth_of_the_idle_limit_has_passed() {
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
fn renewal_keeps_when_the_session_began_and_how_fresh_it_is() {
    let opened = edit(session("1"), |opened| opened.cookie.terms.renewed = NOW - IDLE / 2);
    let before = opened.as_ref().unwrap().cookie.terms;
    let after = Case::of(opened, None, User::Fine).run().verdict.session;
    let terms = SessionTerms { renewed: NOW, ..before };
    assert_eq!(after, SessionChange::Reissue { terms, keeps_proofs: true });
}

#[test]
fn cookies_of_a_next_key_are_left_as_they_are() {
    let next = KeySlot::new(1, 0);
    let next_session = edit(session("1"), |opened| opened.slot = next);
    let next_remember = edit(remember("1"), |opened| opened.slot = next);
    let verdict = Case::of(next_session, next_remember, User::Fine).run().verdict;
    assert_eq!(verdict.session, SessionChange::Keep);
    assert_eq!(verdict.remember, RememberChange::Keep);
}

#[test]
fn cookies_of_an_old_key_are_reissued_with_the_same_terms() {
    let old_session = edit(session("1"), |opened| opened.slot = OLD_KEY());
    let old_remember = edit(remember("1"), |opened| opened.slot = OLD_KEY());
    let verdict = Case::of(old_session, old_remember.clone(), User::Fine).run().verdict;
    let terms = session("1").cookie.terms;
    assert_eq!(verdict.session, SessionChange::Reissue { terms, keeps_proofs: true });
    assert_eq!(verdict.remember, RememberChange::Reissue(remember("1").cookie.terms));
    let verdict = Case::of(None, old_remember, User::Fine).run().verdict;
    assert_eq!(verdict.remember, RememberChange::Reissue(remember("1").cookie.terms));
}

#[test]
fn refresh_renews_only_a_genuine_remember_cookie_of_the_same_user_in_time() {
    let refreshed = |remember: Option<Opened<Remember>>, user| {
        let case = Case::of(Some(session("1")), remember, user);
        case.with(|policy| policy.refresh_remember = true).run().verdict.remember
    };
    let renewed = RememberTerms { issued: NOW, expires: NOW + 200, ..remember("1").cookie.terms };
    let expired = edit(remember("1"), |opened| opened.cookie.terms.expires = NOW);
    assert_eq!(refreshed(Some(remember("1")), User::Fine), RememberChange::Reissue(renewed));
    assert_eq!(refreshed(Some(remember("2")), User::Fine), RememberChange::Keep);
    assert_eq!(refreshed(None, User::Fine), RememberChange::Keep);
    assert_eq!(refreshed(expired, User::Fine), RememberChange::Keep);
}

#[test]
fn clocks_that_went_back_make_nothing_expire_and_nothing_panic() {
    let opened = edit(session("1"), |opened| {
        opened.cookie.terms.started = u32::MAX;
        opened.cookie.terms.renewed = u32::MAX;
    });
    assert_eq!(Case::of(opened, None, User::Fine).run().verdict, user(NOW - 10));
}

#[test]
fn a_browser_keeps_a_persistent_session_as_long_as_the_server_would() {
    let terms = session("1").cookie.terms;
    let persistent = |idle, absolute| Policy { persistent: true, idle, absolute, ..policy() };
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
