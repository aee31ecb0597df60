//! Request loaders: users who come with a token, a key or a password in the request itself.
//!
//! They are asked in the order they were added, after the cookies named nobody, and the first user
//! that one finds counts. A user found so is logged in for this request only: no cookie is set,
//! and they are never fresh.

mod ready;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use tower_keep_core::StoreError;

pub use ready::{ApiKey, Basic, Bearer};

/// Finds the user of a request by what the request itself carries.
///
/// [`Bearer`], [`Basic`] and [`ApiKey`] are ready ones. Write your own for anything else, such as a
/// signed URL:
///
/// ```
/// use std::sync::Arc;
/// use tower_keep::{Account, LoaderRequest, RequestLoader, StoreError, async_trait};
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
    /// The headers that [`load`](Self::load) reads. Only these are kept for it, and they join the
    /// response's `Vary` when it was asked.
    fn headers(&self) -> &[HeaderName] {
        &[]
    }

    /// What `WWW-Authenticate` says for this loader when a guard answers 401 (RFC 9110 §11.6.1).
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// The request's user; `None` if it carries nothing for this loader, or nothing valid. A user
    /// who is not [active](tower_keep_core::AuthUser::is_active) counts as nobody, and no later
    /// loader is asked.
    ///
    /// Dropping the future must leave everything as it was.
    ///
    /// # Errors
    ///
    /// Faults alone: the request is then answered with 503, not taken for nobody's.
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

/// What a request loader sees of a request.
#[derive(Clone, Debug)]
pub struct LoaderRequest {
    pub(crate) method: Method,
    /// None for the asterisk and authority forms of a request target.
    pub(crate) target: Option<PathAndQuery>,
    /// Those that loaders have declared; none where there are no loaders.
    pub(crate) headers: Option<Box<HeaderMap>>,
    pub(crate) client: Option<IpAddr>,
}

impl LoaderRequest {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as the client asked for it, before any router stripped a prefix.
    pub fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// A header that some loader has declared.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&HeaderValue> {
        self.headers.as_ref()?.get(name)
    }

    /// The first value of this name in the query, decoded once
    /// (`application/x-www-form-urlencoded`).
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.target.as_ref()?.query()?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The client's address, where it is known.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }
}
