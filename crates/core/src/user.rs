//! The traits that a user type implements.

use std::borrow::Cow;

use crate::user_id::UserId;

/// A user who can be logged in.
///
/// Implement it for the application's own user type, or use the ready-made
/// [`Account`](crate::Account).
///
/// ```
/// use std::borrow::Cow;
/// use tower_keep_core::{AuthUser, UserId};
///
/// struct User {
///     id: i64,
///     password_hash: String,
///     banned: bool,
/// }
///
/// impl AuthUser for User {
///     fn id(&self) -> UserId {
///         UserId::from(self.id)
///     }
///     fn is_active(&self) -> bool {
///         !self.banned
///     }
///     fn security_stamp(&self) -> Cow<'_, [u8]> {
///         // A new password has a new hash, which ends every earlier login.
///         Cow::Borrowed(self.password_hash.as_bytes())
///     }
/// }
/// ```
pub trait AuthUser: Send + Sync + 'static {
    /// Returns the id with which [`UserStore::by_id`](crate::UserStore::by_id) finds this user
    /// again.
    ///
    /// The id never changes and is never given to another user.
    fn id(&self) -> UserId;

    /// Returns whether this user may be logged in.
    ///
    /// An inactive user can't log in. A user who becomes inactive is logged out at the next
    /// request.
    fn is_active(&self) -> bool {
        true
    }

    /// Returns bytes that change when every earlier login of this user should end: the password
    /// hash, or a separate security stamp.
    ///
    /// Each cookie of a login contains a keyed digest of these bytes. The bytes themselves never
    /// leave the process. There is no default implementation, because an application without such
    /// bytes should say so explicitly, with `Cow::Borrowed(b"")`.
    fn security_stamp(&self) -> Cow<'_, [u8]>;
}

/// A user who has a login name.
///
/// [`UserLookup::by_login_name`](crate::UserLookup::by_login_name) compares login names byte for
/// byte. If the login names of an application ignore case or Unicode form, the application stores
/// the folded name, such as the name in lower case, and looks up the folded name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which login name it has",
    note = "implement `LoginName` for it, from the root of `tower-keep` or `tower-keep-core`"
)]
pub trait LoginName: AuthUser {
    /// Returns the name, email address or number that the user types into the sign-in form.
    fn login_name(&self) -> &str;
}

/// A user who has roles, such as administrator or editor.
///
/// Implement it so that a guard can require a role:
/// [`require_any_role`](https://docs.rs/tower-keep/latest/tower_keep/struct.LoginLayer.html#method.require_any_role).
/// What a role allows, and roles for a single object such as a document, are left to the
/// application.
pub trait UserRoles: AuthUser {
    /// The type of a role: an enum, or a `String`.
    type Role: Send + Sync + 'static;

    /// Checks whether the user has this role.
    fn has_role(&self, role: &Self::Role) -> bool;
}
