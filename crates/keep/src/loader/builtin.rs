//! The loaders that most APIs need.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};
use tower_keep_core::StoreError;

use super::{LoaderRequest, RequestLoader};

/// A loader for `Authorization: Bearer TOKEN` (RFC 6750). A closure looks the token up.
///
/// Store only a hash of each token, and look the token up by its hash. So neither a leaked table
/// nor the duration of the look-up reveals a token.
///
/// The tokens are the application's own. For tokens that carry a session of this crate, see
/// [`with_bearer_sessions`](crate::LoginLayerBuilder::with_bearer_sessions).
///
/// ```
/// use std::sync::Arc;
/// use tower_keep::Account;
/// use tower_keep::loader::Bearer;
/// use tower_keep::store::StoreError;
///
/// let loader = Bearer::new(|token: String| async move {
///     // find the user whose token has this hash
///     # let _ = token;
///     Ok::<Option<Arc<Account>>, StoreError>(None)
/// });
/// # let _ = loader;
/// ```
#[derive(Clone)]
pub struct Bearer<F> {
    load: F,
}

/// A loader for `Authorization: Basic …` (RFC 7617). A closure checks the name and the password.
///
/// The closure checks the password at every request, so hash passwords with an algorithm that is
/// fast enough, or prefer tokens.
#[derive(Clone)]
pub struct Basic<F> {
    load: F,
    challenge: HeaderValue,
}

/// A loader for a header that the API defines itself, such as `X-API-Key`. A closure looks the key
/// up.
#[derive(Clone)]
pub struct ApiKey<F> {
    load: F,
    header: HeaderName,
}

const AUTHORIZATION: &[HeaderName] = &[header::AUTHORIZATION];

impl<F> Bearer<F> {
    /// Creates a loader that looks up tokens with this closure.
    pub fn new(load: F) -> Self {
        Self { load }
    }
}

impl<F> Basic<F> {
    /// Creates a loader that checks names and passwords with this closure.
    pub fn new(load: F) -> Self {
        Self { load, challenge: HeaderValue::from_static(r#"Basic realm="", charset="UTF-8""#) }
    }

    /// Sets the realm that browsers show when they ask for the password. The realm must be visible
    /// ASCII. Quotes and backslashes are removed.
    #[must_use]
    pub fn with_realm(mut self, realm: impl Into<String>) -> Self {
        let realm = realm.into().replace(['"', '\\'], "");
        let challenge = format!(r#"Basic realm="{realm}", charset="UTF-8""#);
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            self.challenge = challenge;
        }
        self
    }
}

impl<F> ApiKey<F> {
    /// Creates a loader that looks up the keys in this header with this closure.
    pub fn new(header: HeaderName, load: F) -> Self {
        Self { load, header }
    }
}

#[async_trait]
impl<U, F, Fut> RequestLoader<U> for Bearer<F>
where
    F: Fn(String) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<Arc<U>>, StoreError>> + Send,
    U: Send + Sync,
{
    fn headers(&self) -> &[HeaderName] {
        AUTHORIZATION
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer"))
    }

    async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<U>>, StoreError> {
        match credentials(request, "Bearer") {
            Some(token) => (self.load)(token.to_owned()).await,
            None => Ok(None),
        }
    }
}

#[async_trait]
impl<U, F, Fut> RequestLoader<U> for Basic<F>
where
    F: Fn(String, String) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<Arc<U>>, StoreError>> + Send,
    U: Send + Sync,
{
    fn headers(&self) -> &[HeaderName] {
        AUTHORIZATION
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<U>>, StoreError> {
        match credentials(request, "Basic").and_then(name_and_password) {
            Some((name, password)) => (self.load)(name, password).await,
            None => Ok(None),
        }
    }
}

#[async_trait]
impl<U, F, Fut> RequestLoader<U> for ApiKey<F>
where
    F: Fn(String) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<Arc<U>>, StoreError>> + Send,
    U: Send + Sync,
{
    fn headers(&self) -> &[HeaderName] {
        std::slice::from_ref(&self.header)
    }

    async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<U>>, StoreError> {
        match request.header(&self.header).and_then(|key| key.to_str().ok()) {
            Some(key) if !key.is_empty() => (self.load)(key.to_owned()).await,
            _ => Ok(None),
        }
    }
}

/// Returns the credentials in `Authorization`, which follow the scheme. Schemes are compared
/// without regard to case.
fn credentials<'a>(request: &'a LoaderRequest, scheme: &str) -> Option<&'a str> {
    let value = request.header(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, credentials) = value.split_once(' ')?;
    let credentials = credentials.trim_matches(' ');
    (given.eq_ignore_ascii_case(scheme) && !credentials.is_empty()).then_some(credentials)
}

fn name_and_password(credentials: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

macro_rules! opaque_debug {
    ($($name:ident)*) => {$(
        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(Bearer Basic ApiKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: &str) -> LoaderRequest {
        let mut headers = http::HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        LoaderRequest {
            method: http::Method::GET,
            target: None,
            headers: Some(Box::new(headers)),
            client: None,
        }
    }

    #[test]
    fn malformed_credentials_count_as_none() {
        for (value, bearer, basic) in [
            ("Bearer abc", Some("abc"), None),
            ("bearer  abc ", Some("abc"), None),
            ("Bearer", None, None),
            ("Bearer ", None, None),
            ("Bearerabc", None, None),
            ("Basic YTpi", None, Some(("a", "b"))),
            ("basic YTpiOmM=", None, Some(("a", "b:c"))),
            ("Basic YWI=", None, None),
            ("Basic !!", None, None),
            ("Basic /w==", None, None),
        ] {
            let request = request(value);
            assert_eq!(credentials(&request, "Bearer"), bearer, "{value}");
            let found = credentials(&request, "Basic").and_then(name_and_password);
            let expected = basic.map(|(name, password)| (name.to_owned(), password.to_owned()));
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn quotes_and_backslashes_in_a_realm_are_removed() {
        let basic = Basic::new(()).with_realm("a \"b\\");
        assert_eq!(basic.challenge, r#"Basic realm="a b", charset="UTF-8""#);
    }
}
