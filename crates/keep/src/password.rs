//! Password hashes: Argon2id, off the executor's threads, a bounded number at a time.

use std::fmt;
use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::sync::Semaphore;

use crate::fault::{plain, retry_later};

/// Makes and checks password hashes with Argon2id.
///
/// A check takes tens of milliseconds of a whole core and 19 MiB, on purpose. So it runs on tokio's
/// threads for blocking work, as many at a time as there are cores; some more wait, and beyond
/// that the answer is [`PasswordError::Busy`], so that a flood of logins can't take the server down.
/// An unknown login name takes as long as a known one whose hash has these parameters.
///
/// ```
/// use std::sync::Arc;
/// use tower_keep::{Account, PasswordError, Passwords};
///
/// async fn check(
///     passwords: &Passwords,
///     found: Option<Arc<Account>>,
///     typed: String,
/// ) -> Result<Option<Arc<Account>>, PasswordError> {
///     passwords.check(found, |account| account.password_hash(), typed).await
/// }
/// ```
///
/// Parameters: m = 19,456 KiB, t = 2, p = 1 (OWASP Password Storage Cheat Sheet); hashes made with
/// others are checked with theirs. Passwords of any length count in full.
#[derive(Clone)]
pub struct Passwords {
    queue: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Why a password could not be hashed or checked. It is neither right nor wrong then.
///
/// With the feature `axum` it is `IntoResponse`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too many passwords are being checked. Answered with 503 and `Retry-After`.
    #[error("too many passwords are being checked")]
    Busy,
    /// What is stored for this user is not a password hash in PHC string format. Answered with 500.
    #[error("a stored password hash can't be read")]
    NotAHash,
    /// The hashing itself failed: no random bytes, no memory, or the runtime is shutting down.
    /// Answered with 500.
    #[error("the password could not be hashed")]
    Failed,
}

/// A hash that no password has, with the parameters of new ones, for names that are not known.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// How many may wait for each one that runs.
const WAITING: usize = 16;

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

impl Passwords {
    /// Checks as many passwords at a time as there are cores.
    pub fn new() -> Self {
        Self::with_concurrency(available_parallelism().map_or(1, usize::from))
    }

    /// Checks this many passwords at a time, at least one; 16 times as many may wait.
    pub fn with_concurrency(concurrency: usize) -> Self {
        let running = concurrency.clamp(1, 1_024);
        Self {
            queue: Arc::new(Semaphore::new(running * (1 + WAITING))),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// The hash of a new password, in PHC string format with a salt of its own.
    ///
    /// # Errors
    ///
    /// See [`PasswordError`].
    pub async fn hash(&self, password: impl Into<String>) -> Result<String, PasswordError> {
        let password = password.into();
        self.run(move || {
            let hash = Argon2::default().hash_password(password.as_bytes());
            hash.map(|hash: PasswordHash| hash.to_string()).map_err(|_| PasswordError::Failed)
        })
        .await
    }

    /// Whether the password is the hash's; `None`, an unknown user's hash, takes as long and is
    /// never right.
    ///
    /// # Errors
    ///
    /// See [`PasswordError`].
    pub async fn verify(
        &self,
        hash: Option<&str>,
        password: impl Into<String>,
    ) -> Result<bool, PasswordError> {
        let (hash, password) = (hash.map(str::to_owned), password.into());
        self.run(move || {
            let is_of = |hash: &str| {
                let parsed = PasswordHash::new(hash).map_err(|_| PasswordError::NotAHash)?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
            };
            let checked = hash.as_deref().map(is_of);
            match checked {
                Some(Ok(is_right)) => Ok(is_right),
                // As slow as a known name, for one that is not known or whose hash can't be read.
                unknown => {
                    is_of(NOBODY)?;
                    unknown.unwrap_or(Ok(false))
                }
            }
        })
        .await
    }

    /// The user who was found by login name, if there is one and the password is theirs.
    ///
    /// # Errors
    ///
    /// See [`PasswordError`].
    pub async fn check<U>(
        &self,
        found: Option<Arc<U>>,
        hash: impl FnOnce(&U) -> &str,
        password: impl Into<String>,
    ) -> Result<Option<Arc<U>>, PasswordError> {
        let is_right = self.verify(found.as_deref().map(hash), password).await?;
        Ok(found.filter(|_| is_right))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.queue.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await;
        let turn = turn.map_err(|_| PasswordError::Failed)?;
        // The turn goes along: when the asker is dropped, the work still runs and still counts.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        work.await.map_err(|_| PasswordError::Failed)?
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl PasswordError {
    /// The status that answers it: 503, or 500.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotAHash | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer: the status, `Retry-After` where a later try may help, and a text that tells
    /// nothing of the inside.
    pub fn response(&self) -> Response<Bytes> {
        match self {
            Self::Busy => retry_later(),
            Self::NotAHash | Self::Failed => plain(self.status()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_costs_what_a_known_one_does() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let somebody: PasswordHash = Argon2::default().hash_password(b"p").unwrap();
        assert_eq!(nobody.algorithm, somebody.algorithm);
        assert_eq!(nobody.version, somebody.version);
        assert_eq!(nobody.params, somebody.params);
        let length = |hash: &PasswordHash| hash.hash.as_ref().map(|hash| hash.len());
        assert_eq!(length(&nobody), length(&somebody));
    }
}
