//! The contracts between [tower-keep] and the stores that hold its users.
//!
//! An adapter depends on this crate alone: there is no tower, no http and no async runtime in it.
//! Implement [`UserStore`], and the layer can keep your users logged in; implement [`UserFinder`]
//! too, and sign-in forms find them by login name; [`UserDirectory`], and sign-up forms, changes of
//! passwords and tools work on any store; [`SessionStore`] and [`LoginStore`], and logins can be
//! listed and ended from outside their browser.
//!
//! ```
//! use std::sync::Arc;
//! use tower_keep_core::{Account, StoreError, UserId, UserStore, async_trait};
//!
//! /// A store of one user.
//! struct Single(Arc<Account>);
//!
//! #[async_trait]
//! impl UserStore for Single {
//!     type User = Account;
//!
//!     async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Account>>, StoreError> {
//!         Ok((self.0.id() == id).then(|| self.0.clone()))
//!     }
//! }
//! ```
//!
//! | look for | in |
//! | --- | --- |
//! | what a user type must tell | [`AuthUser`], [`LoginName`] |
//! | an id that fits every database | [`UserId`] |
//! | a ready user type | [`Account`] |
//! | what a store of users must do | [`UserStore`], [`UserFinder`], [`UserDirectory`] |
//! | inserting a user unless there is one | [`UserDirectoryExt::insert_if_absent`] |
//! | changing a stored user | [`UserDirectory::modify`], for stores [`Modified::next`] |
//! | changing a password | [`PasswordUser`], [`PasswordStore`]; in a table of the application's: [`own_passwords`] |
//! | what a store of sessions must do | [`SessionStore`]; with users, [`LoginStore`] |
//! | what a session is | [`SessionRecord`] |
//! | what a call makes of it | [`Rotation::after`], [`Touch::after`], [`Seen::after`], [`End::after`] |
//! | which sessions make room for a login | [`SessionLimit::room`], [`SessionRecord::is_unused`], [`MOST_AT_ONCE`] |
//! | how all of a user's sessions end by one write | [`Epoch`] |
//! | users here, sessions there | [`Apart`] |
//! | a closure as a store | [`user_loader`] |
//! | how a store fails | [`StoreError`], [`StoreErrorKind`] |
//! | what time it is | [`Clock`] |
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

mod account;
mod after;
mod apart;
mod clock;
mod epoch;
mod error;
mod password;
mod session;
mod session_store;
mod store;
mod timestamp;
mod user;
mod user_id;
mod user_loader;

pub use account::Account;
pub use after::Room;
pub use apart::Apart;
/// The attribute that the store traits are written with, so that an adapter names one version.
pub use async_trait::async_trait;
pub use clock::{Clock, SystemClock};
pub use epoch::Epoch;
pub use error::{StoreError, StoreErrorKind};
pub use password::{
    OwnPasswords, PasswordChange, PasswordStore, PasswordUser, PasswordWrite, own_passwords,
};
pub use session::{EndReason, Ended, SessionKey, SessionRecord};
pub use session_store::{
    CLOCK_SKEW, Creation, End, LoginStore, MOST_AT_ONCE, NewLogin, Rotated, Rotation, Seen,
    SessionLimit, SessionStore, StoredLogin, Touch, WhenFull,
};
pub use store::{ChangeUser, Modified, UserDirectory, UserDirectoryExt, UserFinder, UserStore};
pub use timestamp::Timestamp;
pub use user::{AuthUser, LoginName};
pub use user_id::UserId;
pub use user_loader::{UserLoader, user_loader};
