//! What is kept of a request: cheap clones, nothing parsed.

use http::header::{self, HeaderName};
use http::{HeaderMap, Request};

use crate::client;
use crate::cookie::{CookieFields, Held, Remember, Session, choose};
use crate::layer::Config;
use crate::loader::LoaderRequest;

pub(crate) struct Snapshot {
    pub(super) cookies: CookieFields,
    pub(super) user_agent: Option<http::HeaderValue>,
    pub(super) request: LoaderRequest,
}

impl Snapshot {
    pub(crate) fn of<B, U>(request: &Request<B>, config: &Config<U>) -> Self {
        let headers = request.headers();
        Self {
            cookies: CookieFields::of(headers),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            request: LoaderRequest {
                method: request.method().clone(),
                target: original_uri(request).path_and_query().cloned(),
                headers: declared(&config.loader_headers, headers),
                client: config.proxies.client(client::peer(request.extensions()), headers),
            },
        }
    }
}

/// The headers that request loaders read.
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

/// The URI that the client asked for: routers strip the prefix that a nested one is mounted at.
fn original_uri<B>(request: &Request<B>) -> &http::Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions().get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    request.uri()
}

/// The login cookies that a request presented: which were sent, and which of them are genuine.
pub(super) struct Presented {
    pub(super) session: Option<Held<Session>>,
    pub(super) session_sent: bool,
    pub(super) remember: Option<Held<Remember>>,
    pub(super) remember_sent: bool,
}

impl Presented {
    /// Finds the cookies and verifies their seals.
    pub(super) fn open<U>(cookies: &CookieFields, config: &Config<U>) -> Self {
        let names = [config.session.name(), config.remember.name()];
        let [session, remember] = cookies.find(names);
        Self {
            session: choose(&session, &config.keyring.session),
            session_sent: session.is_sent(),
            remember: choose(&remember, &config.keyring.remember),
            remember_sent: remember.is_sent(),
        }
    }
}
