//! A loco application with a login. The layer goes around the router in `after_routes`, and guards
//! around groups of routes.
//!
//! Run `cargo run -- start` in this directory, then open the address that it prints. The variable
//! `PORT` sets the port.

use std::net::SocketAddr;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use loco_rs::app::{AppContext, Hooks};
use loco_rs::bgworker::Queue;
use loco_rs::boot::{BootResult, ServeParams, StartMode, create_app};
use loco_rs::config::Config;
use loco_rs::controller::{AppRoutes, Routes};
use loco_rs::environment::Environment;
use loco_rs::task::Tasks;
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, CurrentUser, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

type AuthSession = tower_keep::AuthSession<Account>;

const PASSWORD: &str = "analytical engine";

/// What the handlers and the routes need, in loco's shared store.
#[derive(Clone)]
struct Login {
    sign_in: PasswordSignIn<Account>,
    layer: LoginLayer<Account>,
}

impl Login {
    async fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let users = MemoryStore::<Account>::new();
        let layer = LoginLayer::builder(users.clone(), Keys::generate()?)
            .with_login_page("/login")?
            .with_home_page("/account")?
            .build()?;
        let sign_in = PasswordSignIn::new(&layer, users.clone());
        sign_in.passwords().sign_up(&users, 1, "ada", PASSWORD).await?;
        Ok(Self { sign_in, layer })
    }

    fn of(context: &AppContext) -> loco_rs::Result<Self> {
        let missing = || loco_rs::Error::Message("`after_context` has not run".into());
        context.shared_store.get::<Self>().ok_or_else(missing)
    }
}

struct App;

#[async_trait]
impl Hooks for App {
    fn app_name() -> &'static str {
        env!("CARGO_CRATE_NAME")
    }

    async fn boot(
        mode: StartMode,
        environment: &Environment,
        config: Config,
    ) -> loco_rs::Result<BootResult> {
        create_app::<Self>(mode, environment, config).await
    }

    async fn after_context(context: AppContext) -> loco_rs::Result<AppContext> {
        context.shared_store.insert(Login::new().await.map_err(loco_rs::Error::Any)?);
        Ok(context)
    }

    fn routes(context: &AppContext) -> AppRoutes {
        // Without the layer there is no guard, and no route either. `after_routes` then fails, which
        // ends the start.
        let Ok(login) = Login::of(context) else { return AppRoutes::empty() };
        let open = Routes::new()
            .add("/login", get(login_page).post(sign_in))
            .add("/logout", post(sign_out));
        let members =
            Routes::new().add("/account", get(account)).layer(login.layer.require_login());
        AppRoutes::empty().add_route(open).add_route(members)
    }

    async fn after_routes(router: Router, context: &AppContext) -> loco_rs::Result<Router> {
        Ok(router.layer(CsrfLayer::new()).layer(Login::of(context)?.layer))
    }

    /// Does what loco does, and prints the address.
    async fn serve(app: Router, _: &AppContext, to: &ServeParams) -> loco_rs::Result<()> {
        let listener = TcpListener::bind(format!("{}:{}", to.binding, to.port)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        println!("demo login: ada");
        println!("demo password: {PASSWORD}");
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
        Ok(())
    }

    async fn connect_workers(_: &AppContext, _: &Queue) -> loco_rs::Result<()> {
        Ok(())
    }

    fn register_tasks(_: &mut Tasks) {}
}

/// Shows the form. It is sent to the address of this page, which has `next` in its query. If `error`
/// is `None`, the message is that of the guard, which needs no escaping.
fn show_form(auth: &AuthSession, error: Option<&str>) -> Html<String> {
    let flash = auth.take_flash().map(|flash| flash.text().to_owned());
    let message = error.or(flash.as_deref()).unwrap_or_default();
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Log in</title><p>{message}</p>
         <form method=post><label>Login <input name=login></label>
         <label>Password <input name=password type=password></label><button>Log in</button></form>"
    ))
}

async fn login_page(auth: AuthSession) -> Html<String> {
    show_form(&auth, None)
}

#[derive(Deserialize)]
struct Typed {
    login: String,
    password: String,
}

async fn sign_in(
    State(context): State<AppContext>,
    auth: AuthSession,
    Form(form): Form<Typed>,
) -> Result<Response> {
    let Login { sign_in, .. } = Login::of(&context)?;
    let user = match sign_in.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(user) => user,
        PasswordCheck::Wrong => {
            return Ok(show_form(&auth, Some("Wrong login name or password.")).into_response());
        }
        PasswordCheck::Throttled(throttled) => {
            let error = format!("Too many attempts. Try again in {}.", throttled.wait());
            let retry_after = [(RETRY_AFTER, throttled.retry_after.as_secs())];
            let page = show_form(&auth, Some(&error));
            return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after, page).into_response());
        }
    };
    auth.log_in(user).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out(auth: AuthSession) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/login"))
}

async fn account(user: CurrentUser<Account>) -> String {
    format!("You are {}.", user.login_name())
}

#[tokio::main]
async fn main() -> loco_rs::Result<()> {
    loco_rs::cli::main::<App>().await
}
