//! The parts of a request that the layer keeps. They are cheap clones; nothing is parsed before a
//! call needs it.

use http::header::{self, HeaderName};
use http::{Extensions, HeaderMap, HeaderValue, Request, Uri};
use tower_keep_core::AuthUser;

use crate::bearer_token::sealed_token_in;
use crate::client;
use crate::client_kind::ClientHints;
use crate::cookie::choose::choose;
use crate::cookie::contents::Opened;
use crate::cookie::jar::{CookieFields, FoundValues};
use crate::keyring::Keyring;
use crate::layer::config::Config;
use crate::loader::LoaderRequest;
use crate::login::server_side::cookies::{ServerRemember, ServerSession, SessionId};
use crate::login::stateless::remember_cookie::Remember;
use crate::login::stateless::session_cookie::Session;
use crate::origin::Host;

pub(crate) struct Snapshot {
    pub(super) cookies: CookieFields,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) request: LoaderRequest,
    /// The request's `Authorization`, if it has a bearer token of this crate and the layer accepts
    /// such tokens. The cookies are then left out.
    pub(super) bearer: Option<Box<HeaderValue>>,
    pub(super) hints: ClientHints,
    /// Whether a page of another site has opened a WebSocket with the cookies of this site. The
    /// cookies are then left out.
    pub(super) is_foreign_upgrade: bool,
}

impl Snapshot {
    /// Whether the request has a bearer token of this crate.
    pub(crate) fn has_bearer(&self) -> bool {
        self.bearer.is_some()
    }

    pub(crate) fn of<B, U>(request: &Request<B>, config: &Config<U>) -> Self {
        let headers = request.headers();
        let (mut cookies, mut user_agent) = (CookieFields::default(), None);
        let (mut hints, mut bearer) = (ClientHints::default(), None);
        // One pass is cheaper than looking up each header.
        for (name, value) in headers {
            match name.as_str() {
                "cookie" => cookies.add(value),
                "user-agent" if user_agent.is_none() => user_agent = Some(value.clone()),
                "authorization" if config.accepts_bearer && sealed_token_in(value).is_some() => {
                    bearer = Some(Box::new(value.clone()));
                }
                name => hints.read(name, value),
            }
        }
        if bearer.is_some() {
            cookies = CookieFields::None;
        }
        let is_foreign_upgrade =
            hints.is_upgrade(request.method()) && is_foreign_upgrade(request, &cookies, config);
        if is_foreign_upgrade {
            cookies = CookieFields::None;
        }
        Self {
            cookies,
            user_agent,
            bearer,
            hints,
            is_foreign_upgrade,
            request: LoaderRequest {
                method: request.method().clone(),
                target: original_uri(request.uri(), request.extensions()).path_and_query().cloned(),
                headers: loader_headers(&config.loader_headers, headers),
                client: config.trusted_proxies.client(client::peer(request.extensions()), headers),
            },
        }
    }
}

/// Checks whether a page of another site has sent this request, and the browser has sent the login
/// cookies of this site along.
///
/// A browser opens a WebSocket for any page, sends the cookies of the WebSocket's site, and asks
/// for no permission first. `Origin` says which page it was (RFC 6455 §10.2).
#[cold]
fn is_foreign_upgrade<B, U>(
    request: &Request<B>,
    cookies: &CookieFields,
    config: &Config<U>,
) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let names = [config.session_cookie.name(), config.remember_cookie.name()];
    let has_cookies = cookies.find(names).iter().any(FoundValues::is_sent);
    let is_allowed =
        || origin.to_str().is_ok_and(|origin| config.allows_origin(origin, &Host::of(request)));
    let is_foreign_upgrade = has_cookies && !is_allowed();
    if is_foreign_upgrade {
        config.warn_of_foreign_origin(origin);
    }
    is_foreign_upgrade
}

/// Returns a copy of the headers that the request loaders read.
fn loader_headers(names: &[HeaderName], headers: &HeaderMap) -> Option<Box<HeaderMap>> {
    if names.is_empty() {
        return None;
    }
    let mut copied = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            copied.append(name, value.clone());
        }
    }
    Some(Box::new(copied))
}

/// Returns the URI that the client has requested. `uri` is the request's own URI: inside a nested
/// router of axum, it lacks the prefix at which the router is mounted.
pub(crate) fn original_uri<'a>(uri: &'a Uri, extensions: &'a Extensions) -> &'a Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    let _ = extensions;
    uri
}

/// The login cookies of a request whose signatures are valid, and which cookies were sent.
pub(super) struct VerifiedCookies {
    pub(super) cookies: LoginCookies,
    /// Whether a session cookie was sent, with a valid signature or without one.
    pub(super) is_session_sent: bool,
    /// Whether a remember cookie was sent, with a valid signature or without one.
    pub(super) is_remember_sent: bool,
}

/// The login cookies whose signatures are valid.
pub(super) enum LoginCookies {
    Stateless { session: Option<Opened<Session>>, remember: Option<Opened<Remember>> },
    ServerSide { session: Option<Opened<ServerSession>>, remember: Option<Opened<ServerRemember>> },
}

impl VerifiedCookies {
    /// Finds the cookies and verifies their signatures.
    pub(super) fn open<U>(cookies: &CookieFields, config: &Config<U>) -> Self {
        let names = [config.session_cookie.name(), config.remember_cookie.name()];
        let [session, remember] = cookies.find(names);
        let (session_sealer, remember_sealer) = (&config.keyring.session, &config.keyring.remember);
        let cookies = match config.sessions {
            None => LoginCookies::Stateless {
                session: choose(&session, session_sealer),
                remember: choose(&remember, remember_sealer),
            },
            Some(_) => LoginCookies::ServerSide {
                session: choose(&session, session_sealer),
                remember: choose(&remember, remember_sealer),
            },
        };
        Self { cookies, is_session_sent: session.is_sent(), is_remember_sent: remember.is_sent() }
    }

    /// Whether any of the login cookies has a valid signature.
    pub(super) fn has_valid_login_cookie(&self) -> bool {
        match &self.cookies {
            LoginCookies::Stateless { session, remember } => {
                session.is_some() || remember.is_some()
            }
            LoginCookies::ServerSide { session, remember } => {
                session.is_some() || remember.is_some()
            }
        }
    }

    /// Returns when the remember cookie expires.
    pub(super) fn remember_expires(&self) -> Option<u32> {
        match &self.cookies {
            LoginCookies::Stateless { remember, .. } => {
                remember.as_ref().map(|opened| opened.cookie.terms.expires)
            }
            LoginCookies::ServerSide { remember, .. } => {
                remember.as_ref().map(|opened| opened.cookie.expires)
            }
        }
    }

    /// Whether the session cookie says that the browser also holds a remember cookie.
    pub(super) fn session_cookie_says_remembered(&self) -> bool {
        match &self.cookies {
            LoginCookies::Stateless { session, .. } => {
                session.as_ref().is_some_and(|opened| opened.cookie.terms.is_remembered)
            }
            LoginCookies::ServerSide { session, .. } => {
                session.as_ref().is_some_and(|opened| opened.cookie.terms.is_remembered)
            }
        }
    }

    /// Whether the request sent a session cookie of another user.
    ///
    /// The cookie of a server-side session leaves out a long user id. Then the digest of the user's
    /// id and security stamp is compared. So after a change of the stamp, this returns `true` for
    /// the same user too.
    pub(super) fn is_session_of_another_user<U: AuthUser>(
        &self,
        user: &U,
        keyring: &Keyring,
    ) -> bool {
        let id = user.id();
        match &self.cookies {
            LoginCookies::Stateless { session, .. } => {
                session.as_ref().is_some_and(|opened| opened.cookie.user != id)
            }
            LoginCookies::ServerSide { session, .. } => {
                session.as_ref().is_some_and(|opened| match &opened.cookie.user_hint {
                    Some(hint) => *hint != id,
                    None => {
                        let stamp = user.security_stamp();
                        let digest = keyring.stamp_digest(opened.slot, id.as_bytes(), &stamp);
                        digest != opened.cookie.stamp
                    }
                })
            }
        }
    }

    /// Returns the ids of the server-side sessions that the cookies name: none, one, or two.
    pub(super) fn session_ids(&self) -> impl Iterator<Item = SessionId> {
        let (session, remember) = match &self.cookies {
            LoginCookies::Stateless { .. } => (None, None),
            LoginCookies::ServerSide { session, remember } => (
                session.as_ref().map(|opened| opened.cookie.id),
                remember.as_ref().map(|opened| opened.cookie.id),
            ),
        };
        session.into_iter().chain(remember.filter(|other| session != Some(*other)))
    }
}
