//! Errors of a store.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error that a store returns if it could not do what the caller asked.
///
/// A user who does not exist is not an error, and neither is an id that can't be an id of this
/// store. The type is opaque and cheap to clone. [`kind`](Self::kind) is for programs, `Display` is
/// for people, and [`source`](Error::source) returns the driver's own error.
///
/// ```
/// use tower_keep_core::{StoreError, StoreErrorKind};
///
/// let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = StoreError::new(StoreErrorKind::Unavailable, "postgres").with_source(cause);
/// assert_eq!(error.to_string(), "postgres store: unavailable");
/// assert!(std::error::Error::source(&error).is_some());
///
/// let error = StoreError::new(StoreErrorKind::Unsupported, "postgres")
///     .with_message("the table `member` is missing: run the migrations");
/// assert_eq!(
///     error.to_string(),
///     "postgres store: not supported: the table `member` is missing: run the migrations"
/// );
/// ```
#[derive(Clone)]
pub struct StoreError(Arc<Inner>);

/// The result of a call of a store.
pub type StoreResult<T> = Result<T, StoreError>;

struct Inner {
    kind: StoreErrorKind,
    store: Cow<'static, str>,
    message: Option<Cow<'static, str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`StoreError`], which tells a program how to handle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store can't be reached, or can't serve the call now. A later try may succeed.
    Unavailable,
    /// The store did not respond in time. It is not known whether a write took effect.
    Timeout,
    /// The write conflicts with stored data: an id, a login name or a key is taken.
    Conflict,
    /// The stored data does not have the expected form.
    Corrupt,
    /// This store can't do what the caller asked, now or later.
    Unsupported,
}

impl StoreErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Conflict => "conflict with what is stored",
            Self::Corrupt => "stored data can't be read",
            Self::Unsupported => "not supported",
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StoreError {
    /// Creates an error of the named store, such as `"postgres"`.
    pub fn new(kind: StoreErrorKind, store: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, store: store.into(), message: None, source: None }))
    }

    /// Returns the same error with a message for people: what happened, then what to do about it.
    /// `Display` prints it.
    ///
    /// The message goes to logs, so it must not contain secrets: no password from a connection URL,
    /// no session id, no data of a user.
    #[must_use]
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Self {
        let Inner { kind, store, source, .. } = &*self.0;
        let (store, source) = (store.clone(), source.clone());
        Self(Arc::new(Inner { kind: *kind, store, message: Some(message.into()), source }))
    }

    /// Returns the same error with the driver's error as its source.
    ///
    /// The source goes to logs, so it must not contain secrets, as for
    /// [`with_message`](Self::with_message).
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let Inner { kind, store, message, .. } = &*self.0;
        let (store, message) = (store.clone(), message.clone());
        let source = Some(Arc::from(source.into()));
        Self(Arc::new(Inner { kind: *kind, store, message, source }))
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind
    }

    /// Returns the name of the store that failed.
    pub fn store(&self) -> &str {
        &self.0.store
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} store: {}", self.0.store, self.0.kind)?;
        match &self.0.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.0.kind)
            .field("store", &self.0.store)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
