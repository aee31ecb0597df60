//! A ready-made user type.

use std::borrow::Cow;
use std::fmt;

use crate::password::PasswordUser;
use crate::user::{AuthUser, LoginName};
use crate::user_id::UserId;

/// A user with an id, a login name, a password hash and nothing else.
///
/// This type is for applications that have no user type yet. Every adapter can store it.
///
/// ```
/// use tower_keep_core::{Account, AuthUser};
///
/// let mut account = Account::new(7, "ada", "$argon2id$v=19$…");
/// let before = account.security_stamp().into_owned();
/// account.set_password_hash("$argon2id$v=19$another…");
/// assert_ne!(account.security_stamp(), before); // every earlier login ends
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    id: UserId,
    login_name: String,
    password_hash: String,
    active: bool,
    security_stamp: Vec<u8>,
}

impl Account {
    /// Creates an active account.
    ///
    /// `password_hash` is a password hash in its text form (PHC string format), never a password. A
    /// copy of it becomes the first [security stamp](AuthUser::security_stamp).
    pub fn new(
        id: impl Into<UserId>,
        login_name: impl Into<String>,
        password_hash: impl Into<String>,
    ) -> Self {
        let password_hash = password_hash.into();
        let security_stamp = password_hash.clone().into_bytes();
        Self {
            id: id.into(),
            login_name: login_name.into(),
            password_hash,
            active: true,
            security_stamp,
        }
    }

    /// Returns the same account, set to active or inactive.
    #[must_use]
    pub fn with_active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }

    /// Returns the same account with the security stamp that a store has read.
    #[must_use]
    pub fn with_security_stamp(mut self, security_stamp: impl Into<Vec<u8>>) -> Self {
        self.security_stamp = security_stamp.into();
        self
    }

    /// Returns the id.
    pub fn id(&self) -> &UserId {
        &self.id
    }

    /// Returns the name that the user types into the sign-in form.
    pub fn login_name(&self) -> &str {
        &self.login_name
    }

    /// Returns the password hash in its text form.
    pub fn password_hash(&self) -> &str {
        &self.password_hash
    }

    /// Sets the login name.
    pub fn set_login_name(&mut self, login_name: impl Into<String>) {
        self.login_name = login_name.into();
    }

    /// Sets whether the account is active.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    /// Sets the hash of a new password, and a new security stamp: every earlier login ends.
    pub fn set_password_hash(&mut self, password_hash: impl Into<String>) {
        self.password_hash = password_hash.into();
        self.security_stamp = self.password_hash.clone().into_bytes();
    }

    /// Replaces the hash by another hash of the *same* password, made with other parameters. The
    /// security stamp stays the same, so no login ends.
    pub fn rehash(&mut self, password_hash: impl Into<String>) {
        self.password_hash = password_hash.into();
    }

    /// Sets a new security stamp, which ends every earlier login. Pass random bytes.
    pub fn set_security_stamp(&mut self, security_stamp: impl Into<Vec<u8>>) {
        self.security_stamp = security_stamp.into();
    }
}

impl AuthUser for Account {
    fn id(&self) -> UserId {
        self.id.clone()
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.security_stamp)
    }
}

impl LoginName for Account {
    fn login_name(&self) -> &str {
        &self.login_name
    }
}

impl PasswordUser for Account {
    fn password_hash(&self) -> &str {
        &self.password_hash
    }

    fn with_password_hash(&self, hash: String) -> Self {
        let mut changed = self.clone();
        changed.set_password_hash(hash);
        changed
    }

    fn with_rehash(&self, hash: String) -> Self {
        let mut changed = self.clone();
        changed.rehash(hash);
        changed
    }
}

/// Shows neither the password hash nor the security stamp.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("login_name", &self.login_name)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_makes_a_new_stamp_and_a_rehash_does_not() {
        let mut account = Account::new("1", "ada", "first");
        account.rehash("first, stronger");
        assert_eq!(&*account.security_stamp(), b"first");
        assert_eq!(account.password_hash(), "first, stronger");
        account.set_password_hash("second");
        assert_eq!(&*account.security_stamp(), b"second");
        account.set_security_stamp(*b"by hand");
        assert_eq!(&*account.security_stamp(), b"by hand");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Account::new("1", "ada", "$argon2id$secret"));
        assert!(shown.contains("ada") && !shown.contains("secret"), "{shown}");
    }
}
