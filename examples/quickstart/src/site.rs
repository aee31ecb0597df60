//! The site, with all code for logging in.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::csrf::CsrfLayer;
use tower_keep::error::BuildError;
use tower_keep::layer::LoginService;
use tower_keep::loader::Bearer;
use tower_keep::password::PasswordChange;
use tower_keep::store::UserDirectoryExt;
use tower_keep::throttle::{CounterRule, Limit};
use tower_keep::{Account, AuthError, Keys, LoginLayer, PasswordSignIn};

use crate::pages;
use crate::store::Store;

type AuthSession = tower_keep::AuthSession<Account>;
type CurrentUser = tower_keep::CurrentUser<Account>;

/// How many new accounts one address may ask for: 20 in an hour.
const SIGN_UPS: Limit = Limit::new("sign-ups", CounterRule::window(20, 3_600));

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sign_in: PasswordSignIn<Account>,
}

pub(crate) type AuthLayer = LoginLayer<Account>;

/// Creates the login layer. Sessions are stored together with the users, so they can be listed and
/// ended.
pub(crate) fn auth_layer(
    store: &Arc<dyn Store>,
    api_key: String,
    keys: Keys,
) -> std::result::Result<AuthLayer, BuildError> {
    let users = Arc::clone(store);
    let user_ids_by_key = HashMap::from([(api_key, crate::DEMO_ID)]);
    LoginLayer::builder(Arc::clone(store), keys)
        .with_sessions()
        .with_login_page("/login")?
        .with_confirm_page("/confirm")?
        .with_home_page("/account")?
        .with_request_loader(Bearer::new(move |key: String| {
            // The map uses a keyed hash, so the duration of the lookup reveals nothing about a key.
            let (users, id) = (Arc::clone(&users), user_ids_by_key.get(&key).copied());
            async move { if let Some(id) = id { users.by_id(&id.into()).await } else { Ok(None) } }
        }))
        .build()
}

/// Creates the service of the whole site. The sensitive routes need a fresh login, in which the
/// user entered the password in the current session.
pub(crate) fn site(app: App, auth_layer: &AuthLayer) -> LoginService<Router, Account> {
    let protected = Router::new()
        .route("/account", get(account))
        .route("/devices", get(devices))
        .route("/devices/end", post(end_device))
        .route("/devices/end-others", post(end_other_devices))
        .route_layer(auth_layer.require_login());
    let sensitive = Router::new()
        .route("/password", get(password_page).post(change_password))
        .route_layer(auth_layer.require_fresh());
    let site = Router::new()
        .route("/", get(home))
        .route("/sign-up", get(sign_up_page).post(sign_up))
        .route("/api/me", get(me))
        .merge(app.sign_in.routes()) // /login, /confirm, /logout
        .merge(protected)
        .merge(sensitive)
        .layer(CsrfLayer::new())
        .with_state(app);
    auth_layer.layer(site)
}

#[derive(Deserialize)]
struct SignUpForm {
    login: String,
    password: String,
}

async fn sign_up(
    State(app): State<App>,
    auth: AuthSession,
    Form(form): Form<SignUpForm>,
) -> Result<Response> {
    let again = |error: &str| unprocessable(pages::sign_up(&form.login, Some(error)));
    if !(1..=100).contains(&form.login.chars().count()) {
        return Ok(again("A login name has 1 to 100 characters."));
    }
    if let Some(reason) = app.sign_in.rejection_of(&form.password).await? {
        return Ok(again(&reason.to_string()));
    }
    app.sign_in.limiter().take(&[auth.limit_by_address(&SIGN_UPS)]).await?;
    let hash = app.sign_in.passwords().hash(form.password).await?;
    let account = Account::new(crate::random_id()?, form.login.clone(), hash);
    if !app.store.insert_if_absent(&account).await.map_err(AuthError::from)? {
        return Ok(again("This login name is taken. Choose another one."));
    }
    auth.log_in(account).with_known_device(true).with_method("password").await?;
    Ok(Redirect::to("/account").into_response())
}

#[derive(Deserialize)]
struct PasswordForm {
    password: String,
}

async fn change_password(
    State(app): State<App>,
    user: CurrentUser,
    auth: AuthSession,
    Form(form): Form<PasswordForm>,
) -> Result<Response> {
    if let Some(reason) = app.sign_in.rejection_of(&form.password).await? {
        return Ok(unprocessable(pages::password(&user, Some(&reason.to_string()))));
    }
    // If another request has changed the user since this request began, `change` writes nothing.
    let current_login =
        match app.sign_in.passwords().change(&*app.store, &user, form.password).await? {
            // The new hash ends every login of this user. `keep_logged_in` keeps the current one.
            PasswordChange::Changed(changed) => auth.keep_logged_in(changed).await?,
            PasswordChange::Stale(_) | PasswordChange::Missing => {
                let error =
                    "Your account was changed in the meantime. Log in again, then try again.";
                let page = Html(pages::password(&user, Some(error)));
                return Ok((StatusCode::CONFLICT, page).into_response());
            }
        };
    if current_login.is_none() {
        // This login has ended in the meantime, but the new password is stored.
        auth.flash("success", "Your password is changed. Log in with it.")?;
        return Ok(Redirect::to("/login").into_response());
    }
    auth.flash("success", "Your password is changed. Your other logins have ended.")?;
    Ok(Redirect::to("/account").into_response())
}

async fn devices(user: CurrentUser, auth: AuthSession) -> Result<Html<String>> {
    let sessions = auth.sessions().await?;
    Ok(Html(pages::devices(&user, auth.take_flash().as_ref(), &sessions)))
}

#[derive(Deserialize)]
struct EndDeviceForm {
    session: String,
}

/// Ends one session of this user, on any device. Ending the current session is a logout.
async fn end_device(auth: AuthSession, Form(form): Form<EndDeviceForm>) -> Result<Redirect> {
    let is_ended = auth.end_session(&form.session).await?;
    if auth.user().await?.is_none() {
        return Ok(Redirect::to("/"));
    }
    let text =
        if is_ended { "That device is logged out." } else { "That session has already ended." };
    auth.flash("success", text)?;
    Ok(Redirect::to("/devices"))
}

async fn end_other_devices(auth: AuthSession) -> Result<Redirect> {
    auth.end_other_sessions().await?;
    auth.flash("success", "All your other devices are logged out.")?;
    Ok(Redirect::to("/devices"))
}

async fn sign_up_page() -> Html<String> {
    Html(pages::sign_up("", None))
}

async fn password_page(user: CurrentUser) -> Html<String> {
    Html(pages::password(&user, None))
}

async fn home(auth: AuthSession) -> Result<Html<String>> {
    Ok(Html(pages::home(auth.user().await?.as_deref())))
}

async fn account(user: CurrentUser, auth: AuthSession) -> Result<Html<String>> {
    let (is_fresh, is_remembered) = (auth.is_fresh().await?, auth.is_remembered());
    Ok(Html(pages::account(&user, auth.take_flash().as_ref(), is_fresh, is_remembered)))
}

/// Without a login, a script or a program gets a 401, and a browser's page the login page.
async fn me(user: CurrentUser) -> Json<Value> {
    Json(json!({ "id": user.id().as_str(), "login": user.login_name() }))
}

/// Returns the response to a form with wrong values: the page with the form and an error message.
fn unprocessable(page: String) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Html(page)).into_response()
}
