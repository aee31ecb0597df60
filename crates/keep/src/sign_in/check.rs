//! Checking a password: look up the user, count the attempt, check the hash.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use tower_keep_core::{AuthUser, CounterStore, PasswordStore, PasswordUser, UserId, UserLookup};
use tracing::Instrument;

use super::fold::fold;
use super::limits::SignInLimits;
use super::rules::{PasswordRejection, PasswordRules};
use crate::event::{Event, LoginAttempt};
use crate::layer::LoginLayer;
use crate::layer::config::Config;
use crate::login::handle::AuthSession;
use crate::login::state::CheckedPassword;
use crate::passwords::{Match, PasswordError, Passwords, Place};
use crate::throttle::limit::LimitUse;
use crate::throttle::limiter::Limiter;
use crate::throttle::{LimitError, Throttled};

/// A login name with more bytes belongs to nobody.
const MAX_NAME_BYTES: usize = 1_024;

/// Checks passwords, and limits how often they are guessed.
///
/// Create it once, next to the layer, and put it into the state of the application. A clone shares
/// everything. See the [module](crate::sign_in) for an example and the limits.
pub struct PasswordSignIn<U> {
    pub(super) inner: Arc<Inner<U>>,
}

/// Converts a login name, as it was typed, to the form in which it is stored.
type StoredName = Arc<dyn Fn(&str) -> String + Send + Sync>;

pub(super) struct Inner<U> {
    pub(super) auth_layer: LoginLayer<U>,
    users: Arc<dyn UserLookup<User = U>>,
    /// Writes better hashes of right passwords; `None` if hashes stay as they are.
    rehashes: Option<Arc<dyn PasswordStore<User = U>>>,
    passwords: Passwords,
    limiter: Limiter,
    limits: SignInLimits,
    rules: PasswordRules,
    stored_name: StoredName,
    #[cfg(feature = "axum")]
    pub(super) page: super::page::PageFn,
}

impl<U> Clone for PasswordSignIn<U> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<U> Clone for Inner<U> {
    fn clone(&self) -> Self {
        Self {
            auth_layer: self.auth_layer.clone(),
            users: Arc::clone(&self.users),
            rehashes: self.rehashes.clone(),
            passwords: self.passwords.clone(),
            limiter: self.limiter.clone(),
            limits: self.limits,
            rules: self.rules.clone(),
            stored_name: Arc::clone(&self.stored_name),
            #[cfg(feature = "axum")]
            page: Arc::clone(&self.page),
        }
    }
}

/// The result of checking a password.
#[must_use = "log the user in only if the password was right"]
#[derive(Debug)]
pub enum PasswordCheck<U> {
    /// The password was right, and this is its user. The user may be inactive; logging in then
    /// fails.
    Ok(Arc<U>),
    /// The password was wrong, or there is no user with the login name. Don't say which.
    Wrong,
    /// Too many passwords were tried, and this one was not checked. Respond with
    /// [`response`](Throttled::response), or with a page of your own and the status 429.
    Throttled(Throttled),
}

impl<U: PasswordUser> PasswordSignIn<U> {
    /// Creates a sign-in for the users of this store, which also counts the attempts.
    ///
    /// ```
    /// use tower_keep::{Account, LoginLayer, PasswordSignIn};
    /// use tower_keep_memory::MemoryStore;
    ///
    /// fn sign_in(
    ///     auth_layer: &LoginLayer<Account>,
    ///     store: MemoryStore<Account>,
    /// ) -> PasswordSignIn<Account> {
    ///     PasswordSignIn::new(auth_layer, store)
    /// }
    /// ```
    ///
    /// If a right password has a hash with weaker parameters than new hashes have, the store gets a
    /// new hash, unless another write has changed it in the meantime.
    pub fn new<S>(auth_layer: &LoginLayer<U>, store: S) -> Self
    where
        S: UserLookup<User = U> + PasswordStore<User = U> + CounterStore + 'static,
    {
        let store = Arc::new(store);
        let rehashes = Arc::clone(&store) as Arc<dyn PasswordStore<User = U>>;
        let counters = Arc::clone(&store);
        Self::create(auth_layer, store, Some(rehashes), auth_layer.limiter(counters))
    }

    /// Creates a sign-in for users in one store, with the counters in another.
    ///
    /// Stored hashes stay as they are. To let the sign-in write better ones, add
    /// [`with_rehashes_in`](Self::with_rehashes_in).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_keep::store::{CounterStore, UserLookup};
    /// use tower_keep::{Account, LoginLayer, PasswordSignIn};
    ///
    /// fn sign_in(
    ///     auth_layer: &LoginLayer<Account>,
    ///     users: Arc<dyn UserLookup<User = Account>>,
    ///     counters: Arc<dyn CounterStore>,
    /// ) -> PasswordSignIn<Account> {
    ///     PasswordSignIn::with_counters_in(auth_layer, users, counters)
    /// }
    /// ```
    pub fn with_counters_in(
        auth_layer: &LoginLayer<U>,
        users: impl UserLookup<User = U> + 'static,
        counters: impl CounterStore + 'static,
    ) -> Self {
        Self::create(auth_layer, Arc::new(users), None, auth_layer.limiter(counters))
    }

    fn create(
        auth_layer: &LoginLayer<U>,
        users: Arc<dyn UserLookup<User = U>>,
        rehashes: Option<Arc<dyn PasswordStore<User = U>>>,
        limiter: Limiter,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                auth_layer: auth_layer.clone(),
                users,
                rehashes,
                passwords: Passwords::new(),
                limiter,
                limits: SignInLimits::default(),
                rules: PasswordRules::default(),
                stored_name: Arc::new(str::to_owned),
                #[cfg(feature = "axum")]
                page: Arc::new(|page| page.default_page()),
            }),
        }
    }

    pub(super) fn with(self, change: impl FnOnce(&mut Inner<U>)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    /// Sets where better hashes of right passwords are written, such as to
    /// [`own_passwords`](crate::password::own_passwords).
    #[must_use]
    pub fn with_rehashes_in(self, store: impl PasswordStore<User = U> + 'static) -> Self {
        self.with(|inner| inner.rehashes = Some(Arc::new(store)))
    }

    /// Sets the limits on guessing.
    #[must_use]
    pub fn with_limits(self, limits: SignInLimits) -> Self {
        self.with(|inner| inner.limits = limits)
    }

    /// Sets the limiter, for example one with another
    /// [number of new counters](Limiter::with_max_new_counters).
    #[must_use]
    pub fn with_limiter(self, limiter: Limiter) -> Self {
        self.with(|inner| inner.limiter = limiter)
    }

    /// Sets the rules for new passwords.
    #[must_use]
    pub fn with_rules(self, rules: PasswordRules) -> Self {
        self.with(|inner| inner.rules = rules)
    }

    /// Sets how a login name that was typed becomes the name that is looked up; by default, it
    /// stays as it is. Most stores compare names byte for byte, so convert names in the same way
    /// when users sign up.
    ///
    /// ```
    /// # use tower_keep::{Account, PasswordSignIn};
    /// # fn example(sign_in: PasswordSignIn<Account>) -> PasswordSignIn<Account> {
    /// sign_in.with_stored_name(|typed| typed.trim().to_lowercase())
    /// # }
    /// ```
    #[must_use]
    pub fn with_stored_name(
        self,
        stored_name: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|inner| inner.stored_name = Arc::new(stored_name))
    }

    /// Sets what hashes and checks the passwords, for example with another
    /// [concurrency](Passwords::with_concurrency).
    #[must_use]
    pub fn with_passwords(self, passwords: Passwords) -> Self {
        self.with(|inner| inner.passwords = passwords)
    }

    /// Returns what hashes the passwords, for new ones.
    pub fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// Returns the limiter, for limits of your own.
    pub fn limiter(&self) -> &Limiter {
        &self.inner.limiter
    }

    /// Returns why this password can't be a new password, or `None` if it can; see
    /// [`PasswordRules`].
    ///
    /// # Errors
    ///
    /// Returns an error only if the [breach check](PasswordRules::with_breach_check) does.
    pub async fn rejection_of(
        &self,
        password: &str,
    ) -> Result<Option<PasswordRejection>, PasswordError> {
        self.inner.rules.rejection_of(password).await
    }

    /// Looks up a user by login name, and checks the password, unless too many were tried.
    ///
    /// Log the user in within the same request. The completed login resets the count of wrong
    /// passwords, and makes the browser a [known device](crate::throttle#known-devices).
    ///
    /// Raises [`LoginFailed`](Event::LoginFailed) and [`Throttled`](Event::Throttled). If the
    /// future is dropped, because the client hangs up, a wrong password counts nevertheless.
    ///
    /// # Errors
    ///
    /// Returns an error if a store fails, if too many passwords are being checked or [too many
    /// counters begin](crate::throttle::LimitError::Busy), or if hashing fails. The attempt is then
    /// given back; if the store of the counters has failed, it may stay counted. A handle of
    /// another login layer is an error, too.
    pub async fn check(
        &self,
        auth: &AuthSession<U>,
        login_name: &str,
        password: impl Into<String>,
    ) -> Result<PasswordCheck<U>, PasswordError> {
        self.check_layer(auth)?;
        let Inner { users, limiter, limits, stored_name, .. } = &*self.inner;
        let is_possible = login_name.len() <= MAX_NAME_BYTES;
        let stored_name = if is_possible { stored_name(login_name) } else { login_name.to_owned() };
        let name = fold(&stored_name);
        let mut attempt = LoginAttempt::new(auth.client_addr(), Some(self.name_digest(&name)));
        let by_address = auth.limit_by_address(&limits.address());
        let by_name = limits.name().of(&name);
        if !auth.has_device_cookie() {
            // A flood does not even reach the store of the users.
            let uses = [by_name.clone(), by_address.clone()];
            if let Err(throttled) = limiter.check_refused_lately(&uses) {
                return Ok(raise_throttled(auth.config(), attempt, throttled));
            }
        }
        let found = match is_possible {
            true => users.by_login_name(&stored_name).await?,
            false => None,
        };
        let device = found.as_ref().and_then(|user| self.device_uses(auth, &**user));
        let uses = device.unwrap_or_else(|| {
            // An unknown name takes as many uses as a known one.
            let by_user = match &found {
                Some(user) => self.user_use(&user.id()),
                None => limits.user().of([b"?", name.as_bytes()].concat()),
            };
            AttemptUses { own: vec![by_name, by_user], shared: by_address, is_known_device: false }
        });
        attempt.user.clone_from(&found);
        self.check_counted(auth, uses, attempt, password.into()).await
    }

    /// Checks the password of the user who is logged in, for a confirmation or before a change of
    /// the password, unless too many were tried.
    ///
    /// The limits are those of [`check`](Self::check), so a stranger with a stolen session can't
    /// guess more often than at the login. A browser without a device cookie, such as after a login
    /// by a link in a mail, also waits if strangers guess. If no user is logged in, the result is
    /// [`Wrong`](PasswordCheck::Wrong).
    ///
    /// ```
    /// use tower_keep::sign_in::{PasswordCheck, PasswordSignIn};
    /// use tower_keep::{Account, AuthSession};
    ///
    /// /// Returns whether the login is fresh now.
    /// async fn confirm(
    ///     sign_in: &PasswordSignIn<Account>,
    ///     auth: &AuthSession<Account>,
    ///     password: String,
    /// ) -> Result<bool, Box<dyn std::error::Error>> {
    ///     match sign_in.check_again(auth, password).await? {
    ///         PasswordCheck::Ok(_) => Ok(auth.confirm().await?.is_some()),
    ///         PasswordCheck::Wrong | PasswordCheck::Throttled(_) => Ok(false),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`check`](Self::check), and if the user can't be looked up.
    pub async fn check_again(
        &self,
        auth: &AuthSession<U>,
        password: impl Into<String>,
    ) -> Result<PasswordCheck<U>, PasswordError> {
        self.check_layer(auth)?;
        let Some(user) = auth.user().await? else { return Ok(PasswordCheck::Wrong) };
        let uses = self.device_uses(auth, &user).unwrap_or_else(|| AttemptUses {
            own: vec![self.user_use(&user.id())],
            shared: auth.limit_by_address(&self.inner.limits.address()),
            is_known_device: false,
        });
        let mut attempt = LoginAttempt::new(auth.client_addr(), None);
        attempt.user = Some(user);
        self.check_counted(auth, uses, attempt, password.into()).await
    }

    /// Lets a user start over: resets the counts of wrong passwords for this user and this login
    /// name, from unknown devices.
    ///
    /// A completed login does this by itself if the password was checked in the same request. Call
    /// this in other cases in which users have proved who they are: after a login with a password
    /// and then a code in a later request, after a login by a link in a mail, or after a reset of
    /// the password.
    ///
    /// ```
    /// use tower_keep::throttle::LimitError;
    /// use tower_keep::{Account, PasswordSignIn};
    ///
    /// /// Called after the user has followed the link in a mail, and has set a new password.
    /// async fn password_was_reset(
    ///     sign_in: &PasswordSignIn<Account>,
    ///     account: &Account,
    /// ) -> Result<(), LimitError> {
    ///     sign_in.reset_limits_of(account, account.login_name()).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Store`](LimitError::Store) if the store fails.
    pub async fn reset_limits_of(&self, user: &U, login_name: &str) -> Result<(), LimitError> {
        let Inner { limiter, limits, stored_name, .. } = &*self.inner;
        let by_name = limits.name().of(fold(&stored_name(login_name)));
        limiter.reset(&[by_name, self.user_use(&user.id())]).await
    }

    /// Checks that the handle is of the layer of this sign-in. A user of one area must not log in
    /// to another.
    fn check_layer(&self, auth: &AuthSession<U>) -> Result<(), PasswordError> {
        match auth.belongs_to(&self.inner.auth_layer.config) {
            true => Ok(()),
            false => Err(PasswordError::OtherLayer),
        }
    }

    fn user_use(&self, id: &UserId) -> LimitUse {
        self.inner.limits.user().of([b"=", id.as_bytes()].concat())
    }

    /// Returns the uses of an attempt from a known device of the user, or `None` if the request
    /// comes from another device.
    fn device_uses(&self, auth: &AuthSession<U>, user: &U) -> Option<AttemptUses> {
        let (device, id) = (auth.known_device(user)?, user.id());
        let limits = &self.inner.limits;
        Some(AttemptUses {
            own: vec![limits.device().of([&device, id.as_bytes()].concat())],
            shared: limits.all_devices().of(id.as_bytes()),
            is_known_device: true,
        })
    }

    fn name_digest(&self, name: &str) -> String {
        let digest = self.inner.limiter.digest_of("name in events", name.as_bytes());
        digest[..8].iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
            hex
        })
    }

    /// Counts the attempt, and checks the password.
    async fn check_counted(
        &self,
        auth: &AuthSession<U>,
        uses: AttemptUses,
        attempt: LoginAttempt<U>,
        password: String,
    ) -> Result<PasswordCheck<U>, PasswordError> {
        // An attempt for which there is no room is not counted.
        let place = self.inner.passwords.enter_from(uses.is_known_device)?;
        let (sign_in, config) = (self.clone(), Arc::clone(auth.config()));
        // A client that hangs up drops this future. In a task of its own, the check goes on, and a
        // wrong password stays counted.
        let checking = async move { sign_in.run(&config, place, uses, attempt, password).await };
        let checked = tokio::spawn(checking.in_current_span()).await;
        let (check, proof) = checked.map_err(|_| PasswordError::Failed)??;
        if let Some(proof) = proof {
            auth.keep_checked(proof);
        }
        Ok(check)
    }

    /// Counts the attempt, checks the password, and gives the attempt back unless the password is
    /// wrong. Also returns what a right password proves.
    async fn run(
        &self,
        config: &Config<U>,
        place: Place,
        uses: AttemptUses,
        attempt: LoginAttempt<U>,
        password: String,
    ) -> Result<(PasswordCheck<U>, Option<CheckedPassword>), PasswordError> {
        let Inner { passwords, limiter, .. } = &*self.inner;
        let own_count = uses.own.len();
        let all: Vec<_> = uses.own.into_iter().chain([uses.shared]).collect();
        let taken = match limiter.take_counting(&all, !uses.is_known_device).await {
            Ok(taken) => taken,
            Err(LimitError::Throttled(throttled)) => {
                return Ok((raise_throttled(config, attempt, throttled), None));
            }
            Err(error) => return Err(error.into()),
        };
        let id = attempt.user.as_ref().map(|user| user.id());
        let hash = attempt.user.as_ref().map(|user| user.password_hash().to_owned());
        let matched = passwords.match_for(place, id, hash.as_deref(), password.clone()).await;
        let reset = taken.counters_in_use(own_count).collect();
        if !matches!(matched, Ok(Match::No)) {
            // If this fails, the attempt stays counted until a login resets it. It was logged.
            let _ = taken.give_back().await;
        }
        let (matched, user) = (matched?, attempt.user.clone());
        let (Some(user), Some(hash), true) = (user, hash, matched != Match::No) else {
            config.raise(Event::LoginFailed { attempt });
            return Ok((PasswordCheck::Wrong, None));
        };
        if matched == Match::YesOutdated {
            self.rehash(&user.id(), &hash, password).await;
        }
        let proof = CheckedPassword { user: user.id(), limiter: limiter.clone(), reset };
        Ok((PasswordCheck::Ok(user), Some(proof)))
    }

    /// Writes a better hash of a right password. A failure is only logged: the next login tries
    /// again.
    async fn rehash(&self, id: &UserId, seen_hash: &str, password: String) {
        let Inner { rehashes: Some(store), passwords, .. } = &*self.inner else { return };
        let Ok(hash) = passwords.hash(password).await else { return };
        if let Err(error) = store.rehash(id, seen_hash, &hash).await {
            crate::error::log_store_error(&error);
        }
    }
}

/// The limits that an attempt uses up.
struct AttemptUses {
    /// Those of the name and the user, or of the device. A completed login resets them.
    own: Vec<LimitUse>,
    /// That of the address, or of all devices of the user. A login does not reset it.
    shared: LimitUse,
    is_known_device: bool,
}

fn raise_throttled<U: AuthUser>(
    config: &Config<U>,
    attempt: LoginAttempt<U>,
    throttled: Throttled,
) -> PasswordCheck<U> {
    config.raise(Event::Throttled { attempt, throttled });
    PasswordCheck::Throttled(throttled)
}

impl<U> fmt::Debug for PasswordSignIn<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordSignIn").finish_non_exhaustive()
    }
}
