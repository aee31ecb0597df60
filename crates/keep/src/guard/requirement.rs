//! The requirement of a guard: a pure check of a request.
//!
//! Some tests ask a store. The check does not wait for them: it returns the test as
//! [`Verdict::Ask`], and is called again with the result.

use std::cell::OnceCell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tower_keep_core::{Clock, StoreError, Timestamp};

use super::reason::Rejection;
use crate::error::AuthError;
use crate::loader::LoaderRequest;
use crate::login::handle::is_recent;

/// The requirement of a guard.
pub(crate) enum Requirement<U> {
    LoggedIn,
    /// The user has logged in or confirmed the login in this session, at most this long ago.
    Fresh {
        within: Option<Duration>,
    },
    User(Arc<dyn Fn(&U) -> bool + Send + Sync>),
    /// Like `User`, but the test asks a store.
    UserAsync(AsyncTest<U>),
    /// The request is for one of these methods of gRPC services. No login is needed.
    GrpcMethod(Arc<[String]>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

/// Begins a test that asks a store.
pub(crate) type AsyncTest<U> = Arc<dyn Fn(Arc<U>) -> PendingTest + Send + Sync>;

/// A test that asks a store.
pub(crate) type PendingTest = Pin<Box<dyn Future<Output = Result<bool, StoreError>> + Send>>;

/// The results of the tests that have asked a store, by the address of each test. Two checks of one
/// guard may run different tests, so the order would not tell which test a result belongs to.
#[derive(Default)]
pub(super) struct TestResults(Vec<(usize, Result<bool, AuthError>)>);

impl TestResults {
    fn get<U>(&self, test: &AsyncTest<U>) -> Option<&Result<bool, AuthError>> {
        self.0.iter().find(|(address, _)| *address == address_of(test)).map(|(_, result)| result)
    }

    pub(super) fn add(&mut self, address: usize, result: Result<bool, AuthError>) {
        self.0.push((address, result));
    }
}

fn address_of<U>(test: &AsyncTest<U>) -> usize {
    Arc::as_ptr(test).cast::<()>() as usize
}

/// What a check must know about a request and its login.
pub(crate) struct LoginFacts<'a, U> {
    pub(crate) request: &'a LoaderRequest,
    pub(crate) clock: &'a dyn Clock,
    /// The time of the first call of [`now`](Self::now), so that all checks see the same time.
    pub(crate) now: OnceCell<u32>,
    /// The user who is logged in.
    pub(crate) user: Option<Arc<U>>,
    /// When the user last proved who they are; `None` if the login is not fresh.
    pub(crate) fresh_since: Option<u32>,
}

impl<U> LoginFacts<'_, U> {
    /// Returns the time in seconds since 1970. Most requirements don't need it.
    fn now(&self) -> u32 {
        *self.now.get_or_init(|| Timestamp::from(self.clock.now()).as_secs())
    }
}

/// The result of a check.
pub(super) enum Verdict {
    Passed,
    Rejected(Rejection),
    /// Whether the request passes is unknown, because a test has failed.
    Failed(AuthError),
    /// This test must be run. Then check again, with its result added to the others under this
    /// address.
    Ask {
        test: PendingTest,
        address: usize,
    },
}

impl<U> Requirement<U> {
    /// Whether a request passes with any login and without one, so that no user is looked up.
    pub(super) fn passes_without_login(&self, request: &LoaderRequest) -> bool {
        match self {
            Self::GrpcMethod(paths) => paths.iter().any(|exempt| exempt == request.path()),
            Self::All(all) => all.iter().all(|each| each.passes_without_login(request)),
            Self::Any(any) => any.iter().any(|each| each.passes_without_login(request)),
            _ => false,
        }
    }

    /// Checks the login. `results` holds the results of the tests that were run.
    pub(super) fn check(&self, login: &LoginFacts<'_, U>, results: &TestResults) -> Verdict {
        let passed_if = |passes, rejection| match passes {
            true => Verdict::Passed,
            false => Verdict::Rejected(rejection),
        };
        match (self, &login.user) {
            (Self::All(all), _) => check_all(all, login, results),
            (Self::Any(any), _) => check_any(any, login, results),
            (Self::Not(other), _) => match other.check(login, results) {
                Verdict::Passed => Verdict::Rejected(Rejection::Forbidden),
                Verdict::Rejected(_) => Verdict::Passed,
                unknown @ (Verdict::Failed(_) | Verdict::Ask { .. }) => unknown,
            },
            (Self::GrpcMethod(paths), _) => {
                let path = login.request.path();
                passed_if(paths.iter().any(|exempt| exempt == path), Rejection::Forbidden)
            }
            (_, None) => Verdict::Rejected(Rejection::Unauthenticated),
            (Self::LoggedIn, Some(_)) => Verdict::Passed,
            (Self::Fresh { within }, Some(_)) => {
                let is_recent = |since| within.is_none_or(|age| is_recent(since, login.now(), age));
                let is_fresh = login.fresh_since.is_some_and(is_recent);
                passed_if(is_fresh, Rejection::NotFresh { max_age: *within })
            }
            (Self::User(test), Some(user)) => passed_if(test(user), Rejection::Forbidden),
            (Self::UserAsync(test), Some(user)) => match results.get(test) {
                None => Verdict::Ask { test: test(Arc::clone(user)), address: address_of(test) },
                Some(Ok(passes)) => passed_if(*passes, Rejection::Forbidden),
                Some(Err(error)) => Verdict::Failed(error.clone()),
            },
        }
    }
}

/// Checks that all requirements hold, one after the other, until it is known which rejection to
/// report. If one fails, the others are not checked.
fn check_all<U>(
    all: &[Requirement<U>],
    login: &LoginFacts<'_, U>,
    results: &TestResults,
) -> Verdict {
    let mut rejection: Option<Rejection> = None;
    for requirement in all {
        match requirement.check(login, results) {
            Verdict::Passed => {}
            Verdict::Rejected(next) => {
                let worst = rejection.map_or(next, |rejection| rejection.of_all(next));
                let is_final = match worst {
                    Rejection::Unauthenticated => true,
                    // Without a user, another requirement may ask for a login.
                    Rejection::Forbidden => login.user.is_some(),
                    // Another requirement may forbid the request. Then the user need not confirm.
                    Rejection::NotFresh { .. } => false,
                };
                if is_final {
                    return Verdict::Rejected(worst);
                }
                rejection = Some(worst);
            }
            unknown @ (Verdict::Failed(_) | Verdict::Ask { .. }) => return unknown,
        }
    }
    rejection.map_or(Verdict::Passed, Verdict::Rejected)
}

/// Checks that one of the requirements holds, one after the other. If a test has failed, another
/// requirement may still hold.
fn check_any<U>(
    any: &[Requirement<U>],
    login: &LoginFacts<'_, U>,
    results: &TestResults,
) -> Verdict {
    let (mut rejection, mut failure): (Option<Rejection>, _) = (None, None);
    for requirement in any {
        match requirement.check(login, results) {
            Verdict::Rejected(next) => {
                rejection = Some(rejection.map_or(next, |rejection| rejection.of_any(next)));
            }
            Verdict::Failed(error) => failure = failure.or(Some(error)),
            decided @ (Verdict::Passed | Verdict::Ask { .. }) => return decided,
        }
    }
    match failure {
        Some(error) => Verdict::Failed(error),
        None => Verdict::Rejected(rejection.unwrap_or(Rejection::Forbidden)),
    }
}

impl<U> Clone for Requirement<U> {
    fn clone(&self) -> Self {
        match self {
            Self::LoggedIn => Self::LoggedIn,
            Self::Fresh { within } => Self::Fresh { within: *within },
            Self::User(test) => Self::User(Arc::clone(test)),
            Self::UserAsync(test) => Self::UserAsync(Arc::clone(test)),
            Self::GrpcMethod(paths) => Self::GrpcMethod(Arc::clone(paths)),
            Self::All(all) => Self::All(all.clone()),
            Self::Any(any) => Self::Any(any.clone()),
            Self::Not(other) => Self::Not(other.clone()),
        }
    }
}

impl<U> fmt::Debug for Requirement<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedIn => f.write_str("LoggedIn"),
            Self::Fresh { within } => f.debug_struct("Fresh").field("within", within).finish(),
            Self::User(_) => f.write_str("User(…)"),
            Self::UserAsync(_) => f.write_str("UserAsync(…)"),
            Self::GrpcMethod(paths) => f.debug_tuple("GrpcMethod").field(paths).finish(),
            Self::All(all) => f.debug_tuple("All").field(all).finish(),
            Self::Any(any) => f.debug_tuple("Any").field(any).finish(),
            Self::Not(other) => f.debug_tuple("Not").field(other).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::SystemTime;

    use http::uri::PathAndQuery;
    use tower_keep_core::StoreErrorKind;

    use super::*;
    use Rejection::{Forbidden, Unauthenticated};
    use Requirement::{All, Any, Fresh, LoggedIn, Not, User, UserAsync};

    const NOW: u32 = 1_000;

    #[derive(Debug)]
    struct FixedClock;

    impl Clock for FixedClock {
        fn now(&self) -> SystemTime {
            Timestamp::from_secs(NOW).into()
        }
    }

    static REQUEST: LazyLock<LoaderRequest> = LazyLock::new(|| LoaderRequest {
        method: http::Method::POST,
        target: Some(PathAndQuery::from_static("/users.Users/LogIn")),
        headers: None,
        client: None,
    });

    /// Checks a guard, and runs the tests that it asks for. Returns how many tests were run.
    fn check(
        guard: &Requirement<&'static str>,
        login: &LoginFacts<'_, &'static str>,
    ) -> (Result<Result<(), Rejection>, AuthError>, usize) {
        let (mut results, mut tests_run) = (TestResults::default(), 0);
        loop {
            let outcome = match guard.check(login, &results) {
                Verdict::Passed => Ok(Ok(())),
                Verdict::Rejected(rejection) => Ok(Err(rejection)),
                Verdict::Failed(error) => Err(error),
                Verdict::Ask { test, address } => {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    results.add(address, runtime.block_on(test).map_err(AuthError::from));
                    tests_run += 1;
                    continue;
                }
            };
            return (outcome, tests_run);
        }
    }

    fn login(
        name: impl Into<Option<&'static str>>,
        fresh_since: impl Into<Option<u32>>,
    ) -> LoginFacts<'static, &'static str> {
        LoginFacts {
            request: &REQUEST,
            clock: &FixedClock,
            now: OnceCell::new(),
            user: name.into().map(Arc::new),
            fresh_since: fresh_since.into(),
        }
    }

    fn named(name: &'static str) -> Requirement<&'static str> {
        User(Arc::new(move |user: &&str| *user == name))
    }

    fn named_in_store(name: &'static str) -> Requirement<&'static str> {
        UserAsync(Arc::new(move |user: Arc<&str>| Box::pin(async move { Ok(*user == name) })))
    }

    fn failing() -> Requirement<&'static str> {
        UserAsync(Arc::new(|_| {
            Box::pin(async { Err(StoreError::new(StoreErrorKind::Timeout, "roles")) })
        }))
    }

    #[test]
    fn each_guard_passes_only_logins_that_meet_its_requirement() {
        let recent = || Fresh { within: Some(Duration::from_secs(10)) };
        let fresh = || Fresh { within: None };
        let guards = [
            LoggedIn,
            fresh(),
            recent(),
            named("admin"),
            All(vec![named("admin"), fresh()]),
            Any(vec![named("admin"), fresh()]),
            Not(Box::new(LoggedIn)),
            Any(vec![Not(Box::new(LoggedIn)), named("admin")]),
            All(vec![fresh(), recent()]),
            All(vec![Not(Box::new(Not(Box::new(LoggedIn)))), LoggedIn]),
        ];
        let (no, forbidden) = (Err(Unauthenticated), Err(Forbidden));
        let stale = Err(Rejection::NotFresh { max_age: None });
        let old = Err(Rejection::NotFresh { max_age: Some(Duration::from_secs(10)) });
        #[rustfmt::skip]
        let table = [
            ("nobody", login(None, None), [no, no, no, no, no, no, Ok(()), Ok(()), no, no]),
            ("restored user", login("user", None),
                [Ok(()), stale, old, forbidden, forbidden, stale, forbidden, forbidden, old, Ok(())]),
            ("restored admin", login("admin", None),
                [Ok(()), stale, old, Ok(()), stale, Ok(()), forbidden, Ok(()), old, Ok(())]),
            ("fresh long ago", login("user", 989),
                [Ok(()), Ok(()), old, forbidden, forbidden, Ok(()), forbidden, forbidden, old, Ok(())]),
            ("fresh lately", login("user", 990),
                [Ok(()), Ok(()), Ok(()), forbidden, forbidden, Ok(()), forbidden, forbidden, Ok(()), Ok(())]),
            ("fresh in the future", login("user", 2_000),
                [Ok(()), Ok(()), Ok(()), forbidden, forbidden, Ok(()), forbidden, forbidden, Ok(()), Ok(())]),
        ];
        for (name, login, expected) in table {
            for (guard, expected) in guards.iter().zip(expected) {
                let (outcome, _) = check(guard, &login);
                assert_eq!(outcome.unwrap(), expected, "{name} at {guard:?}");
            }
        }
    }

    #[test]
    fn an_exempt_method_of_grpc_is_part_of_what_a_guard_requires() {
        let exempt = |path: &str| Requirement::GrpcMethod([path.to_owned()].into());
        let open = || Any(vec![exempt("/users.Users/LogIn"), LoggedIn]);
        let closed = || Any(vec![exempt("/users.Users/LogOut"), LoggedIn]);
        for (guard, expected, passes_without_login) in [
            (open(), Ok(()), true),
            (closed(), Err(Unauthenticated), false),
            (Any(vec![exempt("LogIn"), LoggedIn]), Err(Unauthenticated), false),
            (All(vec![open(), LoggedIn]), Err(Unauthenticated), false),
            (All(vec![open(), open()]), Ok(()), true),
            (Any(vec![closed(), open()]), Ok(()), true),
            (Not(Box::new(open())), Err(Forbidden), false),
            (Not(Box::new(closed())), Ok(()), false),
        ] {
            let (outcome, _) = check(&guard, &login(None, None));
            assert_eq!(outcome.unwrap(), expected, "{guard:?}");
            assert_eq!(guard.passes_without_login(&REQUEST), passes_without_login, "{guard:?}");
        }
    }

    #[test]
    fn the_result_of_a_test_counts_for_that_test_alone() {
        use std::sync::atomic::{AtomicBool, Ordering};
        // The first test changes its mind between the two checks of the guard.
        let is_first = AtomicBool::new(true);
        let flips = User(Arc::new(move |_: &&str| !is_first.swap(false, Ordering::Relaxed)));
        let guard = All(vec![Any(vec![flips, named_in_store("user")]), named_in_store("admin")]);
        let (outcome, tests_run) = check(&guard, &login("user", None));
        assert_eq!((outcome.unwrap(), tests_run), (Err(Forbidden), 2));
    }

    #[test]
    fn tests_that_ask_a_store_are_run_in_order_and_only_while_they_matter() {
        let fresh = || Fresh { within: None };
        let (forbidden, unknown) = (Some(Err(Forbidden)), None);
        for (guard, user, expected, tests_run) in [
            (named_in_store("admin"), Some("admin"), Some(Ok(())), 1),
            (named_in_store("admin"), Some("user"), forbidden, 1),
            (named_in_store("admin"), None, Some(Err(Unauthenticated)), 0),
            (Not(Box::new(named_in_store("admin"))), Some("admin"), forbidden, 1),
            (All(vec![named("admin"), named_in_store("admin")]), Some("user"), forbidden, 0),
            (All(vec![named_in_store("admin"), named("admin")]), Some("user"), forbidden, 1),
            (
                All(vec![named_in_store("admin"), named_in_store("admin")]),
                Some("admin"),
                Some(Ok(())),
                2,
            ),
            (All(vec![fresh(), named_in_store("admin")]), Some("user"), forbidden, 1),
            (Any(vec![named("user"), failing()]), Some("user"), Some(Ok(())), 0),
            (Any(vec![named_in_store("user"), failing()]), Some("user"), Some(Ok(())), 1),
            (Any(vec![named_in_store("a"), named_in_store("user")]), Some("user"), Some(Ok(())), 2),
            // A failed store is never taken for "no".
            (failing(), Some("user"), unknown, 1),
            (Not(Box::new(failing())), Some("user"), unknown, 1),
            (All(vec![failing(), named_in_store("user")]), Some("user"), unknown, 1),
            (Any(vec![failing(), named("user")]), Some("user"), Some(Ok(())), 1),
            (Any(vec![failing(), named("admin")]), Some("user"), unknown, 1),
        ] {
            let (outcome, run) = check(&guard, &login(user, None));
            assert_eq!((outcome.ok(), run), (expected, tests_run), "{user:?} at {guard:?}");
        }
    }
}
