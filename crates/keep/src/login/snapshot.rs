//! What is kept of a request. These are cheap clones; nothing is parsed.

use http::header::{self, HeaderName};
use http::{Extensions, HeaderMap, HeaderValue, Request, Uri};
use tower_keep_core::AuthUser;

use crate::client;
use crate::cookie::{
    CookieFields, Opened, Remember, ServerRemember, ServerSession, Session, SessionId, choose,
};
use crate::keys::Keyring;
use crate::layer::Config;
use crate::loader::LoaderRequest;

pub(crate) struct Snapshot {
    pub(super) cookies: CookieFields,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) request: LoaderRequest,
    /// Whether this is a request for a page. Always `false` if `next` is not kept in a cookie.
    pub(super) is_page: bool,
}

impl Snapshot {
    pub(crate) fn of<B, U>(request: &Request<B>, config: &Config<U>) -> Self {
        let headers = request.headers();
        Self {
            cookies: CookieFields::of(headers),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            is_page: config.next_in_cookie && config.is_page(request.method(), headers),
            request: LoaderRequest {
                method: request.method().clone(),
                target: original_uri(request.uri(), request.extensions()).path_and_query().cloned(),
                headers: declared(&config.loader_headers, headers),
                client: config.proxies.client(client::peer(request.extensions()), headers),
            },
        }
    }
}

/// Copies the headers that the request loaders read.
fn declared(names: &[HeaderName], headers: &HeaderMap) -> Option<Box<HeaderMap>> {
    if names.is_empty() {
        return None;
    }
    let mut declared = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            declared.append(name, value.clone());
        }
    }
    Some(Box::new(declared))
}

/// Returns the URI that the client asked for. Inside a nested router, the request's own URI lacks
/// the prefix at which that router is mounted.
pub(crate) fn original_uri<'a>(uri: &'a Uri, extensions: &'a Extensions) -> &'a Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    let _ = extensions;
    uri
}

/// The login cookies of a request: which were sent, and which of these have a valid signature.
pub(super) struct VerifiedCookies {
    pub(super) cookies: LoginCookies,
    pub(super) session_sent: bool,
    pub(super) remember_sent: bool,
}

/// The cookies whose signature is valid.
pub(super) enum LoginCookies {
    Stateless { session: Option<Opened<Session>>, remember: Option<Opened<Remember>> },
    ServerSide { session: Option<Opened<ServerSession>>, remember: Option<Opened<ServerRemember>> },
}

impl VerifiedCookies {
    /// Finds the cookies and verifies their signatures.
    pub(super) fn open<U>(cookies: &CookieFields, config: &Config<U>) -> Self {
        let names = [config.session_cookie.name(), config.remember_cookie.name()];
        let [session, remember] = cookies.find(names);
        let (of_session, of_remember) = (&config.keyring.session, &config.keyring.remember);
        let cookies = match config.sessions {
            None => LoginCookies::Stateless {
                session: choose(&session, of_session),
                remember: choose(&remember, of_remember),
            },
            Some(_) => LoginCookies::ServerSide {
                session: choose(&session, of_session),
                remember: choose(&remember, of_remember),
            },
        };
        Self { cookies, session_sent: session.is_sent(), remember_sent: remember.is_sent() }
    }

    pub(super) fn holds_login(&self) -> bool {
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
    pub(super) fn says_remembered(&self) -> bool {
        match &self.cookies {
            LoginCookies::Stateless { session, .. } => {
                session.as_ref().is_some_and(|opened| opened.cookie.terms.is_remembered)
            }
            LoginCookies::ServerSide { session, .. } => {
                session.as_ref().is_some_and(|opened| opened.cookie.terms.is_remembered)
            }
        }
    }

    /// Whether there is a session cookie, and it is another user's.
    ///
    /// A cookie of a server-side session leaves out a long id. Then the digest of id and security
    /// stamp decides, so the cookie also counts as another user's if the stamp has changed.
    pub(super) fn is_of_another<U: AuthUser>(&self, user: &U, keyring: &Keyring) -> bool {
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

    /// Returns the sessions that the cookies point to: none, one, or two.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
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
