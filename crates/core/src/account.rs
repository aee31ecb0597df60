//! A ready user type.

use std::borrow::Cow;
use std::fmt;

use crate::{AuthUser, LoginName, PasswordUser, UserId};

/// A user with an id, a login name, a password hash and nothing else.
///
/// For applications that have no user type yet. Every adapter can store it.
///
/// ```
/// use tower_keep_core::{Account, AuthUser};
///
/// let mut account = Account::new(7, "ada", "$argon2id$v=19$…");
/// let before = account.stamp().into_owned();
/// account.set_password_hash("$argon2id$v=19$another…");
/// assert_ne!(account.stamp(), before); // every earlier login ends
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    id: UserId,
    login: String,
    password_hash: String,
    active: bool,
    stamp: Vec<u8>,
}

impl Account {
    /// An active account.
    ///
    /// `password_hash` is a password hash in its text form (PHC string format), never a password.
    /// A copy of it is the first [stamp](AuthUser::stamp).
    pub fn new(
        id: impl Into<UserId>,
        login: impl Into<String>,
        password_hash: impl Into<String>,
    ) -> Self {
        let password_hash = password_hash.into();
        let stamp = password_hash.clone().into_bytes();
        Self { id: id.into(), login: login.into(), password_hash, active: true, stamp }
    }

    /// The same account, active or not.
    #[must_use]
    pub fn with_active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }

    /// The same account with the stamp that a store read back.
    #[must_use]
    pub fn with_stamp(mut self, stamp: impl Into<Vec<u8>>) -> Self {
        self.stamp = stamp.into();
        self
    }

    /// The id.
    pub fn id(&self) -> &UserId {
        &self.id
    }

    /// The name that the user types into the sign-in form.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// The password hash, in its text form.
    pub fn password_hash(&self) -> &str {
        &self.password_hash
    }

    /// Renames the account.
    pub fn set_login(&mut self, login: impl Into<String>) {
        self.login = login.into();
    }

    /// Switches the account on or off.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    /// Sets the hash of a new password, and with it a new stamp: every earlier login ends.
    pub fn set_password_hash(&mut self, password_hash: impl Into<String>) {
        self.password_hash = password_hash.into();
        self.stamp = self.password_hash.clone().into_bytes();
    }

    /// Replaces the hash of the *same* password, made with other parameters: the stamp stays, and
    /// nobody is logged out.
    pub fn rehash(&mut self, password_hash: impl Into<String>) {
        self.password_hash = password_hash.into();
    }

    /// Sets a new stamp, which ends every earlier login. Give it random bytes.
    pub fn set_stamp(&mut self, stamp: impl Into<Vec<u8>>) {
        self.stamp = stamp.into();
    }
}

impl AuthUser for Account {
    fn id(&self) -> UserId {
        self.id.clone()
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.stamp)
    }
}

impl LoginName for Account {
    fn login_name(&self) -> &str {
        &self.login
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

/// Shows neither the password hash nor the stamp.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("login", &self.login)
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
        assert_eq!(&*account.stamp(), b"first");
        assert_eq!(account.password_hash(), "first, stronger");
        account.set_password_hash("second");
        assert_eq!(&*account.stamp(), b"second");
        account.set_stamp(*b"by hand");
        assert_eq!(&*account.stamp(), b"by hand");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Account::new("1", "ada", "$argon2id$secret"));
        assert!(shown.contains("ada") && !shown.contains("secret"), "{shown}");
    }
}
