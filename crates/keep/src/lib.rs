//! Who is logged in, for every server built on [`tower::Service`]: one layer.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod cookie;
mod event;
#[cfg(feature = "axum")]
mod extract;
mod fault;
mod guard;
mod keys;
mod layer;
mod loader;
mod login;
mod notice;
mod page;
#[cfg(feature = "password")]
mod password;
mod random;
mod rules;
mod target;

pub use client::{ClientAddr, ClientMatch, SessionProtection};
pub use cookie::{CookieError, CookieSettings, SameSite};
pub use event::Event;
#[cfg(feature = "axum")]
pub use extract::{CurrentUser, FreshUser, Refused};
pub use fault::{BuildError, Fault, FaultKind, LogInError};
pub use guard::{Guard, GuardBody, GuardFuture, GuardService, Refusal, Rejection};
pub use keys::Keys;
pub use layer::{LoginFuture, LoginLayer, LoginLayerBuilder, LoginService};
pub use loader::{ApiKey, Basic, Bearer, LoaderRequest, RequestLoader};
pub use login::{LogIn, Login};
pub use notice::{Message, Notice, NoticeKind};
#[cfg(feature = "password")]
pub use password::{PasswordError, Passwords};
pub use target::{LocalTarget, NotLocal};
pub use tower_keep_core::{
    Account, AuthUser, Clock, LoginName, StoreError, StoreErrorKind, SystemClock, UserDirectory,
    UserId, UserLoader, UserStore, async_trait, user_loader,
};
