//! The configuration of a layer, which all its requests share, and in it the settings for the
//! responses to rejected and failed requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Response};
use tower_keep_core::{Clock, End, EndReason, Timestamp, UserStore};

use crate::client::{ClientMatch, SessionProtection, TrustedProxies, is_private};
use crate::cookie::settings::CookieTemplate;
use crate::error::BuildError;
use crate::event::{Event, Listener};
use crate::flash::Message;
use crate::guard::reason::Rejection;
use crate::keyring::Keyring;
use crate::loader::RequestLoader;
use crate::login::policy::Policy;
use crate::origin::{Host, is_trustworthy};
use crate::page::Page;
use crate::response::ErrorHandler;
use crate::sessions::Sessions;
use crate::target::LocalTarget;

pub(crate) struct Config<U> {
    pub(crate) store: Arc<dyn UserStore<User = U>>,
    /// `None` if the layer keeps no server-side sessions.
    pub(crate) sessions: Option<Sessions<U>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keyring: Keyring,
    pub(crate) policy: Policy,
    pub(crate) session_cookie: CookieTemplate,
    pub(crate) remember_cookie: CookieTemplate,
    pub(crate) flash_cookie: CookieTemplate,
    pub(crate) device_cookie: CookieTemplate,
    /// How long a remember cookie is valid, in seconds, unless the login sets another duration.
    pub(crate) remember_duration: u32,
    pub(crate) client_match: ClientMatch,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) loaders: Vec<Arc<dyn RequestLoader<U>>>,
    /// Whether a bearer token of this layer logs in its user.
    pub(crate) accepts_bearer: bool,
    /// The headers that the loaders read.
    pub(crate) loader_headers: Vec<HeaderName>,
    pub(crate) listeners: Vec<Listener<U>>,
    pub(crate) anonymous_user: Option<Arc<dyn Fn() -> Arc<U> + Send + Sync>>,
    pub(crate) responses: Responses<U>,
    pub(crate) next_field: String,
    pub(crate) next_in_cookie: bool,
    pub(crate) public_origin: Option<String>,
    /// The origins of other sites whose pages may open a WebSocket with the cookies of this site.
    pub(crate) allowed_origins: Vec<String>,
    /// The realm of this layer's challenges (RFC 9110 §11.5).
    pub(crate) realm: String,
    pub(crate) home_page: LocalTarget,
    /// Read only by the ready-made routes of a sign-in.
    #[cfg_attr(not(all(feature = "axum", feature = "password")), expect(dead_code))]
    pub(crate) logout_page: LocalTarget,
    /// The paths to which no user is redirected after signing in, such as login, logout and
    /// confirm.
    pub(crate) never_next: Vec<String>,
    pub(crate) exempts_options_method: bool,
    /// Whether every request counts as a request for a page.
    pub(crate) all_are_pages: bool,
    /// Whether browsers send the session cookie only over TLS, or to this machine.
    pub(crate) is_secure: bool,
    /// Whether it was logged that another layer has a session cookie of the same name.
    pub(crate) warned_of_same_name: AtomicBool,
    /// Whether it was logged that the client's address is unknown.
    pub(crate) warned_of_no_address: AtomicBool,
    /// Whether it was logged that many clients may share the address that the layer sees.
    pub(crate) warned_of_shared_address: AtomicBool,
    /// Whether it was logged that a WebSocket of another site was refused.
    pub(crate) warned_of_foreign_origin: AtomicBool,
}

impl<U> Config<U> {
    /// Logs once if `outer`, a layer that wraps this layer, has a session cookie of the same name.
    pub(crate) fn report_same_cookie_name(&self, outer: &Self) {
        if self.session_cookie.name() == outer.session_cookie.name()
            && !self.warned_of_same_name.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                cookie = self.session_cookie.name(),
                "two login layers around one route set a session cookie of the same name: give \
                 one of them an area with `with_area`"
            );
        }
    }

    /// Logs once that the client's address is unknown, so that session protection compares only the
    /// user agent.
    pub(crate) fn warn_of_no_address(&self) {
        if self.policy.protection != SessionProtection::None
            && !self.warned_of_no_address.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the client's address is unknown, so session protection compares only the \
                 User-Agent: serve with `into_make_service_with_connect_info::<SocketAddr>()`, or \
                 insert a `ClientAddr` into each request where the connection is accepted"
            );
        }
    }

    /// Returns the address that a limit for this client counts by, or `None` if there must be no
    /// such limit, because all clients may seem to have the same address. This is logged once.
    pub(crate) fn limited_address(&self, client: Option<IpAddr>) -> Option<IpAddr> {
        let proxies = &self.trusted_proxies;
        // A proxy that sends no `X-Forwarded-For` seems to be the client.
        let is_usable = |address: &IpAddr| {
            !proxies.trusts(*address) && (!proxies.0.is_empty() || !is_private(*address))
        };
        let address = client.filter(is_usable);
        if address.is_none() && !self.warned_of_shared_address.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?client,
                "the client's address is unknown, private or that of a proxy, so nothing is limited \
                 by address: if the site is behind proxies, name all of them with \
                 `with_trusted_proxies`, and let them send `X-Forwarded-For`; else \
                 serve with `into_make_service_with_connect_info::<SocketAddr>()`, or insert a \
                 `ClientAddr` into each request"
            );
        }
        address
    }

    /// Returns the time in seconds since 1970.
    pub(crate) fn now(&self) -> u32 {
        Timestamp::from(self.clock.now()).as_secs()
    }

    /// Returns the [`End`] of sessions that end now for this reason. A session that ended because
    /// of a replay is kept for the remember duration, so that the user's next login can notify the
    /// user.
    pub(crate) fn end_for(&self, reason: EndReason) -> End {
        let at = Timestamp::from_secs(self.now());
        let keep_for = match reason {
            EndReason::Replay => self.policy.grace.max(self.remember_duration),
            _ => self.policy.grace,
        };
        End::new(at, reason, at.plus(keep_for))
    }

    /// Logs the event, and calls the listeners.
    pub(crate) fn raise(&self, event: Event<U>) {
        tracing::debug!(target: "tower_keep", event = event.name(), "login event");
        self.listeners.iter().for_each(|listener| listener(&event));
    }

    /// Whether a page of this origin may open a WebSocket with the cookies of this site. `host` is
    /// the host that the request was sent to.
    pub(crate) fn allows_origin(&self, origin: &str, host: &Host<'_>) -> bool {
        let is_listed = || self.allowed_origins.iter().any(|o| o.eq_ignore_ascii_case(origin));
        self.is_own_origin(origin, host) || is_listed()
    }

    /// Whether this is the origin of this site: the public origin or, if it is not set, an origin
    /// with the host that the request was sent to.
    pub(crate) fn is_own_origin(&self, origin: &str, host: &Host<'_>) -> bool {
        match &self.public_origin {
            Some(own) => own.eq_ignore_ascii_case(origin),
            // If the cookies are `Secure`, an `http` page is another site: anybody on the network
            // can forge it.
            None => host.is_host_of(origin) && (!self.is_secure || is_trustworthy(origin)),
        }
    }

    /// Logs once that a WebSocket of another site was refused.
    pub(crate) fn warn_of_foreign_origin(&self, origin: &HeaderValue) {
        if !self.warned_of_foreign_origin.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?origin,
                "a page of another site has opened a WebSocket with the cookies of this site, \
                 which then log nobody in: if the site may do this, list its origin with \
                 `with_allowed_origins`; if it is this site, set `with_public_origin`"
            );
        }
    }

    /// Whether a user may be redirected to this target after signing in.
    pub(crate) fn allows_next(&self, target: &LocalTarget) -> bool {
        !self.never_next.iter().any(|path| target.leads_to(path))
    }
}

/// Builds the response to a rejected request.
pub(crate) type Handler<U> = Arc<dyn Fn(RejectedRequest<'_, U>) -> Response<Bytes> + Send + Sync>;

/// A rejected request. It has no `AuthSession`, because that type needs `Config`.
pub(crate) struct RejectedRequest<'a, U> {
    pub(crate) config: &'a Arc<Config<U>>,
    pub(crate) rejection: Rejection,
    pub(crate) request: &'a Parts,
    /// The user whose request was rejected, or `None` if no user is logged in.
    pub(crate) user: Option<Arc<U>>,
    /// The settings in which the guard differs from its layer.
    pub(crate) overrides: &'a Responses<U>,
}

/// Settings for the responses to rejected and failed requests: the settings of a layer, or the
/// settings in which a guard differs from its layer.
pub(crate) struct Responses<U> {
    pub(crate) login_page: Option<Page>,
    pub(crate) confirm_page: Option<Page>,
    pub(crate) login_message: Option<Message>,
    pub(crate) confirm_message: Option<Message>,
    pub(crate) handler: Option<Handler<U>>,
    pub(crate) error_handler: Option<ErrorHandler>,
}

impl<U> Responses<U> {
    pub(crate) fn check_messages(&self) -> Result<(), BuildError> {
        let messages = [&self.login_message, &self.confirm_message];
        match messages.into_iter().flatten().find_map(Message::length_if_too_long) {
            Some(length) => Err(BuildError::FlashTooLong { length }),
            None => Ok(()),
        }
    }

    /// Returns the paths of the pages that are on this site.
    pub(crate) fn local_paths(&self) -> impl Iterator<Item = &str> {
        [&self.login_page, &self.confirm_page].into_iter().flatten().filter_map(Page::local_path)
    }
}

impl<U> Default for Responses<U> {
    fn default() -> Self {
        Self {
            login_page: None,
            confirm_page: None,
            login_message: None,
            confirm_message: None,
            handler: None,
            error_handler: None,
        }
    }
}

impl<U> Clone for Responses<U> {
    fn clone(&self) -> Self {
        Self {
            login_page: self.login_page.clone(),
            confirm_page: self.confirm_page.clone(),
            login_message: self.login_message.clone(),
            confirm_message: self.confirm_message.clone(),
            handler: self.handler.clone(),
            error_handler: self.error_handler.clone(),
        }
    }
}
