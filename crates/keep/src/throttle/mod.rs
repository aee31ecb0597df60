//! Limits on how often something may be done, counted over all nodes.
//!
//! A [`Limiter`] counts in a store. An application uses it for whatever must not be tried or
//! requested without end: codes, mails, sign-ups.
//!
//! ```
//! use tower_keep::throttle::{CounterRule, Limit, LimitError, Limiter};
//!
//! /// Three mails in an hour.
//! const RESET_MAILS: Limit = Limit::new("reset mails", CounterRule::window(3, 3_600));
//!
//! async fn send_reset_mail(limiter: &Limiter, address: &str) -> Result<(), LimitError> {
//!     limiter.take(&[RESET_MAILS.of(address)]).await?; // the response is 429 or 503
//!     // Send the mail.
//!     Ok(())
//! }
//! ```
#![cfg_attr(feature = "password", doc = "")]
#![cfg_attr(
    feature = "password",
    doc = "[`PasswordSignIn`](crate::sign_in::PasswordSignIn) limits how often passwords are guessed."
)]
//!
//! # What is stored
//!
//! The key of a counter is a digest, made with the layer's current key, of the limit's name and of
//! what is counted. So a copy of the store shows no name and no address. A new key begins new
//! counters, so replacing a key gives everyone some more attempts.
//!
//! A use that is refused writes nothing, and is remembered in this process for a second, so a flood
//! does not reach the store. In each second, at most [a number](Limiter::with_max_new_counters) of
//! counters can begin; after that, every further call is [`Busy`](LimitError::Busy) until the next
//! second. Counters that have expired are removed while the limiter is used.
//!
//! # Limits by address
//!
//! [`AuthSession::limit_by_address`](crate::AuthSession::limit_by_address) counts by the client's
//! address: one address of IPv4, or a /64 network of IPv6. If the address is unknown, is that of a
//! trusted proxy, or is a private one and no [trusted
//! proxy](crate::LoginLayerBuilder::with_trusted_proxies) is set, all clients may seem to have the
//! same address. Then nothing is counted by it, and the log has one warning.
//!
//! # Known devices
//!
//! A browser in which a user has completed a login with a password, or has confirmed one, gets a
//! *device cookie*. It logs nobody in. It is signed, is valid for a year, and ends with the user's
//! security stamp, so with a new password. A logout keeps it. Guesses from a known device of the
//! user are counted separately from all others. So a stranger who guesses a password elsewhere does
//! not lock the user out here.
//!
//! A browser has one such cookie, of the user who has logged in last. A client that gets a bearer
//! token has none, so it is never a known device.
//!
//! A login without a password can make a device known, too:
//! [`with_known_device`](crate::session::LoginBuilder::with_known_device).

mod error;
pub(crate) mod limit;
pub(crate) mod limiter;
mod new_counters;
mod recent;

pub use tower_keep_core::CounterRule;

pub use self::error::{LimitError, Throttled};
pub use self::limit::{Limit, LimitUse};
pub use self::limiter::{Limiter, TakenUses};
