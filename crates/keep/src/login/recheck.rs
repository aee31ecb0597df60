//! Asking again whether a login is still valid, for a connection that outlives its request.

use std::sync::Arc;

use tower_keep_core::{AuthUser, SessionKey, SessionRecord, Timestamp};

use super::handle::AuthSession;
use super::policy::Policy;
use super::resolve::ask_loaders;
use super::server_side::resolve::Resolver;
use super::state::{BrowserLogin, Identity};
use crate::error::AuthError;
use crate::sessions::Sessions;

/// How the user of a request is known.
enum Known {
    /// A request loader has found the user.
    Loader,
    /// The cookies alone hold the login, until this time.
    Stateless { expires: u32 },
    /// A server-side session. `is_limited` says whether the limits of a session apply, because
    /// neither a remember cookie nor a bearer token carries the login.
    ServerSide { key: SessionKey, is_limited: bool },
}

impl<U: AuthUser> AuthSession<U> {
    /// Asks the store again whether the login of this request is still valid. Returns the user as
    /// stored now, or `None` if the login has ended since or if no user was logged in.
    ///
    /// [`user`](Self::user) looks the login up once for each request. A WebSocket or an event
    /// stream outlives its request, and would otherwise still see a user who has logged out. So
    /// call this method from time to time, such as once a minute, or before each action:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_keep::{Account, AuthError, AuthSession};
    /// # async fn send(_: &str) {}
    /// async fn feed(auth: AuthSession<Account>) -> Result<(), AuthError> {
    ///     while let Some(user) = auth.recheck().await? {
    ///         send(user.login_name()).await;
    ///         tokio::time::sleep(Duration::from_secs(60)).await;
    ///     }
    ///     Ok(()) // close the connection
    /// }
    /// ```
    ///
    /// **Without [server-side sessions](crate::LoginLayerBuilder::with_sessions), a logout is not
    /// noticed**, because it only removes the cookies from one browser. A new password or a
    /// deactivated user is noticed.
    ///
    /// A login is valid as long as a request of the same client would be logged in: its session has
    /// neither ended nor expired, and the user still exists, is active and has the same [security
    /// stamp](AuthUser::security_stamp). A user whom a request loader has found is looked up again.
    /// It does not matter whether the cookies of the session were replaced in the meantime. The
    /// call counts as a use of a server-side session, so the idle limit does not end it while a
    /// connection asks. It changes neither the cookies nor what `user` returns.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`user`](Self::user). It is then unknown whether the login
    /// stands: close the connection, or try again soon.
    pub async fn recheck(&self) -> Result<Option<Arc<U>>, AuthError> {
        self.ensure_resolved().await?;
        let Some((user, known)) = self.known_user() else { return Ok(None) };
        let (config, snapshot) = (&**self.config(), &self.0.snapshot);
        let found = match known {
            Known::Loader => ask_loaders(&config.loaders, snapshot).await?,
            Known::Stateless { expires } => match config.now() < expires {
                true => config.store.by_id(&user.id()).await?,
                false => None,
            },
            Known::ServerSide { key, is_limited } => match &config.sessions {
                Some(sessions) => self.recheck_session(sessions, &user, &key, is_limited).await?,
                None => None,
            },
        };
        let is_same = |found: &Arc<U>| {
            found.id() == user.id()
                && found.is_active()
                && found.security_stamp() == user.security_stamp()
        };
        Ok(found.filter(is_same))
    }

    fn known_user(&self) -> Option<(Arc<U>, Known)> {
        let state = self.state();
        let user = Arc::clone(state.identity.user()?);
        let known = match (&state.identity, &state.browser_login) {
            (Identity::Loader { .. }, _) => Known::Loader,
            (_, BrowserLogin::ServerSide(session)) => {
                Known::ServerSide { key: session.record.key, is_limited: !session.holds_remember }
            }
            (_, BrowserLogin::Bearer(record)) => {
                Known::ServerSide { key: record.key, is_limited: false }
            }
            (_, BrowserLogin::Stateless { expires, .. }) => Known::Stateless { expires: *expires },
            // This never happens: the cookies or the token of a logged-in user hold the login.
            (_, BrowserLogin::Nothing) => return None,
        };
        Some((user, known))
    }

    /// Returns the user of the session, if the session is still valid.
    async fn recheck_session(
        &self,
        sessions: &Sessions<U>,
        user: &Arc<U>,
        key: &SessionKey,
        is_limited: bool,
    ) -> Result<Option<Arc<U>>, AuthError> {
        let (config, snapshot) = (&**self.config(), &self.0.snapshot);
        let Some(login) = sessions.store.load_login(key, Some(&user.id())).await? else {
            return Ok(None);
        };
        let now = config.now();
        if !is_valid(&login.record, &config.policy, is_limited, now) {
            return Ok(None);
        }
        // A use must not revive a session that has been idle for too long: only its remember cookie
        // may restore the login.
        if login.user.is_some() && !is_past_limit(&login.record, &config.policy, now) {
            let resolver = Resolver { config, sessions, snapshot };
            resolver.touch(&login.record, self.is_bearer_request(), now).await?;
        }
        Ok(login.user)
    }
}

/// Checks whether a session has neither ended nor expired. `is_limited` says whether the limits of
/// a session apply.
fn is_valid(record: &SessionRecord, policy: &Policy, is_limited: bool, now: u32) -> bool {
    record.is_live(Timestamp::from_secs(now))
        && record.acting_user.is_none()
        && !(is_limited && is_past_limit(record, policy, now))
}

fn is_past_limit(record: &SessionRecord, policy: &Policy, now: u32) -> bool {
    policy.is_past_limit(record.last_seen.as_secs(), record.session_started.as_secs(), now)
}

#[cfg(test)]
mod tests {
    use tower_keep_core::{EndReason, Ended};

    use super::*;
    use crate::login::rules_fixtures::{ABSOLUTE, IDLE, NOW, policy};

    #[test]
    fn a_session_stands_until_it_ends_or_its_limits_are_over() {
        let secs = Timestamp::from_secs;
        let record = |change: fn(&mut SessionRecord)| {
            let key = SessionKey::new([1; 32]);
            let mut record =
                SessionRecord::new(key, "7".into(), [0; 16], secs(NOW), secs(NOW + 50_000));
            change(&mut record);
            record
        };
        let ended = |record: &mut SessionRecord| {
            record.ended = Some(Ended::new(record.created, EndReason::LoggedOut));
        };
        for (name, record, is_limited, expected) in [
            ("live", record(|_| {}), true, true),
            ("ended", record(ended), false, false),
            ("expired", record(|r| r.expires = r.created), false, false),
            ("another user acts", record(|r| r.acting_user = Some("1".into())), false, false),
            ("idle", record(|r| r.last_seen = r.created.minus(IDLE)), true, false),
            ("remembered", record(|r| r.last_seen = r.created.minus(IDLE)), false, true),
            ("old", record(|r| r.session_started = r.created.minus(ABSOLUTE)), true, false),
        ] {
            assert_eq!(is_valid(&record, &policy(), is_limited, NOW), expected, "{name}");
        }
    }
}
