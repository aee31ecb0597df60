//! What a layer has settled when it was built, shared by all its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderName;
use http::{HeaderMap, Method};
use tower_keep_core::{Clock, End, EndReason, Timestamp, UserStore};

use crate::client::{ClientMatch, SessionProtection, TrustedProxies};
use crate::cookie::Template;
use crate::event::{Event, Listener};
use crate::guard::Answers;
use crate::keys::Keyring;
use crate::loader::RequestLoader;
use crate::navigation::is_page;
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
    /// Whether every request counts as one for a page.
    pub(crate) all_are_pages: bool,
    /// The log has said that another layer uses the same cookie.
    pub(crate) told_of_same_name: AtomicBool,
    /// The log has said that the client's address is unknown.
    pub(crate) told_of_no_address: AtomicBool,
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

    /// Says once that session protection has less to compare than its settings say.
    pub(crate) fn warn_of_no_address(&self) {
        if self.policy.protection != SessionProtection::None
            && !self.told_of_no_address.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the client's address is unknown, so session protection compares the User-Agent alone: \
                 serve with `into_make_service_with_connect_info::<SocketAddr>()`, or insert a \
                 `ClientAddr` into each request where the connection is accepted"
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

    /// Whether a request is one for a page.
    pub(crate) fn is_page(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.all_are_pages || is_page(method, headers)
    }

    /// Whether somebody may be sent back here after signing in.
    pub(crate) fn allows_next(&self, target: &LocalTarget) -> bool {
        !self.never_next.iter().any(|path| target.leads_to(path))
    }
}
