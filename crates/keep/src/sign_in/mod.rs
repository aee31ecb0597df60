//! A sign-in with a password that withstands guessing. A user can still log in from a browser that
//! they have used before.
//!
//! [`PasswordSignIn`] looks up the user, limits how often passwords are guessed, and checks the
//! password.
//!
//! ```
//! use tower_keep::sign_in::{PasswordCheck, PasswordSignIn};
//! use tower_keep::{Account, AuthSession};
//!
//! /// Returns the message for the form, or `None` if the user is logged in now.
//! async fn sign_in(
//!     sign_in: &PasswordSignIn<Account>,
//!     auth: &AuthSession<Account>,
//!     (login_name, password): (&str, String),
//! ) -> Result<Option<&'static str>, Box<dyn std::error::Error>> {
//!     match sign_in.check(auth, login_name, password).await? {
//!         PasswordCheck::Ok(user) => auth.log_in(user).await?,
//!         PasswordCheck::Wrong => return Ok(Some("Wrong login name or password.")),
//!         PasswordCheck::Throttled(_) => return Ok(Some("Too many attempts. Wait a while.")),
//!     }
//!     Ok(None)
//! }
//! ```
//!
//! # The limits
//!
//! | counted by | default | which attempts |
//! | --- | --- | --- |
//! | the client's address | 100 in an hour | from unknown devices |
//! | the login name, and the user whom it names | 5 at once; then one after a wait of 30 s, which doubles up to an hour; at most 100 in a row | from unknown devices |
//! | a known device of the user | the same as for a name | from this device |
//! | all known devices of the user | 100 in a day | from all of them |
//!
//! A [known device](crate::throttle#known-devices) is a browser in which the user has logged in
//! before. A stranger who guesses the password of a user makes the login name wait, but not the
//! user's own devices (OWASP ASVS 5.0, 6.1.1). 100 attempts in a row are the most that
//! NIST SP 800-63B-4 §3.2.2 allows.
//!
//! An attempt is counted before the password is checked, and given back if the password was right,
//! or if a store has failed. A completed login also resets the count of the name or of the device,
//! but not of the address. A refused attempt extends no wait. [`SignInLimits`] changes the numbers.
//!
//! # What a client can't tell
//!
//! An unknown name gets the same responses as a known one, after the same number of calls of the
//! stores and as long a check. So does a name whose stored password hash can't be one.
//!
//! # What this does not prevent
//!
//! - Guesses from many addresses against many names, one attempt each, stay below every limit:
//!   check new passwords with [`PasswordRules`], and log in with more than a password where it
//!   matters.
//! - A stranger can keep a login name waiting, for every browser that is not a known device of the
//!   user. A client without cookies, such as an app with a bearer token, never is one.

mod check;
mod fold;
mod limits;
#[cfg(feature = "axum")]
mod page;
#[cfg(feature = "axum")]
mod routes;
mod rules;

pub use self::check::{PasswordCheck, PasswordSignIn};
pub use self::limits::SignInLimits;
#[cfg(feature = "axum")]
pub use self::page::SignInPage;
pub use self::rules::{PasswordRejection, PasswordRules};
