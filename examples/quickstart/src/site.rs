//! The site, and everything on it that has to do with logging in.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tower_http::csrf::CsrfLayer;
use tower_keep::{
    Account, Bearer, BuildError, Fault, Keys, LoginLayer, LoginService, PasswordChange, Passwords,
};

use crate::pages;
use crate::store::Store;

type Login = tower_keep::Login<Account>;
type CurrentUser = tower_keep::CurrentUser<Account>;

/// In characters (ASVS 5.0, 6.2.1).
const SHORTEST_PASSWORD: usize = 8;

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) passwords: Passwords,
    pub(crate) api_key: String,
}

pub(crate) type Auth = LoginLayer<Account>;

/// Who is logged in. Sessions are kept beside the users, so that they can be listed and ended.
pub(crate) fn auth(app: &App, keys: Keys) -> std::result::Result<Auth, BuildError> {
    let (users, api_keys) =
        (Arc::clone(&app.store), HashMap::from([(app.api_key.clone(), crate::ID)]));
    LoginLayer::builder(Arc::clone(&app.store), keys)
        .with_sessions()
        .with_login_page("/login")
        .with_confirm_page("/confirm")
        .with_home_page("/account")
        .add_request_loader(Bearer::new(move |key: String| {
            // Found by a keyed hash, so that the time it takes tells nothing of a key.
            let (users, id) = (Arc::clone(&users), api_keys.get(&key).copied());
            async move { if let Some(id) = id { users.by_id(&id.into()).await } else { Ok(None) } }
        }))
        .build()
}

pub(crate) fn site(app: App, auth: &Auth) -> LoginService<Router, Account> {
    let members = Router::new()
        .route("/account", get(account))
        .route("/devices", get(devices))
        .route("/devices/end", post(end_device))
        .route("/devices/end-others", post(end_other_devices))
        .route("/confirm", get(confirm_page).post(confirm))
        .route_layer(auth.require_login());
    let sensitive = Router::new()
        .route("/password", get(password_page).post(change_password))
        .route_layer(auth.require_fresh());
    let site = Router::new()
        .route("/", get(home))
        .route("/login", get(login_page).post(sign_in))
        .route("/logout", post(sign_out))
        .route("/api/me", get(me))
        .merge(members)
        .merge(sensitive)
        .layer(CsrfLayer::new())
        .with_state(app);
    auth.layer(site)
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
    remember: Option<String>,
    next: Option<String>,
}

async fn sign_in(
    State(app): State<App>,
    login: Login,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let next = login.next_given(form.next.as_deref());
    let found = app.store.by_login(&form.login).await.map_err(Fault::from)?;
    let checked = app.passwords.check(found, Account::password_hash, form.password).await?;
    let Some(user) = checked else {
        let wrong = Some("This login and this password don't go together.");
        return Ok(again(pages::login(None, wrong, next.as_ref())));
    };
    login.log_in(user).remember(form.remember.is_some()).with_method("password").await?;
    Ok(Redirect::to(next.as_ref().map_or("/account", |next| next.as_str())).into_response())
}

async fn sign_out(login: Login) -> Result<Redirect> {
    login.log_out().await?;
    Ok(Redirect::to("/"))
}

#[derive(Deserialize)]
struct Password {
    password: String,
    next: Option<String>,
}

async fn confirm(
    State(app): State<App>,
    user: CurrentUser,
    login: Login,
    Form(form): Form<Password>,
) -> Result<Response> {
    let next = login.next_given(form.next.as_deref());
    if !app.passwords.verify(Some(user.password_hash()), form.password).await? {
        return Ok(again(pages::confirm(
            &user,
            None,
            Some("This is not your password."),
            next.as_ref(),
        )));
    }
    login.confirm().await?;
    Ok(Redirect::to(next.as_ref().map_or("/account", |next| next.as_str())).into_response())
}

async fn change_password(
    State(app): State<App>,
    user: CurrentUser,
    login: Login,
    Form(form): Form<Password>,
) -> Result<Response> {
    if form.password.chars().count() < SHORTEST_PASSWORD {
        let short = format!("A password needs at least {SHORTEST_PASSWORD} characters.");
        return Ok(again(pages::password(&user, Some(&short))));
    }
    // Never undoes what an administrator has changed since this request began.
    let kept = match app.passwords.change(&*app.store, &user, form.password).await? {
        // The new hash ends every login of this user; this one goes on.
        PasswordChange::Changed(changed) => login.keep_logged_in(changed).await?,
        PasswordChange::Stale(_) | PasswordChange::Missing => {
            let late =
                "Your account was changed elsewhere meanwhile. Log in again, then try once more.";
            let page = Html(pages::password(&user, Some(late)));
            return Ok((StatusCode::CONFLICT, page).into_response());
        }
    };
    if kept.is_none() {
        // This login has ended meanwhile; the new password is in force all the same.
        login.leave_notice("success", "Your password is changed. Log in with it.")?;
        return Ok(Redirect::to("/login").into_response());
    }
    login.leave_notice("success", "Your password is changed. Your other logins have ended.")?;
    Ok(Redirect::to("/account").into_response())
}

async fn devices(user: CurrentUser, login: Login) -> Result<Html<String>> {
    let sessions = login.sessions().await?;
    Ok(Html(pages::devices(&user, login.notice().as_ref(), &sessions)))
}

#[derive(Deserialize)]
struct Ending {
    session: String,
}

/// Ends one session of this user, wherever it is; to end this one is to log out.
async fn end_device(login: Login, Form(form): Form<Ending>) -> Result<Redirect> {
    let is_ended = login.end_session(&form.session).await?;
    if login.user().await?.is_none() {
        return Ok(Redirect::to("/"));
    }
    let text =
        if is_ended { "That device is logged out." } else { "That session has ended before." };
    login.leave_notice("success", text)?;
    Ok(Redirect::to("/devices"))
}

async fn end_other_devices(login: Login) -> Result<Redirect> {
    login.end_other_sessions().await?;
    login.leave_notice("success", "All your other devices are logged out.")?;
    Ok(Redirect::to("/devices"))
}

async fn login_page(login: Login) -> Result<Response> {
    let next = login.next();
    if login.user().await?.is_some() {
        return Ok(
            Redirect::to(next.as_ref().map_or("/account", |next| next.as_str())).into_response()
        );
    }
    Ok(Html(pages::login(login.notice().as_ref(), None, next.as_ref())).into_response())
}

async fn confirm_page(user: CurrentUser, login: Login) -> Html<String> {
    Html(pages::confirm(&user, login.notice().as_ref(), None, login.next().as_ref()))
}

async fn password_page(user: CurrentUser) -> Html<String> {
    Html(pages::password(&user, None))
}

async fn home(login: Login) -> Result<Html<String>> {
    Ok(Html(pages::home(login.user().await?.as_deref())))
}

async fn account(user: CurrentUser, login: Login) -> Result<Html<String>> {
    let (is_fresh, is_remembered) = (login.is_fresh().await?, login.is_remembered());
    Ok(Html(pages::account(&user, login.notice().as_ref(), is_fresh, is_remembered)))
}

async fn me(login: Login) -> Result<Response> {
    Ok(match login.user().await? {
        Some(user) => {
            Json(json!({ "id": user.id().as_str(), "login": user.login() })).into_response()
        }
        None => (StatusCode::UNAUTHORIZED, Json(json!({ "error": "log in, or send an API key" })))
            .into_response(),
    })
}

/// The form once more, with what is wrong.
fn again(page: String) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Html(page)).into_response()
}
