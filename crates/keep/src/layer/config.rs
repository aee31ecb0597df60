//! What a layer has settled when it was built, shared by all its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderName;
use tower_keep_core::{Clock, End, EndReason, Timestamp, UserStore};

use crate::client::{ClientMatch, TrustedProxies};
use crate::cookie::Template;
use crate::event::{Event, Listener};
use crate::guard::Answers;
use crate::keys::Keyring;
use crate::loader::RequestLoader;
use crate::rules::Policy;
use crate::sessions::Sessions;
use crate::target::LocalTarget;

pub(crate) struct Config<U> {
    pub(crate) store: Arc<dyn UserStore<User = U>>,
    /// Where logins have records.
    pub(crate) sessions: Option<Sessions<U>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keyring: Keyring,
    pub(crate) policy: Policy,
    pub(crate) session: Template,
    pub(crate) remember: Template,
    pub(crate) visit: Template,
    /// In seconds.
    pub(crate) remember_duration: u32,
    pub(crate) client_match: ClientMatch,
    pub(crate) proxies: TrustedProxies,
    pub(crate) loaders: Vec<Arc<dyn RequestLoader<U>>>,
    /// What the loaders read.
    pub(crate) loader_headers: Vec<HeaderName>,
    pub(crate) listeners: Vec<Listener<U>>,
    pub(crate) anonymous: Option<Arc<dyn Fn() -> Arc<U> + Send + Sync>>,
    pub(crate) answers: Answers<U>,
    pub(crate) next_field: String,
    pub(crate) next_in_session: bool,
    pub(crate) public_origin: Option<String>,
    pub(crate) home: LocalTarget,
    /// Where nobody is ever sent back to: login, logout, confirm.
    pub(crate) never_next: Vec<String>,
    pub(crate) exempt_options: bool,
    /// The log has said that another layer uses the same cookie.
    pub(crate) told_of_same_name: AtomicBool,
}

impl<U> Config<U> {
    /// Says once that a layer further out sets a cookie of the same name.
    pub(crate) fn warn_of_same_name(&self, outer: &Self) {
        if self.session.name() == outer.session.name()
            && !self.told_of_same_name.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                cookie = self.session.name(),
                "two login layers around one route set the same cookie: give one of them an area \
                 with `with_area`"
            );
        }
    }

    /// The time in seconds since 1970.
    pub(crate) fn now(&self) -> u32 {
        Timestamp::from(self.clock.now()).as_secs()
    }

    /// How a session ends now. A replay is kept in mind until the user was told of it, at most as long
    /// as a login is remembered.
    pub(crate) fn ending(&self, reason: EndReason) -> End {
        let at = Timestamp::from_secs(self.now());
        let kept = match reason {
            EndReason::Replay => self.policy.grace.max(self.remember_duration),
            _ => self.policy.grace,
        };
        End { at, reason, keep_until: at.plus(kept) }
    }

    /// Tells the listeners and the log.
    pub(crate) fn raise(&self, event: Event<U>) {
        tracing::debug!(target: "tower_keep", event = event.name(), "login event");
        self.listeners.iter().for_each(|listener| listener(&event));
    }

    /// Whether somebody may be sent back here after signing in.
    pub(crate) fn allows_next(&self, target: &LocalTarget) -> bool {
        !self.never_next.iter().any(|path| target.leads_to(path))
    }
}
