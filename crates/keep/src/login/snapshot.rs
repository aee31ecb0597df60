//! What is kept of a request: cheap clones, nothing parsed.

use http::{HeaderMap, Request, header};

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
        let mut declared = HeaderMap::new();
        for name in &config.loader_headers {
            headers.get_all(name).iter().for_each(|value| {
                declared.append(name, value.clone());
            });
        }
        Self {
            cookies: CookieFields::of(headers),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            request: LoaderRequest {
                method: request.method().clone(),
                uri: original_uri(request).clone(),
                headers: declared,
                client: config.proxies.client(client::peer(request.extensions()), headers),
            },
        }
    }
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
        let session = cookies.find(config.session.name());
        let remember = cookies.find(config.remember.name());
        Self {
            session: choose(&session, &config.keyring.session),
            session_sent: session.is_sent(),
            remember: choose(&remember, &config.keyring.remember),
            remember_sent: remember.is_sent(),
        }
    }
}
