//! What is kept of a request. These are cheap clones; nothing is parsed.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{Extensions, HeaderMap, HeaderValue, Request, Uri};
use tower_keep_core::UserId;

use crate::client;
use crate::cookie::{
    CookieFields, Held, Remember, ServerRemember, ServerSession, Session, SessionId, choose,
};
use crate::flash::cut;
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

/// The maximum length of the `User-Agent` in a session record, in bytes.
const LONGEST_SHOWN: usize = 256;

impl Snapshot {
    /// Returns the `User-Agent` as a session record keeps it: as text, cut to the maximum length.
    pub(super) fn shown_user_agent(&self) -> Arc<str> {
        let bytes = self.user_agent.as_ref().map_or(&[][..], HeaderValue::as_bytes);
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_SHOWN)]);
        cut(&text, LONGEST_SHOWN).into()
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
    pub(super) genuine: Genuine,
    pub(super) session_sent: bool,
    pub(super) remember_sent: bool,
}

/// The cookies whose signature is valid.
pub(super) enum Genuine {
    Stateless { session: Option<Held<Session>>, remember: Option<Held<Remember>> },
    ServerSide { session: Option<Held<ServerSession>>, remember: Option<Held<ServerRemember>> },
}

impl VerifiedCookies {
    /// Finds the cookies and verifies their signatures.
    pub(super) fn open<U>(cookies: &CookieFields, config: &Config<U>) -> Self {
        let names = [config.session.name(), config.remember.name()];
        let [session, remember] = cookies.find(names);
        let (of_session, of_remember) = (&config.keyring.session, &config.keyring.remember);
        let genuine = match config.sessions {
            None => Genuine::Stateless {
                session: choose(&session, of_session),
                remember: choose(&remember, of_remember),
            },
            Some(_) => Genuine::ServerSide {
                session: choose(&session, of_session),
                remember: choose(&remember, of_remember),
            },
        };
        Self { genuine, session_sent: session.is_sent(), remember_sent: remember.is_sent() }
    }

    pub(super) fn holds_login(&self) -> bool {
        match &self.genuine {
            Genuine::Stateless { session, remember } => session.is_some() || remember.is_some(),
            Genuine::ServerSide { session, remember } => session.is_some() || remember.is_some(),
        }
    }

    /// Returns when the remember cookie expires.
    pub(super) fn remember_expires(&self) -> Option<u32> {
        match &self.genuine {
            Genuine::Stateless { remember, .. } => {
                remember.as_ref().map(|held| held.cookie.terms.expires)
            }
            Genuine::ServerSide { remember, .. } => {
                remember.as_ref().map(|held| held.cookie.expires)
            }
        }
    }

    /// Returns the flags of the session cookie.
    pub(super) fn flags(&self) -> u8 {
        match &self.genuine {
            Genuine::Stateless { session, .. } => {
                session.as_ref().map_or(0, |held| held.cookie.terms.flags)
            }
            Genuine::ServerSide { session, .. } => {
                session.as_ref().map_or(0, |held| held.cookie.terms.flags)
            }
        }
    }

    /// Whether there is a session cookie, and it names another user.
    pub(super) fn is_not_of(&self, user: &UserId) -> bool {
        match &self.genuine {
            Genuine::Stateless { session, .. } => {
                session.as_ref().is_some_and(|held| held.cookie.user != *user)
            }
            Genuine::ServerSide { session, .. } => {
                session.as_ref().is_some_and(|held| held.cookie.user_hint != *user)
            }
        }
    }

    /// Returns the sessions that the cookies point to: none, one, or two.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let (session, remember) = match &self.genuine {
            Genuine::Stateless { .. } => (None, None),
            Genuine::ServerSide { session, remember } => (
                session.as_ref().map(|held| held.cookie.id),
                remember.as_ref().map(|held| held.cookie.id),
            ),
        };
        session.into_iter().chain(remember.filter(|other| session != Some(*other)))
    }
}
