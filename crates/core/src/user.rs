//! What a user type must tell.

use std::borrow::Cow;

use crate::UserId;

/// A user who can be logged in.
///
/// Implement it for the application's own user type; [`Account`](crate::Account) is a ready one.
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
///     fn stamp(&self) -> Cow<'_, [u8]> {
///         // A new password makes a new hash, and ends every earlier login.
///         Cow::Borrowed(self.password_hash.as_bytes())
///     }
/// }
/// ```
pub trait AuthUser: Send + Sync + 'static {
    /// The id under which [`UserStore::by_id`](crate::UserStore::by_id) finds this user again.
    ///
    /// It never changes and is never given to another user.
    fn id(&self) -> UserId;

    /// Whether this user may be logged in.
    ///
    /// An inactive user can't log in, and one who becomes inactive is logged out at the next
    /// request.
    fn is_active(&self) -> bool {
        true
    }

    /// Bytes that change when every earlier login of this user should end: the password hash, or a
    /// security stamp of its own.
    ///
    /// A keyed digest of them is bound into each cookie; the bytes themselves never leave the
    /// process. There is no default, because an application without such bytes should say so:
    /// `Cow::Borrowed(b"")`.
    fn stamp(&self) -> Cow<'_, [u8]>;
}

/// A user who has a name to log in with.
///
/// [`UserFinder::by_login`](crate::UserFinder::by_login) looks it up byte for byte: an
/// application whose names ignore case or Unicode form stores and asks for the folded name.
pub trait LoginName: AuthUser {
    /// The name, e-mail address or number that the user types into the sign-in form.
    fn login_name(&self) -> &str;
}
