//! Request loaders: they find a user by a token, a key or a password in the request itself.
//!
//! If the cookies identify no user, the layer calls the loaders in the order in which they were
//! added, until a loader finds a user. This user is logged in for this request only: no cookie is
//! set, and the login never passes [`require_fresh`](crate::LoginLayer::require_fresh).

mod builtin;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use tower_keep_core::StoreError;

pub use builtin::{ApiKey, Basic, Bearer};

/// Finds the user of a request by a token, a key or a password in the request.
///
/// [`Bearer`], [`Basic`] and [`ApiKey`] are ready to use. Write your own loader for anything else,
/// such as a signed URL:
///
/// ```
/// use std::sync::Arc;
/// use tower_keep::Account;
/// use tower_keep::loader::{LoaderRequest, RequestLoader};
/// use tower_keep::store::{StoreError, async_trait};
///
/// struct InviteLink;
///
/// #[async_trait]
/// impl RequestLoader<Account> for InviteLink {
///     async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<Account>>, StoreError> {
///         let Some(invite) = request.query("invite") else { return Ok(None) };
///         # let _ = invite;
///         Ok(None) // look the invite up
///     }
/// }
/// ```
#[async_trait]
pub trait RequestLoader<U>: Send + Sync {
    /// Returns the headers that [`load`](Self::load) reads. Only these headers are kept for the
    /// loader. If the loader was asked, the headers are added to the response's `Vary`.
    fn headers(&self) -> &[HeaderName] {
        &[]
    }

    /// Returns the challenge of this loader, which a guard sends in `WWW-Authenticate` when it
    /// responds with 401 (RFC 9110 §11.6.1).
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// Returns the request's user, or `None` if the request has no valid credentials for this
    /// loader. A user who is not [active](tower_keep_core::AuthUser::is_active) counts as no
    /// user, and no later loader is asked.
    ///
    /// Dropping the future must change nothing.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. The response is then 503, and the request is not
    /// treated as anonymous. An invalid token or password is not an error: the call returns
    /// `Ok(None)`.
    async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<U>>, StoreError>;
}

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<U, L: RequestLoader<U> + ?Sized> RequestLoader<U> for $pointer<L> {
            fn headers(&self) -> &[HeaderName] {
                (**self).headers()
            }

            fn challenge(&self) -> Option<HeaderValue> {
                (**self).challenge()
            }

            async fn load(&self, request: &LoaderRequest) -> Result<Option<Arc<U>>, StoreError> {
                (**self).load(request).await
            }
        }
    )*};
}

forward!(Arc Box);

/// The parts of a request that a loader can read.
#[derive(Clone, Debug)]
pub struct LoaderRequest {
    pub(crate) method: Method,
    /// `None` for the asterisk and authority forms of a request target.
    pub(crate) target: Option<PathAndQuery>,
    /// The headers that loaders have declared; `None` if there are no loaders.
    pub(crate) headers: Option<Box<HeaderMap>>,
    pub(crate) client: Option<IpAddr>,
}

impl LoaderRequest {
    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path as the client requested it, before any router stripped a prefix.
    pub fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// Returns a header that a loader has declared.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&HeaderValue> {
        self.headers.as_ref()?.get(name)
    }

    /// Returns the first value of this name in the query, decoded once
    /// (`application/x-www-form-urlencoded`).
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.target.as_ref()?.query()?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Returns the client's address, if it is known.
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.client
    }
}
