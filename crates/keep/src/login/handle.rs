//! The handle that handlers use.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::Extensions;
use tokio::sync::Notify;
use tower_keep_core::{AuthUser, EndReason, SessionKey};

use super::resolve::Purpose;
use super::snapshot::{Genuine, Presented, Snapshot};
use super::state::{Change, Identity, Progress, Resolved, State};
use super::{stateless, tracked};
use crate::cookie::Visit;
use crate::layer::Config;
use crate::{Event, Fault};

/// Who is logged in, in one request; and the way to log in and out.
///
/// The [layer](crate::LoginLayer) puts it into the request's extensions; with the feature `axum`
/// it is an extractor. Nothing is looked up until somebody asks, and then once per request, however
/// many ask and however concurrently. A clone is the same handle.
///
/// A handler that logs somebody in has logged them in once the call has returned `Ok`, whatever
/// status it then answers with; the cookies go out with any response. They can't go out later: to
/// change the login after the head of the response is written is an error. To ask who it is still
/// works then, in a streamed body or a task of its own. Because it may still be asked, a handle that
/// is alive when the head is written makes the response `no-store`: no cache may give one user's
/// stream to another. Drop it before if the response is for everybody.
///
/// ```
/// use tower_keep::{Account, LogInError};
///
/// type Login = tower_keep::Login<Account>;
///
/// async fn sign_in(login: Login, account: Account) -> Result<String, LogInError> {
///     login.log_in(account).remember(true).await?;
///     Ok(login.next_or_home().to_string()) // redirect there, with 303
/// }
///
/// async fn greet(login: Login) -> Result<String, tower_keep::Fault> {
///     Ok(match login.user().await? {
///         Some(user) => format!("Hello, {}", user.login()),
///         None => "Hello, stranger".into(),
///     })
/// }
/// ```
pub struct Login<U>(pub(super) Arc<Inner<U>>);

pub(super) struct Inner<U> {
    pub(super) config: Arc<Config<U>>,
    pub(super) snapshot: Snapshot,
    /// The handle of another area's layer, further out.
    outer: Option<Login<U>>,
    presented: OnceLock<Presented>,
    pub(super) visit: OnceLock<Box<Visit>>,
    state: Mutex<State<U>>,
    /// Wakes those who wait while another asks who this is.
    known: Notify,
    /// Whoever changes the login has it; made when that first happens.
    changing: OnceLock<Box<tokio::sync::Mutex<()>>>,
    /// The response depends on the cookies.
    looked: AtomicBool,
}

impl<U> Login<U> {
    pub(crate) fn new(config: Arc<Config<U>>, snapshot: Snapshot, outer: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            config,
            snapshot,
            outer,
            presented: OnceLock::new(),
            visit: OnceLock::new(),
            state: Mutex::new(State::new()),
            known: Notify::new(),
            changing: OnceLock::new(),
            looked: AtomicBool::new(false),
        }))
    }

    pub(crate) fn config(&self) -> &Arc<Config<U>> {
        &self.0.config
    }

    pub(crate) fn belongs_to(&self, config: &Arc<Config<U>>) -> bool {
        Arc::ptr_eq(&self.0.config, config)
    }

    /// Never held across an await. What a panic leaves behind is whole: states are replaced, not
    /// built up.
    pub(super) fn state(&self) -> MutexGuard<'_, State<U>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look(&self) {
        self.0.looked.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_looked_at(&self) -> bool {
        self.0.looked.load(Ordering::Relaxed)
    }

    /// Whether somebody besides the layer still has this handle when the head is written.
    pub(super) fn is_kept(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether a genuine login cookie was found in the request, as far as anybody has looked.
    pub(super) fn holds_login(&self) -> bool {
        self.0.presented.get().is_some_and(Presented::holds_login)
    }

    pub(super) fn presented(&self) -> &Presented {
        self.0.presented.get_or_init(|| Presented::open(&self.0.snapshot.cookies, &self.0.config))
    }

    /// Wakes those who wait for what was just noted in the state.
    fn wake(&self, mut state: MutexGuard<'_, State<U>>) {
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.0.known.notify_waiters();
        }
    }

    /// One change of the login at a time: those that write to a store take several steps.
    pub(super) async fn change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Fault> {
        let changing = self.0.changing.get_or_init(Box::default).lock().await;
        if self.state().sealed { Err(Fault::TOO_LATE) } else { Ok(changing) }
    }

    /// There is no response: no cookie can be set any more, and a login in this request is nobody's.
    pub(crate) fn abandon(&self) {
        let begun = {
            let mut state = self.state();
            state.sealed = true;
            state.begun.take()
        };
        if let Some(key) = begun {
            self.abandon_session(key);
        }
    }
}

impl<U> Login<U> {
    /// Ends a session whose cookies have reached nobody, behind the caller's back.
    pub(super) fn abandon_session(&self, key: SessionKey) {
        let config = self.config();
        if let Some(sessions) = &config.sessions {
            let end = config.ending(EndReason::LoggedOut);
            sessions.upkeep.abandon(sessions.store.clone(), key, end);
        }
    }
}

impl<U: AuthUser> Login<U> {
    /// The handle of this layer: the innermost one, or one that another area's layer has covered.
    pub(crate) fn find(extensions: &Extensions, config: &Arc<Config<U>>) -> Option<Self> {
        let mut login = extensions.get::<Self>();
        while let Some(candidate) = login {
            if candidate.belongs_to(config) {
                return Some(candidate.clone());
            }
            login = candidate.0.outer.as_ref();
        }
        None
    }

    /// The user who is logged in; `None` if nobody is.
    ///
    /// # Errors
    ///
    /// A store or a request loader failed. It is then not known who this is: answer with an error,
    /// never as to an anonymous user.
    pub async fn user(&self) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        Ok(self.state().identity.user().cloned())
    }

    /// The user who is logged in, or the application's own anonymous user.
    ///
    /// `None` only if nobody is logged in and the layer was built without
    /// [`with_anonymous_user`](crate::LoginLayerBuilder::with_anonymous_user).
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user).
    pub async fn user_or_anonymous(&self) -> Result<Option<Arc<U>>, Fault> {
        let user = self.user().await?;
        Ok(user.or_else(|| self.0.config.anonymous.as_ref().map(|anonymous| anonymous())))
    }

    /// The user of a login that was forced although the user is [not
    /// active](AuthUser::is_active). To [`user`](Self::user) and to guards this is nobody.
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user).
    pub async fn inactive_user(&self) -> Result<Option<Arc<U>>, Fault> {
        self.ensure_resolved().await?;
        Ok(match &self.state().identity {
            Identity::Session { user, active: false, .. } => Some(Arc::clone(user)),
            _ => None,
        })
    }

    /// Whether the user has logged in here by proving who they are: not brought back by the
    /// remember cookie, not found by a request loader, and from the same client since (as session
    /// protection is set). It is true also of a forced login of an inactive user, who is nobody to
    /// [`user`](Self::user): ask for both, or use a guard.
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user).
    pub async fn is_fresh(&self) -> Result<bool, Fault> {
        Ok(self.fresh_since().await?.is_some())
    }

    /// Whether the user has proved who they are at most this long ago.
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user).
    pub async fn is_fresh_within(&self, age: Duration) -> Result<bool, Fault> {
        let now = self.0.config.now();
        Ok(self.fresh_since().await?.is_some_and(|since| is_recent(since, now, age)))
    }

    async fn fresh_since(&self) -> Result<Option<u32>, Fault> {
        self.ensure_resolved().await?;
        Ok(self.state().identity.fresh_since())
    }

    /// Whether this browser holds a genuine remember cookie that is in time, or gets one with this
    /// response. Looks nobody up: whether its user still exists turns out when it is needed.
    pub fn is_remembered(&self) -> bool {
        self.look();
        match self.state().remember {
            Change::Set(_) => true,
            Change::Clear => false,
            Change::Keep => {
                let expires = self.presented().remember_expires();
                expires.is_some_and(|expires| self.0.config.now() < expires)
            }
        }
    }

    /// The client's address, where it is known: behind trusted proxies the one that they tell.
    pub fn client(&self) -> Option<std::net::IpAddr> {
        self.0.snapshot.request.client
    }

    /// Resolves who this is, once per request.
    ///
    /// Whoever asks first does it, and the others wait for the answer; if the first is dropped in
    /// the middle, another takes over.
    pub(crate) async fn ensure_resolved(&self) -> Result<(), Fault> {
        self.ensure_resolved_for(Purpose::Stay).await
    }

    pub(super) async fn ensure_resolved_for(&self, purpose: Purpose) -> Result<(), Fault> {
        self.look();
        loop {
            let other = match &mut *self.state() {
                State { decided: true, .. } => return Ok(()),
                State { progress: Progress::Known(known), .. } => return known.clone(),
                State { progress: progress @ Progress::Unasked, .. } => {
                    *progress = Progress::Asked;
                    None
                }
                State { progress: Progress::Asked, is_awaited, .. } => {
                    *is_awaited = true;
                    Some(self.0.known.notified())
                }
            };
            match other {
                Some(other) => other.await,
                None => {
                    let turn = Turn { login: self, is_over: false };
                    let (config, snapshot) = (&*self.0.config, &self.0.snapshot);
                    config.raise(Event::Accessed);
                    // One level of futures: this is every request's way.
                    let resolved = match (&self.presented().genuine, &config.sessions) {
                        (Genuine::Stateless { session, remember }, _) => {
                            let cookies = (session.as_ref(), remember.as_ref());
                            stateless::resolve(config, snapshot, cookies.0, cookies.1).await
                        }
                        (Genuine::Tracked { session, remember }, Some(sessions)) => {
                            let walk = tracked::Walk { config, sessions, snapshot };
                            walk.resolve(session.as_ref(), remember.as_ref(), purpose).await
                        }
                        // Cookies with records are opened only where there are records.
                        (Genuine::Tracked { .. }, None) => Err(Fault::NO_SESSIONS),
                    };
                    return turn.finish(resolved);
                }
            }
        }
    }

    /// Calls the closure with who this is.
    pub(crate) fn with_identity<T>(&self, see: impl FnOnce(&Identity<U>) -> T) -> T {
        see(&self.state().identity)
    }
}

/// The turn of whoever asks first. Dropped in the middle, it passes to another asker.
struct Turn<'a, U> {
    login: &'a Login<U>,
    is_over: bool,
}

impl<U: AuthUser> Turn<'_, U> {
    fn finish(mut self, resolved: Result<Resolved<U>, Fault>) -> Result<(), Fault> {
        self.is_over = true;
        let mut state = self.login.state();
        // A login or logout that was quicker has the last word.
        let known = resolved.map(|resolved| state.settle(resolved));
        state.progress = Progress::Known(known.clone());
        self.login.wake(state);
        known
    }
}

impl<U> Drop for Turn<'_, U> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.login.state();
            state.progress = Progress::Unasked;
            self.login.wake(state);
        }
    }
}

/// Whether something happened at most this long ago; what lies in the future was just now.
pub(crate) fn is_recent(since: u32, now: u32, age: Duration) -> bool {
    u64::from(now.saturating_sub(since)) <= age.as_secs()
}

impl<U> Clone for Login<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Shows nothing of the login.
impl<U> fmt::Debug for Login<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}
