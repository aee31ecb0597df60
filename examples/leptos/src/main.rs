//! A site with a login in leptos, on axum. The server renders the pages, and forms call server
//! functions; nothing runs in the browser.
//!
//! Run `cargo run` in this directory, then open the address that it prints. The optional argument is
//! the address to listen on.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use leptos::prelude::*;
use leptos_axum::{
    ResponseOptions, extract, handle_server_fns_with_context, redirect,
    render_app_async_with_context,
};
use leptos_router::components::{Route, Router as Pages, Routes};
use leptos_router::path;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::store::{Modified, StoreErrorKind, UserDirectory};
use tower_keep::{Account, AuthError, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

const PASSWORD: &str = "analytical engine";

/// A larger request is rejected, because a server function would read all of it.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What the server functions need.
#[derive(Clone)]
struct App {
    users: MemoryStore<Account>,
    sign_in: PasswordSignIn<Account>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Usually `generate_route_list` does this. Here the routes are listed by hand, with guards.
    any_spawner::Executor::init_tokio()?;
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_sessions()
        .with_login_page("/login")?
        .with_home_page("/account")?
        .build()?;
    let sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;
    let app = App { users, sign_in };
    tokio::spawn(auth_layer.upkeep());
    let provide_app = move || provide_context(app.clone());
    // A page is sent when it is complete: a login may still change the cookies while it is rendered.
    let page = render_app_async_with_context(provide_app.clone(), Document);
    let functions = move |request| handle_server_fns_with_context(provide_app.clone(), request);
    let site = Router::new()
        .route("/account", get(page.clone()))
        .route("/api/rename", post(functions.clone()))
        .route_layer(auth_layer.require_login())
        .route("/login", get(page))
        .route("/api/log-in", post(functions.clone()))
        .route("/api/log-out", post(functions))
        .layer(CsrfLayer::new())
        .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES))
        .layer(auth_layer);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: {PASSWORD}");
    axum::serve(listener, site.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

#[component]
fn Document() -> impl IntoView {
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8"/>
                <title>"tower-keep and leptos"</title>
            </head>
            <body>
                <Pages>
                    <Routes fallback=|| "There is no such page.">
                        <Route path=path!("/account") view=AccountPage/>
                        <Route path=path!("/login") view=LoginPage/>
                    </Routes>
                </Pages>
            </body>
        </html>
    }
}

#[component]
fn AccountPage() -> impl IntoView {
    let name = Resource::new(|| (), |()| login_name());
    let (rename, log_out) = (ServerAction::<Rename>::new(), ServerAction::<LogOut>::new());
    view! {
        <Suspense>
            {move || Suspend::new(async move {
                name.await.map(|name| view! { <h1>{format!("You are {name}.")}</h1> })
            })}
        </Suspense>
        <ActionForm action=rename>
            <input name="name" required/>
            <button>"Rename"</button>
        </ActionForm>
        <ActionForm action=log_out>
            <button>"Log out"</button>
        </ActionForm>
    }
}

#[component]
fn LoginPage() -> impl IntoView {
    let start = Resource::new(|| (), |()| start_of_login());
    let log_in = ServerAction::<LogIn>::new();
    view! {
        <Suspense>
            {move || Suspend::new(async move {
                start.await.map(|(message, next)| view! {
                    <p>{message}</p>
                    <ActionForm action=log_in>
                        <input type="hidden" name="next" value=next/>
                        <label>"Login " <input name="login"/></label>
                        <label>"Password " <input name="password" type="password"/></label>
                        <button>"Log in"</button>
                    </ActionForm>
                })
            })}
        </Suspense>
    }
}

/// Returns the handle of the request that is being served.
async fn auth_session() -> Result<AuthSession, ServerFnError> {
    Ok(extract::<AuthSession>().await?)
}

/// Returns the message for the login page, and where the login leads.
async fn start_of_login() -> Result<(String, String), ServerFnError> {
    let auth = auth_session().await?;
    let message = auth.take_flash().map(|flash| flash.text().to_owned()).unwrap_or_default();
    Ok((message, auth.next_or_home().as_str().to_owned()))
}

async fn login_name() -> Result<String, ServerFnError> {
    let user = auth_session().await?.user().await.map_err(failed)?;
    Ok(user.map(|user| user.login_name().to_owned()).unwrap_or_default())
}

#[server(prefix = "/api", endpoint = "log-in")]
async fn log_in(login: String, password: String, next: String) -> Result<(), ServerFnError> {
    let (App { sign_in, .. }, auth) = (expect_context::<App>(), auth_session().await?);
    let checked = sign_in.check(&auth, &login, password).await;
    let next = auth.next_from_form(Some(&next));
    let error = match checked.map_err(|error| failed_with(error.status(), error))? {
        PasswordCheck::Ok(user) => {
            let logged_in = auth.log_in(user).await;
            logged_in.map_err(|error| failed_with(error.status(), error))?;
            redirect(auth.or_home(next).as_str());
            return Ok(());
        }
        PasswordCheck::Wrong => "Wrong login name or password.".to_owned(),
        PasswordCheck::Throttled(throttled) => {
            format!("Too many attempts. Try again in {}.", throttled.wait())
        }
    };
    auth.flash("error", error).map_err(failed)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(next.iter().map(|next| ("next", next.as_str())));
    redirect(&format!("/login?{}", query.finish()));
    Ok(())
}

#[server(prefix = "/api", endpoint = "log-out")]
async fn log_out() -> Result<(), ServerFnError> {
    auth_session().await?.log_out().await.map_err(failed)?;
    redirect("/login");
    Ok(())
}

/// The guard around this function has let in users only. A site where names matter puts a guard for
/// fresh logins here.
#[server(prefix = "/api", endpoint = "rename")]
async fn rename(name: String) -> Result<(), ServerFnError> {
    let (App { users, .. }, auth) = (expect_context::<App>(), auth_session().await?);
    if name.trim().is_empty() {
        return Err(failed_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            "A name has at least one letter.",
        ));
    }
    if let Some(user) = auth.user().await.map_err(failed)? {
        let mut change = |account: &Account| {
            let mut account = account.clone();
            account.set_login_name(&name);
            Some(account)
        };
        match users.modify(user.id(), &mut change).await {
            Ok(Modified::Changed(_) | Modified::Unchanged(_)) => {}
            Ok(Modified::Missing) => return Err(failed_with(StatusCode::GONE, "No such user.")),
            Err(error) if error.kind() == StoreErrorKind::Conflict => {
                return Err(failed_with(StatusCode::CONFLICT, "This name is taken."));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
    redirect("/account");
    Ok(())
}

fn failed(error: AuthError) -> ServerFnError {
    failed_with(error.status(), error)
}

/// Sets the response's status, and returns the error that leptos shows.
fn failed_with(status: StatusCode, error: impl std::fmt::Display) -> ServerFnError {
    expect_context::<ResponseOptions>().set_status(status);
    ServerFnError::new(error)
}
