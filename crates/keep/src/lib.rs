//! A login layer for every server built on `tower::Service`: it knows which user is logged in.
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Router, routing::{get, post}};
//! use tower_keep::target::LocalTarget;
//! use tower_keep::{Account, CurrentUser, Keys, LoginError, LoginLayer};
//! use tower_keep_memory::MemoryStore;
//!
//! type AuthSession = tower_keep::AuthSession<Account>;
//!
//! async fn sign_in(auth: AuthSession) -> Result<LocalTarget, LoginError> {
//!     let user = Account::new(1, "ada", "…"); // check the password first
//!     auth.log_in(user).with_remember(true).await?;
//!     Ok(auth.next_or_home())
//! }
//!
//! # fn site(store: MemoryStore<Account>) -> Result<(), Box<dyn std::error::Error>> {
//! let auth_layer =
//!     LoginLayer::builder(store, Keys::generate()?).with_login_page("/login")?.build()?;
//! let name = async |user: CurrentUser<Account>| user.login_name().to_owned();
//! let app: Router = Router::new()
//!     .route("/account", get(name))
//!     .route_layer(auth_layer.require_login())
//!     .route("/login", post(sign_in));
//! let service = auth_layer.layer(app);
//! // use axum::{ServiceExt, extract::Request};
//! // let service =
//! //     ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
//! // axum::serve(listener, service).await?;
//! # let _ = service; Ok(()) }
//! ```
//!
//! # How it works
//!
//! The [layer](LoginLayer) puts a handle, [`AuthSession`], into the extensions of each request. The
//! first [guard](guard::Guard), extractor or handler that asks the handle for the user starts the
//! lookup. The handle finds the session cookie, verifies it, and loads the user from the
//! [store](store::UserStore). If the session cookie gives no user, the handle tries the remember
//! cookie, and then the [request loaders](loader::RequestLoader). A handler logs users in and out,
//! and confirms logins, through the same handle. The layer writes the cookies into the response. If
//! a route never asks for the user, there is no lookup.
//!
//! | to | use |
//! | --- | --- |
//! | define the type of your users | [`AuthUser`], or the ready-made [`Account`] |
//! | load users | [`UserStore`](store::UserStore); [`user_loader`] makes one from a closure |
//! | create a user who does not exist yet | [`UserDirectoryExt::insert_if_absent`](store::UserDirectoryExt::insert_if_absent) |
//! | change a stored user | [`UserDirectory::modify`](store::UserDirectory::modify) |
//! | log in with a password, and limit guessing | [`PasswordSignIn`](https://docs.rs/tower-keep/latest/tower_keep/sign_in/struct.PasswordSignIn.html) |
//! | limit codes, mails and the like | [`LoginLayer::limiter`], [`throttle`] |
//! | check and change passwords | [`Passwords`](https://docs.rs/tower-keep/latest/tower_keep/password/struct.Passwords.html), [`PasswordUser`](password::PasswordUser), [`PasswordStore`](password::PasswordStore); in a table of your own: [`own_passwords`](password::own_passwords) |
//! | store sessions | [`SessionStore`](store::SessionStore); for sessions and users: [`LoginStore`](store::LoginStore); [`SplitStore`](store::SplitStore) joins two stores |
//! | store counters of your own | [`CounterStore`](store::CounterStore) |
//! | configure the layer | [`LoginLayerBuilder`], [`Keys`], [`CookieSettings`](cookie::CookieSettings) |
//! | get the user who is logged in | [`AuthSession::user`]; with axum also [`CurrentUser`](https://docs.rs/tower-keep/latest/tower_keep/struct.CurrentUser.html) |
//! | reject requests | [`LoginLayer::require_login`], [`require_fresh`](LoginLayer::require_fresh), [`require_user`](LoginLayer::require_user), [`require_any_role`](LoginLayer::require_any_role); inside a handler: [`Guard::check`](guard::Guard::check), [`AuthSession::reject`] |
//! | respond to rejected requests | the table of [`Guard`](guard::Guard); [`ClientKind`](client::ClientKind) |
//! | log in and out | [`AuthSession::log_in`], [`AuthSession::log_out`], [`AuthSession::confirm`] |
//! | return to the requested page after a login | [`AuthSession::next`], a [`LocalTarget`](target::LocalTarget) |
//! | authenticate programs | with a session: [`as_bearer`](session::LoginBuilder::as_bearer); with keys of your own: [`Bearer`](loader::Bearer), [`Basic`](loader::Basic), [`ApiKey`](loader::ApiKey) |
//! | ask in a WebSocket or an event stream whether the login is still valid | [`AuthSession::recheck`] |
//! | end every copy of the cookies on logout | [`with_sessions`](LoginLayerBuilder::with_sessions), [`LoginLayer::upkeep`] |
//! | list and end a user's sessions | [`AuthSession::sessions`], [`AuthSession::end_session`], [`LoginLayer::end_all_sessions_of`] |
//! | observe logins and other events | [`Event`](event::Event) |
//!
//! Without a framework, wrap any `Service<Request<B>>` in the layer, and get the handle from the
//! request's extensions. Insert a [`ClientAddr`](client::ClientAddr) where the connection is
//! accepted. [`examples/hyper`](https://github.com/tower-keep/tower-keep/blob/main/examples/hyper/src/main.rs)
//! is a whole site on plain hyper.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use http_body_util::combinators::UnsyncBoxBody;
//! use tower::service_fn;
//! use tower_keep::{Account, AuthSession, LoginLayer};
//!
//! type Page = Response<UnsyncBoxBody<bytes::Bytes, Infallible>>;
//!
//! async fn greet<B>(request: Request<B>) -> Result<Page, Infallible> {
//!     let auth = request.extensions().get::<AuthSession<Account>>().expect("inside the layer");
//!     Ok(match auth.user().await {
//!         Ok(Some(user)) => Response::new(user.login_name().to_owned().boxed_unsync()),
//!         Ok(None) => Response::new("stranger".to_owned().boxed_unsync()),
//!         // The layer gives it the form that the client reads.
//!         Err(error) => error.response().map(BodyExt::boxed_unsync),
//!     })
//! }
//!
//! # fn site(auth_layer: &LoginLayer<Account>) {
//! let site = auth_layer.layer(service_fn(greet::<hyper_body::Incoming>));
//! # let _ = site; }
//! # mod hyper_body { pub(crate) type Incoming = String; }
//! ```
//!
//! # gRPC
//!
//! With the feature `tonic`, put the layer around tonic's server, a [guard](guard::Guard) around a
//! service, and a stricter guard into a method. (`MapRequestLayer` needs tower's feature `util`.)
//!
//! ```ignore
//! use tonic::transport::server::{Server, TcpConnectInfo};
//! use tower::util::MapRequestLayer;
//! use tower_keep::client::ClientAddr;
//!
//! let documents = Documents { fresh: auth_layer.require_fresh_within(ten_minutes) };
//! let guard = auth_layer.require_login().with_exempt_grpc_methods(["/documents.Documents/LogIn"]);
//! Server::builder()
//!     .layer(MapRequestLayer::new(|mut request: http::Request<tonic::body::Body>| {
//!         let info = request.extensions().get::<TcpConnectInfo>();
//!         if let Some(address) = info.and_then(TcpConnectInfo::remote_addr) {
//!             request.extensions_mut().insert(ClientAddr(address.ip()));
//!         }
//!         request
//!     }))
//!     .layer(auth_layer)
//!     .add_service(guard.layer(DocumentsServer::new(documents)))
//!     .serve(address)
//!     .await?;
//!
//! // In the method `LogIn`, after the password was checked. The client sends the token as the
//! // metadata `authorization`, with `Bearer ` in front:
//! let auth = AuthSession::<Account>::from_tonic(&request)?;
//! let token = auth.log_in(user).as_bearer().await?; // needs `with_bearer_sessions(true)`
//!
//! // In a method that needs a fresh login:
//! self.fresh.check_tonic(&request).await?;
//! let user = AuthSession::<Account>::from_tonic(&request)?.user().await?;
//! ```
//!
//! With `tonic_web::GrpcWebLayer`, before or after the login layer, clients of gRPC-Web get the same
//! statuses.
//!
//! # What it protects against, and what it does not
//!
//! - Cookies are signed. Each purpose, [area](LoginLayerBuilder::with_area) and cookie name has its
//!   own key; an area is a name for the logins of one layer, such as those of `/admin`. No byte of
//!   a cookie is interpreted before its signature is verified. The expiry time is part of the
//!   signed value.
//! - A login always begins a new session, so an attacker can't log a user in to a session that the
//!   attacker knows (session fixation).
//! - A new password, a deactivation or a deletion of the user ends the user's sessions at the next
//!   request.
//! - [Session protection](client::SessionProtection): if a client with another address or user
//!   agent uses a session, the login is no longer *fresh*, or the session ends. A login is fresh if
//!   the user has logged in or confirmed the login in the current session. A login that a remember
//!   cookie has restored is not fresh.
//! - `next`, the page to return to after a login, can only lead to this site.
//! - Browsers open a WebSocket for any page. The cookies of an upgrade log a user in only if the page
//!   is of this origin or of a [listed](LoginLayerBuilder::with_allowed_origins) one.
//! - If a request has a [bearer token](LoginLayerBuilder::with_bearer_sessions) of this crate, the
//!   token decides alone, and no cookie is read or set.
//! - If a store fails, the response is 503, and an error line in the log names the store and the
//!   cause. A failure is never treated as "no user is logged in", and never as a login.
//! - A [`PasswordStore`](password::PasswordStore) changes a password only if the user still has the
//!   [security stamp](AuthUser::security_stamp) that the request saw. A user gets a new stamp with
//!   each new password. So a password change never undoes another change that was made in the
//!   meantime.
//! - No cache stores a response that was made for a user. The layer sets `Cache-Control: no-store`
//!   and `Vary: Cookie`, and removes other headers that tell caches to keep the response, such as
//!   `Expires` and `CDN-Cache-Control`. The layer does the same if a stream or a task still holds
//!   the request's [`AuthSession`] when the head of the response is written, because the stream or
//!   the task may ask later which user is logged in.
//!
//! Guards and extractors respond to each [kind of client](client::ClientKind) in a form that it
//! reads: a browser's page is redirected to the login page, htmx gets the same as a header, gRPC a
//! status, and every other client a 401 with a problem (RFC 9457). Errors of this crate that a
//! handler returns get the same forms.
//!
//! A guard sets a flash message, or keeps `next` in a cookie, only if the response is shown as a page
//! in a browser's tab. If a guard rejects a request for an image or a poll, it changes neither the
//! message nor `next`, unless
//! [`with_pages_for_every_client`](LoginLayerBuilder::with_pages_for_every_client) is set.
//!
//! **Without server-side sessions**, a login exists only in its cookies. A client that holds a copy
//! of a cookie is logged in until the cookie expires, until the user's security stamp changes, or
//! until session protection detects the copy. Logging out ends the login in this browser only. A
//! user's logins can't be listed, and can't be ended from another device. A copied remember cookie
//! works alongside the original, and the copy is not detected. Each request that asks for the user
//! loads the user again, so a changed password invalidates all copies immediately.
//!
//! **With [server-side sessions](LoginLayerBuilder::with_sessions)**, both cookies of a login refer
//! to a session record. When the session ends, every copy of the cookies is invalid. The store
//! holds only a hash of the session's id, so nobody can log in with a stored record.
//!
//! When a remember cookie restores a session, the layer replaces both cookies. The new cookies are
//! the session's next *generation*. If the layer has already replaced the session's cookies within
//! the last minute, it does not begin another generation. The cookies of the previous generation
//! stay valid until a request has sent cookies of the new generation, and for a grace period of one
//! minute after that request. So parallel requests and lost responses do no harm. If a request
//! sends a replaced remember cookie after the grace period, this is a *replay*, and the cookie may
//! be a copy: the session ends, but the user's other sessions don't. Known limits:
//!
//! - If a thief restores the session with a copied remember cookie before the user's browser does,
//!   both can use the session for some time. The replay is found when one of them has restored the
//!   session again, and the other sends the replaced cookie after the grace period.
//! - A browser profile that was restored from a backup looks like a replay.
//! - The grace period is long enough if each request reaches the server within half of it, and each
//!   response reaches the browser within the other half. A slower request may look like a replay.
//!   A slower response may replace newer cookies in the browser, and then the browser's next
//!   request may look like a replay.
//!
//! One write ends all sessions of a user, however many there are. If the response of a login is not
//! sent, because its future was dropped or failed, the new session ends one second later. A browser
//! may also never get a response that was sent. So if a
//! [session limit](LoginLayerBuilder::with_session_limit) is set to refuse logins, a login at the
//! limit first ends sessions that no request has used. The login is refused only if this does not
//! make enough room.
//!
//! This crate does not protect against cross-site request forgery beyond `SameSite=Lax`: put
//! tower-http's `csrf` layer around the routes. If the client's address is unknown, session
//! protection compares only the user agent, and the log has one warning.
//!
//! [`PasswordSignIn`][sign_in] limits how often passwords are guessed; [`Passwords`][passwords] alone
//! does not. Guesses from many addresses against many names stay below every limit.
//!
//! [sign_in]: https://docs.rs/tower-keep/latest/tower_keep/sign_in/index.html
//! [passwords]: https://docs.rs/tower-keep/latest/tower_keep/password/struct.Passwords.html
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `axum` | off | extractors for axum 0.8, the client's address from its `ConnectInfo`, and ready-made routes to log in and out (with `password`) |
//! | `tonic` | off | guards around services of tonic 0.14, `AuthSession` from their requests, and errors as `Status` |
//! | `password` | off | passwords with Argon2id, off the executor's threads and with bounded concurrency, and a sign-in that withstands guessing; needs tokio |
//! | `common-passwords` | off | rejects new passwords that are among the 99,838 commonest; adds some megabytes to the program |
//! | `metrics` | off | a listener that counts events with the crate `metrics` |
//!
//! Features only add to the API. No feature changes a default, except that `common-passwords` makes
//! [`PasswordRules`](https://docs.rs/tower-keep/latest/tower_keep/sign_in/struct.PasswordRules.html)
//! stricter.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bearer_token;
mod cache_headers;
pub mod client;
mod client_kind;
pub mod cookie;
mod device;
pub mod error;
mod error_body;
pub mod event;
#[cfg(feature = "axum")]
pub mod extract;
pub mod flash;
pub mod guard;
mod keyring;
mod keys;
pub mod layer;
pub mod loader;
mod login;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(test)]
mod model;
mod origin;
mod page;
#[cfg(feature = "password")]
mod passwords;
pub mod problem;
mod random;
mod response;
mod session_details;
mod session_info;
mod sessions;
#[cfg(feature = "password")]
pub mod sign_in;
pub mod target;
pub mod throttle;
#[cfg(feature = "tonic")]
mod tonic_services;
mod upkeep;
mod wait;

/// Sessions: the builders that begin and confirm them, and the types that describe them and their
/// ends.
pub mod session {
    pub use tower_keep_core::{
        EndReason, Ended, RememberPeriod, SessionDetails, SessionRecord, UnknownReason, WhenFull,
    };

    pub use crate::bearer_token::BearerToken;
    pub use crate::login::change::ConfirmBuilder;
    pub use crate::login::log_in::{BearerBuilder, LoginBuilder};
    pub use crate::session_info::SessionInfo;
}

/// The traits of stores, from `tower-keep-core`, and the types that applications use with them.
pub mod store {
    pub use tower_keep_core::{
        ChangeUser, CounterStore, LoginStore, Modified, SessionStore, SplitStore, StoreError,
        StoreErrorKind, UserDirectory, UserDirectoryExt, UserLoader, UserLookup, UserStore,
        async_trait,
    };
}

/// Hashing, checking and storing passwords, so that no change is lost.
pub mod password {
    pub use tower_keep_core::{
        OwnPasswords, PasswordChange, PasswordStore, PasswordUser, PasswordWrite, own_passwords,
    };

    #[cfg(feature = "password")]
    pub use crate::passwords::{PasswordError, Passwords};
}

/// The clock of a layer. Tests can replace it with a clock that they set themselves.
pub mod clock {
    pub use tower_keep_core::{Clock, SystemClock, Timestamp};
}

#[doc(inline)]
pub use error::{AuthError, LoginError};
#[cfg(feature = "axum")]
#[doc(inline)]
pub use extract::{CurrentUser, FreshUser};
pub use keys::Keys;
#[doc(inline)]
pub use layer::{LoginLayer, LoginLayerBuilder};
pub use login::handle::AuthSession;
#[cfg(feature = "password")]
#[doc(inline)]
pub use passwords::Passwords;
#[cfg(feature = "password")]
#[doc(inline)]
pub use sign_in::PasswordSignIn;
pub use tower_keep_core::{Account, AuthUser, LoginName, UserId, UserRoles, user_loader};
