//! Who is logged in, for every server built on `tower::Service`: one layer.
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Router, response::Redirect, routing::{get, post}};
//! use tower_keep::{Account, CurrentUser, Keys, LogInError, LoginLayer};
//! use tower_keep_memory::MemoryStore;
//!
//! type Login = tower_keep::Login<Account>;
//!
//! async fn sign_in(login: Login) -> Result<Redirect, LogInError> {
//!     let user = Account::new(1, "ada", "…"); // check the password first
//!     login.log_in(user).remember(true).await?;
//!     Ok(Redirect::to(login.next_or_home().as_str()))
//! }
//!
//! # fn site(store: MemoryStore<Account>) -> Result<(), Box<dyn std::error::Error>> {
//! let auth = LoginLayer::builder(store, Keys::generate()?).with_login_page("/login").build()?;
//! let app: Router = Router::new()
//!     .route("/account", get(|user: CurrentUser<Account>| async move { user.login().to_owned() }))
//!     .route_layer(auth.require_login())
//!     .route("/login", post(sign_in));
//! let service = auth.layer(app);
//! // use axum::{ServiceExt, extract::Request};
//! // let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
//! // axum::serve(listener, service).await?;
//! # let _ = service; Ok(()) }
//! ```
//!
//! # How it works
//!
//! The [layer](LoginLayer) puts a handle, [`Login`], into each request. Whoever first asks it (a
//! [guard](Guard), an extractor, a handler) makes it find the session cookie, verify it, and load the
//! user from the [store](UserStore); or else the remember cookie; or else ask the [request
//! loaders](RequestLoader). Through the same handle a handler logs in, logs out and confirms, and the
//! layer writes the cookies into the response. A route that never asks pays for nothing.
//!
//! | to | use |
//! | --- | --- |
//! | tell what a user is | [`AuthUser`], or the ready [`Account`] |
//! | find users | [`UserStore`]; [`user_loader`] makes one of a closure |
//! | create a user unless there is one | [`UserDirectoryExt::insert_if_absent`] |
//! | change a stored user | [`UserDirectory::modify`] |
//! | check and change passwords | [`Passwords`](https://docs.rs/tower-keep/latest/tower_keep/struct.Passwords.html), [`PasswordUser`], [`PasswordStore`]; in a table of your own: [`own_passwords`] |
//! | keep sessions | [`SessionStore`], with users [`LoginStore`]; [`Apart`] joins two stores |
//! | settle everything | [`LoginLayerBuilder`], [`Keys`], [`CookieSettings`] |
//! | know who it is | [`Login::user`]; with axum also [`CurrentUser`](https://docs.rs/tower-keep/latest/tower_keep/struct.CurrentUser.html) |
//! | turn people away | [`LoginLayer::require_login`], [`require_fresh`](LoginLayer::require_fresh), [`require_user`](LoginLayer::require_user) |
//! | log in and out | [`Login::log_in`], [`Login::log_out`], [`Login::confirm`] |
//! | come back to where one was | [`Login::next`], a [`LocalTarget`] |
//! | let programs in | [`Bearer`], [`Basic`], [`ApiKey`] |
//! | make logout mean logout | [`with_sessions`](LoginLayerBuilder::with_sessions), [`LoginLayer::upkeep`] |
//! | list and end a user's sessions | [`Login::sessions`], [`Login::end_session`], [`LoginLayer::end_all_sessions_of`] |
//! | see what happens | [`Event`] |
//!
//! Without a framework, wrap any `Service<Request<B>>`, take the handle out of the request's
//! extensions, and insert a [`ClientAddr`] where the connection is accepted; see the example on plain
//! hyper.
//!
//! # What it protects against, and what not
//!
//! Cookies are signed with keys of their own purpose, area and name, and verified before a byte of
//! them has a meaning. A login always begins a new session, so none can be planted. Expiry is
//! inside the signed value. A new password, a deactivation and a deletion end sessions at the next
//! request. A session that turns up at another client loses its freshness or ends. `next` can only
//! lead to this site. A store that fails leads to 503 and an error line with store and cause, and
//! is never taken for "nobody" or "somebody". A [`PasswordStore`] changes a password only if the
//! user still has the stamp that the request saw, so it undoes nothing that others have done
//! meanwhile.
//!
//! What was made for a user is never stored by a cache: the response is `no-store`, varies by
//! `Cookie`, and has no other header that tells caches to keep it. So is a response whose handle is
//! still alive when its head is written, as with a stream that may ask later who is logged in.
//!
//! A guard leaves a notice, or a `next` in a cookie, only for a page: for the navigation of a tab
//! or, without Fetch metadata, for a GET that prefers HTML. An image or a poll that is turned away
//! changes neither, unless
//! [`with_pages_for_every_client`](LoginLayerBuilder::with_pages_for_every_client) is set.
//!
//! **Without session records the cookies are all there is to a login**, so who holds a copy of one holds
//! the login until it expires, until the user's stamp changes, or until session protection notices:
//! logging out ends it in this browser alone, nobody can list or end a user's logins, and a copied
//! remember cookie works beside the original unnoticed. The user is looked up at each request that
//! asks, so a changed password ends every copy at once.
//!
//! **With [session records](LoginLayerBuilder::with_sessions)** both cookies of a login point to a
//! record, whose end is the end of every copy. A store sees a hash of the session's id, so what is
//! stored logs nobody in. The remember cookie is good for one restoration; each begins the
//! session's next *generation*. The one before counts until its successor was seen, and a grace of
//! a minute more, so that parallel requests and lost responses harm nobody. What comes back later
//! is a replay: that session ends, and no other of the user. Known limits: a thief who restores
//! before the user does shares the generation until the two diverge; a browser profile restored
//! from a backup looks like a replay; and a response that takes longer than half the grace on its
//! way may look like one too.
//!
//! All sessions of a user end by one write, however many there are. A login whose response is not
//! sent, because its future was dropped or failed, ends a second later. Where its response may have
//! been lost on the way, the session makes room under a
//! [limit](LoginLayerBuilder::with_session_limit) that refuses logins, until a request has used it.
//!
//! It does not protect against cross-site request forgery beyond `SameSite=Lax`: put tower-http's
//! `csrf` layer around the routes. It does not limit how often a password is tried. Session
//! protection without a known client address compares the user agent alone, and the log has one
//! warning.
//!
//! # Features
//!
//! - `axum`: extractors for axum 0.8, and the client's address from its `ConnectInfo`.
//! - `password`: Argon2id off the executor's threads, with bounded concurrency (needs tokio), and
//!   changing passwords.
//!
//! A feature only adds; none changes a default.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod cookie;
mod device;
mod event;
#[cfg(feature = "axum")]
mod extract;
mod fault;
mod guard;
mod keys;
mod layer;
mod loader;
mod login;
#[cfg(test)]
mod model;
mod navigation;
mod notice;
mod page;
#[cfg(feature = "password")]
mod password;
mod random;
mod rules;
mod sessions;
mod target;
mod upkeep;

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
pub use sessions::SessionInfo;
pub use target::{LocalTarget, NotLocal};
pub use tower_keep_core::{
    Account, Apart, AuthUser, Clock, EndReason, Ended, LoginName, LoginStore, Modified,
    PasswordChange, PasswordStore, PasswordUser, PasswordWrite, SessionRecord, SessionStore,
    StoreError, StoreErrorKind, SystemClock, Timestamp, UserDirectory, UserDirectoryExt,
    UserFinder, UserId, UserLoader, UserStore, WhenFull, async_trait, own_passwords, user_loader,
};
