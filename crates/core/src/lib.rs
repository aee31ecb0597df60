//! The contracts between [tower-keep] and the stores that hold its users.
//!
//! An adapter needs only this crate, which depends on neither tower nor http nor an async runtime.
//! [`UserStore`] is all that the layer needs to keep users logged in. An adapter implements more
//! traits to support more features:
//!
//! - [`UserLookup`]: sign-in forms find users by login name.
//! - [`UserDirectory`]: sign-up forms and tools insert, change and delete users.
//! - [`SessionStore`] and [`LoginStore`]: a user's logins can be listed, and ended from any device.
//! - [`CounterStore`]: guessing is limited, and tokens can be used once.
//!
//! ```
//! use std::sync::Arc;
//! use tower_keep_core::{Account, StoreResult, UserId, UserStore, async_trait};
//!
//! /// A store of one user.
//! struct Single(Arc<Account>);
//!
//! #[async_trait]
//! impl UserStore for Single {
//!     type User = Account;
//!
//!     async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<Account>>> {
//!         Ok((self.0.id() == id).then(|| self.0.clone()))
//!     }
//! }
//! ```
//!
//! | topic | see |
//! | --- | --- |
//! | the requirements of a user type | [`AuthUser`], [`LoginName`], [`UserRoles`] |
//! | a user id that every database can store | [`UserId`] |
//! | a ready-made user type | [`Account`] |
//! | the traits of a store of users | [`UserStore`], [`UserLookup`], [`UserDirectory`] |
//! | inserting a user who may already exist | [`UserDirectoryExt::insert_if_absent`] |
//! | changing a stored user | [`UserDirectory::modify`]; in the code of a store, [`Modified::next`] |
//! | changing a password | [`PasswordUser`], [`PasswordStore`]; in an application's own table, [`own_passwords`] |
//! | the traits of a store of sessions | [`SessionStore`]; together with users, [`LoginStore`] |
//! | the fields of a session record | [`SessionRecord`] |
//! | how a call changes a session record | [`Rotation::apply_to`], [`Touch::apply_to`], [`SeenMark::apply_to`], [`End::apply_to`] |
//! | sessions that end to make room for a login | [`SessionLimit::room`], [`SessionRecord::is_unused`], [`MAX_PER_CALL`] |
//! | planning a login, in a store that can read all records, such as a map behind a lock | [`NewLogin::plan`] |
//! | sorting the sessions of a list | [`most_recently_used`] |
//! | ending all of a user's sessions with one write | [`Epoch`] |
//! | counting uses, under a rule that limits them | [`CounterStore`], [`CounterRule`]; in the code of a store, [`CounterPlan`] |
//! | users in one store, sessions in another | [`SplitStore`] |
//! | a closure as a store | [`user_loader`] |
//! | errors of a store | [`StoreError`], [`StoreErrorKind`] |
//! | the current time | [`Clock`] |
//!
//! [tower-keep]: https://crates.io/crates/tower-keep

mod account;
mod changes;
mod clock;
mod counter;
mod counter_store;
mod end_reason;
mod epoch;
mod error;
mod forward;
mod login_plan;
mod login_store;
mod modify;
mod new_login;
mod own_passwords;
mod password;
mod session;
mod session_limit;
mod session_store;
mod split_store;
mod timestamp;
mod user;
mod user_id;
mod user_loader;
mod user_store;

pub use account::Account;
/// The attribute macro that the store traits use. It is re-exported so that an adapter uses the
/// same version.
pub use async_trait::async_trait;
pub use changes::{End, Rotated, Rotation, SeenMark, Touch};
pub use clock::{Clock, SystemClock};
pub use counter::{
    CounterKey, CounterPlan, CounterRule, CounterState, CounterUse, CounterWrite, RefusedUse,
    TakenUse, Taking,
};
pub use counter_store::CounterStore;
pub use end_reason::{EndReason, NotAnEndReason, UnknownReason};
pub use epoch::Epoch;
pub use error::{StoreError, StoreErrorKind, StoreResult};
pub use login_plan::LoginPlan;
pub use login_store::{LoginStore, StoredLogin};
pub use modify::{ChangeUser, Modified};
pub use new_login::{Creation, NewLogin};
pub use own_passwords::{OwnPasswords, PasswordWrite, own_passwords};
pub use password::{PasswordChange, PasswordStore, PasswordUser};
pub use session::{
    Ended, RememberPeriod, SessionDetails, SessionKey, SessionRecord, most_recently_used,
};
pub use session_limit::{MAX_PER_CALL, Room, SessionLimit, WhenFull};
pub use session_store::{CLOCK_SKEW, SessionStore};
pub use split_store::SplitStore;
pub use timestamp::Timestamp;
pub use user::{AuthUser, LoginName, UserRoles};
pub use user_id::UserId;
pub use user_loader::{UserLoader, user_loader};
pub use user_store::{UserDirectory, UserDirectoryExt, UserLookup, UserStore};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
