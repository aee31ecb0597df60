//! Hashing and checking passwords with Argon2id, off the executor's threads and with bounded
//! concurrency.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use http::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_keep_core::{
    Account, AuthUser, PasswordChange, PasswordStore, PasswordUser, StoreError, UserDirectory,
    UserDirectoryExt, UserId, UserLookup,
};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use crate::error::{AuthError, log_store_error};
use crate::error_body::{ErrorBody, preliminary_response};
use crate::problem::Problem;
use crate::throttle::LimitError;

/// Creates and checks password hashes with Argon2id.
///
/// A check takes tens of milliseconds of a whole core and 19 MiB of memory, on purpose. So checks
/// run on tokio's threads for blocking work, and no more of them run at the same time than there
/// are cores. A limited number of further checks wait. If more checks are requested, the calls
/// return [`PasswordError::Busy`], so that a flood of logins can't take the server down. A check
/// for an unknown login name takes as long as a check against a hash with the parameters below.
///
/// The parameters are m = 19,456 KiB, t = 2, p = 1 (OWASP Password Storage Cheat Sheet). A hash
/// that was made with other parameters is checked with the parameters that it names.
///
/// A password is converted to the Unicode form NFKC before it is hashed, because keyboards send the
/// same characters in different forms (NIST SP 800-63B-4 §3.1.1.2). A hash of the unconverted text
/// is accepted, too. A password has at most 4,096 bytes; it is never cut.
///
/// In a build without optimizations, a check takes about a second. Optimize these crates in
/// `Cargo.toml`:
///
/// ```toml
/// [profile.dev.package]
/// argon2 = { opt-level = 3 }
/// blake2 = { opt-level = 3 }
/// ```
#[derive(Clone)]
pub struct Passwords {
    /// A permit for each call, whether it waits or runs.
    queue: Arc<Semaphore>,
    /// The same, for the users' known devices only. So a flood from elsewhere leaves room for them.
    known_devices_queue: Arc<Semaphore>,
    /// A permit for each call that runs.
    running: Arc<Semaphore>,
}

/// The reason why a password could not be hashed or checked.
///
/// After this error it is not known whether the password is right. With the feature `axum`, this
/// type implements `IntoResponse`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too many passwords are being checked. The response is 503 with `Retry-After`.
    #[error("too many passwords are being checked at once: raise `with_concurrency`, or add cores")]
    Busy,
    /// A password to hash has more than 4,096 bytes. The response is 422.
    #[error("a password has {bytes} bytes, and at most 4,096 are allowed")]
    TooLong {
        /// The length, in bytes.
        bytes: usize,
    },
    /// The hashing itself failed: no random bytes, no memory, or the runtime is shutting down. The
    /// response is 500.
    #[error(
        "the password could not be hashed: random bytes or memory ran out, or the runtime is \
         shutting down"
    )]
    Failed,
    /// The store failed. The response is 503 with `Retry-After`.
    #[error(transparent)]
    Store(StoreError),
    /// The attempt could not be counted. The response is that of the [`LimitError`].
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The [`AuthSession`](crate::AuthSession) is that of another login layer than the sign-in's.
    /// This is a bug in the application: extract the handle with
    /// [`LoginLayer::auth_session`](crate::LoginLayer::auth_session). The response is 500.
    #[error(
        "the `AuthSession` belongs to another login layer than the `PasswordSignIn`: get it with \
         `auth_layer.auth_session(&extensions)`"
    )]
    OtherLayer,
    /// It is not known which user is logged in, to confirm the login. The response is that of the
    /// [`AuthError`].
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Logs the error with the store and the cause.
impl From<StoreError> for PasswordError {
    fn from(error: StoreError) -> Self {
        log_store_error(&error);
        Self::Store(error)
    }
}

/// Whether a password matches a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    No,
    Yes,
    /// The hash has weaker parameters than new hashes, or is of the password's unconverted text.
    YesOutdated,
}

/// Checks whether the password matches this hash. Returns an error if the hash is not valid.
fn match_hash(
    hash: &str,
    password: &str,
) -> Result<Match, Box<dyn std::error::Error + Send + Sync>> {
    let hash = PasswordHash::new(hash)?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("the stored hash is cut short".into());
    }
    let matches =
        |password: &str| match Argon2::default().verify_password(password.as_bytes(), &hash) {
            Ok(()) => Ok(true),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(reason) => Err(reason),
        };
    let normalized = normalized(password);
    if matches(&normalized)? {
        return Ok(if is_outdated(&hash) { Match::YesOutdated } else { Match::Yes });
    }
    // Another program may have hashed the text as it was typed.
    let is_match = *normalized != *password && matches(password)?;
    Ok(if is_match { Match::YesOutdated } else { Match::No })
}

/// Returns the password in the form in which it is hashed, NFKC.
pub(crate) fn normalized(password: &str) -> Cow<'_, str> {
    match is_nfkc_quick(password.chars()) {
        IsNormalized::Yes => Cow::Borrowed(password),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(password.nfkc().collect()),
    }
}

/// Checks whether a hash is weaker than new hashes are. More memory makes up for fewer passes.
fn is_outdated(hash: &PasswordHash) -> bool {
    let cost = |memory: u32, passes: u32| u64::from(memory) * u64::from(passes);
    let Ok(params) = Params::try_from(hash) else { return true };
    hash.algorithm != Algorithm::Argon2id.ident()
        || hash.version != Some(Version::V0x13.into())
        || params.m_cost() < Params::DEFAULT_M_COST
        || cost(params.m_cost(), params.t_cost())
            < cost(Params::DEFAULT_M_COST, Params::DEFAULT_T_COST)
}

/// A hash that no password matches, with the parameters of new hashes, for unknown login names.
const UNMATCHABLE_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password has at most this many bytes, so that converting it takes little time.
pub(crate) const MAX_PASSWORD_BYTES: usize = 4_096;

/// A check that takes longer than this, in a debug build, runs code that is not optimized.
const SLOW: Duration = Duration::from_millis(400);

/// For each call that may run, this many calls may wait.
const WAITING_PER_RUNNING: usize = 16;

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

impl Passwords {
    /// Creates a `Passwords` that checks as many passwords at the same time as there are cores.
    pub fn new() -> Self {
        Self::with_permits(available_parallelism().map_or(1, usize::from))
    }

    /// Sets how many passwords are checked at the same time, at least one. Up to 16 times as many
    /// checks may wait, and as many again from [known devices](crate::throttle#known-devices). Call
    /// this method before the first clone: earlier clones keep their own limit.
    pub fn with_concurrency(self, concurrency: usize) -> Self {
        Self::with_permits(concurrency.clamp(1, 1_024))
    }

    fn with_permits(concurrency: usize) -> Self {
        Self {
            queue: Arc::new(Semaphore::new(concurrency * (1 + WAITING_PER_RUNNING))),
            known_devices_queue: Arc::new(Semaphore::new(concurrency * WAITING_PER_RUNNING)),
            running: Arc::new(Semaphore::new(concurrency)),
        }
    }

    /// Returns the hash of a new password, in PHC string format and with its own salt.
    ///
    /// # Errors
    ///
    /// Returns an error if too many passwords are being checked, if the password has more than
    /// 4,096 bytes, or if hashing fails.
    pub async fn hash(&self, password: impl Into<String>) -> Result<String, PasswordError> {
        let password = password.into();
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::TooLong { bytes: password.len() });
        }
        let place = self.enter()?;
        self.run(place, move || {
            let hash = Argon2::default().hash_password(normalized(&password).as_bytes());
            hash.map(|hash: PasswordHash| hash.to_string()).map_err(|_| PasswordError::Failed)
        })
        .await
    }

    /// Checks whether the password matches the hash.
    ///
    /// For an unknown user, pass `None` as the hash: the call returns `false`, and takes as long as
    /// for a known user. The same applies to a stored text that is not an Argon2 hash in PHC string
    /// format, such as an empty text or `!`. So a client can't distinguish such a user from an
    /// unknown user. For such a text, the call logs an error, which does not quote the text.
    ///
    /// # Errors
    ///
    /// Returns an error if too many passwords are being checked, or if hashing fails.
    pub async fn verify(
        &self,
        hash: Option<&str>,
        password: impl Into<String>,
    ) -> Result<bool, PasswordError> {
        self.verify_for(None, hash, password.into()).await
    }

    /// Does the same as `verify`. If the hash is not valid, the log names `user`.
    async fn verify_for(
        &self,
        user: Option<UserId>,
        hash: Option<&str>,
        password: String,
    ) -> Result<bool, PasswordError> {
        let place = self.enter()?;
        Ok(self.match_for(place, user, hash, password).await? != Match::No)
    }

    /// Takes a place among the checks that may wait.
    fn enter(&self) -> Result<Place, PasswordError> {
        self.enter_from(false)
    }

    /// Takes a place among the checks that may wait. Checks from known devices of their users have
    /// places of their own.
    pub(crate) fn enter_from(&self, is_known_device: bool) -> Result<Place, PasswordError> {
        let queue = if is_known_device { &self.known_devices_queue } else { &self.queue };
        Arc::clone(queue).try_acquire_owned().map(Place).map_err(|_| PasswordError::Busy)
    }

    /// Checks whether the password matches the hash; see [`verify`](Self::verify). If the hash is
    /// not valid, the log names `user`.
    pub(crate) async fn match_for(
        &self,
        place: Place,
        user: Option<UserId>,
        hash: Option<&str>,
        mut password: String,
    ) -> Result<Match, PasswordError> {
        let mut hash = hash.map(str::to_owned);
        if password.len() > MAX_PASSWORD_BYTES {
            // No stored hash can be of such a password.
            (hash, password) = (None, String::new());
        }
        let checked = self.run(place, move || {
            let begun = Instant::now();
            let checked = hash.map(|hash| match_hash(&hash, &password));
            if !matches!(checked, Some(Ok(_))) {
                // With this check, the call takes as long as for a known user.
                let _ = match_hash(UNMATCHABLE_HASH, &password);
            }
            warn_if_slow(begun.elapsed());
            Ok(checked.unwrap_or(Ok(Match::No)))
        });
        Ok(checked.await?.unwrap_or_else(|reason| {
            tracing::error!(
                user = user.as_ref().map(tracing::field::display),
                %reason,
                "the stored password hash is not an Argon2 hash, so no password is right: let the \
                 user set a new password"
            );
            Match::No
        }))
    }

    /// Checks the password of a user who was looked up in a way of the application's own, such as by
    /// an e-mail address. For a [`UserLookup`], [`check_login`](Self::check_login) does both.
    ///
    /// Returns the user if there is one and the password is right, or else `None`.
    ///
    /// # Errors
    ///
    /// Returns an error if too many passwords are being checked, or if hashing fails.
    pub async fn check<U: AuthUser>(
        &self,
        found: Option<Arc<U>>,
        hash: impl FnOnce(&U) -> &str,
        password: impl Into<String>,
    ) -> Result<Option<Arc<U>>, PasswordError> {
        let (user, hash) = (found.as_deref().map(U::id), found.as_deref().map(hash));
        let is_right = self.verify_for(user, hash, password.into()).await?;
        Ok(found.filter(|_| is_right))
    }

    /// Inserts an [`Account`] with the hash of this password, unless the id or the login name is
    /// taken. Returns whether the account was inserted.
    ///
    /// Call it at the start of a program for the first user:
    ///
    /// ```
    /// # use tower_keep::password::{PasswordError, Passwords};
    /// # use tower_keep_memory::MemoryStore;
    /// # async fn example() -> Result<(), PasswordError> {
    /// # let (users, passwords) = (MemoryStore::new(), Passwords::new());
    /// passwords.sign_up(&users, 1, "ada", "analytical engine").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, if too many passwords are being checked, or if hashing
    /// fails. A taken id or login name is not an error: the call returns `Ok(false)`, and the stored
    /// account stays as it is.
    pub async fn sign_up<S>(
        &self,
        users: &S,
        id: impl Into<UserId>,
        login_name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<bool, PasswordError>
    where
        S: UserDirectory<User = Account> + ?Sized,
    {
        let account = Account::new(id, login_name, self.hash(password).await?);
        Ok(users.insert_if_absent(&account).await?)
    }

    /// Looks up a user by login name, and checks the password.
    ///
    /// Returns the user if there is one and the password is right, or else `None`. For an unknown
    /// login name the call takes as long as for a user whose hash has the parameters of new hashes.
    ///
    /// ```
    /// use tower_keep::password::Passwords;
    /// use tower_keep::{Account, AuthSession};
    /// use tower_keep_memory::MemoryStore;
    ///
    /// /// Returns whether the user is logged in now.
    /// async fn sign_in(
    ///     users: &MemoryStore<Account>,
    ///     passwords: &Passwords,
    ///     auth: &AuthSession<Account>,
    ///     (login, password): (String, String),
    /// ) -> Result<bool, Box<dyn std::error::Error>> {
    ///     let Some(user) = passwords.check_login(users, &login, password).await? else {
    ///         return Ok(false); // say neither that the name is wrong nor that the password is
    ///     };
    ///     auth.log_in(user).await?;
    ///     Ok(true)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, if too many passwords are being checked, or if hashing
    /// fails.
    pub async fn check_login<S>(
        &self,
        users: &S,
        login_name: &str,
        password: impl Into<String>,
    ) -> Result<Option<Arc<S::User>>, PasswordError>
    where
        S: UserLookup + ?Sized,
        S::User: PasswordUser,
    {
        let found = users.by_login_name(login_name).await?;
        self.check(found, S::User::password_hash, password).await
    }

    /// Stores a new password for the user who is logged in.
    ///
    /// `user` is the user as this request found them logged in; don't load the user again for this
    /// call. Nothing is written if the stored user now has another
    /// [security stamp](AuthUser::security_stamp), for example after an administrator's reset. If
    /// the new password is already stored, because a form was submitted twice, the call succeeds.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_keep::{Account, AuthSession, LoginError};
    /// use tower_keep::password::{PasswordChange, PasswordError, PasswordStore, Passwords};
    ///
    /// /// Returns whether the password was changed. If not, respond with 409.
    /// async fn change<S: PasswordStore<User = Account>>(
    ///     store: &S,
    ///     passwords: &Passwords,
    ///     auth: &AuthSession<Account>,
    ///     user: &Account,
    ///     typed: String,
    /// ) -> Result<bool, Box<dyn std::error::Error>> {
    ///     Ok(match passwords.change(store, user, typed).await? {
    ///         // Ends every other login of the user, and keeps this one.
    ///         PasswordChange::Changed(user) => auth.keep_logged_in(user).await?.is_some(),
    ///         PasswordChange::Stale(_) | PasswordChange::Missing => false,
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if too many passwords are being checked, or if hashing or the store fails.
    pub async fn change<S>(
        &self,
        store: &S,
        user: &S::User,
        password: impl Into<String>,
    ) -> Result<PasswordChange<S::User>, PasswordError>
    where
        S: PasswordStore + ?Sized,
    {
        let password = password.into();
        let hash = self.hash(password.clone()).await?;
        let changed = store.set_password(&user.id(), &user.security_stamp(), &hash).await?;
        let PasswordChange::Stale(stored) = changed else { return Ok(changed) };
        let is_stored =
            self.verify_for(Some(stored.id()), Some(stored.password_hash()), password).await?;
        Ok(match is_stored {
            true => PasswordChange::Changed(stored),
            false => PasswordChange::Stale(stored),
        })
    }

    /// Runs `work` on a thread for blocking work, as soon as a permit is free.
    async fn run<T: Send + 'static>(
        &self,
        _place: Place,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let run_permit = Arc::clone(&self.running).acquire_owned().await;
        let run_permit = run_permit.map_err(|_| PasswordError::Failed)?;
        // The permit moves into the task, because the task still runs if this future is dropped.
        let work = tokio::task::spawn_blocking(move || {
            let _run_permit = run_permit;
            work()
        });
        work.await.map_err(|_| PasswordError::Failed)?
    }
}

/// A place among the checks that may wait.
pub(crate) struct Place(
    #[expect(dead_code, reason = "it is free again on drop")] OwnedSemaphorePermit,
);

/// In a debug build, says once that the code of Argon2 is not optimized.
fn warn_if_slow(duration: Duration) {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    if cfg!(debug_assertions) && duration > SLOW && !HAS_WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            ?duration,
            "checking a password is slow, because this build does not optimize Argon2: add \
             `[profile.dev.package]` with `argon2 = {{ opt-level = 3 }}` and \
             `blake2 = {{ opt-level = 3 }}` to Cargo.toml"
        );
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl PasswordError {
    /// Returns the status of the response, such as 503.
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// Returns the response, as [`AuthError::response`](crate::AuthError::response) does.
    pub fn response(&self) -> Response<ErrorBody> {
        preliminary_response(self.problem())
    }

    /// Logs this error, unless a store failed: `From<StoreError>` has logged that already.
    #[cfg(any(feature = "axum", feature = "tonic"))]
    pub(crate) fn log(&self) {
        match self {
            Self::Store(_) | Self::TooLong { .. } => {}
            Self::Limit(error) => error.log(),
            Self::Auth(error) => error.log(),
            Self::Busy | Self::Failed | Self::OtherLayer => tracing::error!(
                error = self as &dyn std::error::Error,
                "a password was not hashed or checked"
            ),
        }
    }

    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Busy | Self::Store(_) => Problem::UNAVAILABLE,
            Self::TooLong { .. } => Problem::PASSWORD_REJECTED,
            Self::Limit(error) => error.problem(),
            Self::Auth(error) => error.problem(),
            Self::Failed => Problem::INTERNAL,
            Self::OtherLayer => Problem::bug(&self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_login_name_is_checked_with_the_parameters_of_new_hashes() {
        let unmatchable = PasswordHash::new(UNMATCHABLE_HASH).unwrap();
        let new: PasswordHash = Argon2::default().hash_password(b"p").unwrap();
        assert_eq!(unmatchable.algorithm, new.algorithm);
        assert_eq!(unmatchable.version, new.version);
        assert_eq!(unmatchable.params, new.params);
        let length = |hash: &PasswordHash| hash.hash.as_ref().map(|hash| hash.len());
        assert_eq!(length(&unmatchable), length(&new));
    }
}
