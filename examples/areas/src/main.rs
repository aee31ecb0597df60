//! A site with two kinds of login: customers at `/`, and operators at `/admin`. Each has its own user
//! type, store, cookies and login page, and a browser can be logged in as both.
//!
//! Run `cargo run -p areas-example`. The optional argument is the address to listen on.

use std::borrow::Cow;
use std::error::Error;
use std::net::SocketAddr;

use axum::extract::{Form, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tower_keep::password::PasswordUser;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::store::UserDirectory;
use tower_keep::{
    Account, AuthSession, AuthUser, CurrentUser, Keys, LoginLayer, PasswordSignIn, UserId,
};
use tower_keep_memory::MemoryStore;

/// A customer is a ready-made account.
type Customer = Account;

/// An operator is of a type of the application.
#[derive(Clone, Debug)]
struct Operator {
    id: u32,
    badge: &'static str,
    password_hash: String,
}

impl AuthUser for Operator {
    fn id(&self) -> UserId {
        self.id.into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.password_hash.as_bytes())
    }
}

impl PasswordUser for Operator {
    fn password_hash(&self) -> &str {
        &self.password_hash
    }

    fn with_password_hash(&self, hash: String) -> Self {
        Self { password_hash: hash, ..*self }
    }

    // The same password, hashed with other parameters.
    fn with_rehash(&self, hash: String) -> Self {
        self.with_password_hash(hash)
    }
}

// A form is sent to the address of its page, which has `next` in its query.
const CUSTOMER_LOGIN: Html<&str> = Html(
    "<h1>Customers</h1><form method=post><input name=login><input name=password type=password>
     <button>Log in</button></form>",
);
const OPERATOR_LOGIN: Html<&str> = Html(
    "<h1>Operators</h1><form method=post><input name=login><input name=password type=password>
     <button>Log in</button></form>",
);

#[derive(Clone)]
struct App {
    customers: PasswordSignIn<Customer>,
    operators: PasswordSignIn<Operator>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let customers = MemoryStore::<Customer>::new();
    let operators = MemoryStore::with_login_name(|operator: &Operator| operator.badge);
    let keys = Keys::generate()?;

    let customer_layer = LoginLayer::builder(customers.clone(), keys.clone())
        .with_login_page("/login")?
        .with_home_page("/account")?
        .build()?;
    // The area is part of the cookies' names and keys, so a login of a customer is never one of an
    // operator, although both have the id 1.
    let operator_layer = LoginLayer::builder(operators.clone(), keys)
        .with_area("admin")
        .with_login_page("/admin/login")?
        .with_logout_page("/admin/logout")?
        .with_home_page("/admin/orders")?
        .build()?;
    let app = App {
        customers: PasswordSignIn::new(&customer_layer, customers.clone()),
        operators: PasswordSignIn::new(&operator_layer, operators.clone()),
    };
    app.customers.passwords().sign_up(&customers, 1, "ada", "analytical engine").await?;
    let password_hash = app.operators.passwords().hash("first bug").await?;
    operators.insert(&Operator { id: 1, badge: "hopper", password_hash }).await?;
    let shop = Router::new()
        .route("/account", get(account))
        .route_layer(customer_layer.require_login())
        .route("/login", get(CUSTOMER_LOGIN).post(sign_in_customer))
        .route("/logout", post(sign_out::<Customer>))
        .layer(customer_layer);
    let admin = Router::new()
        .route("/orders", get(orders))
        .route_layer(operator_layer.require_login())
        .route("/login", get(OPERATOR_LOGIN).post(sign_in_operator))
        .route("/logout", post(sign_out::<Operator>))
        .layer(operator_layer);
    let site = shop.nest("/admin", admin).layer(CsrfLayer::new()).with_state(app);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo customer: ada, analytical engine");
    println!("demo operator: hopper, first bug");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(site);
    axum::serve(listener, service).await?;
    Ok(())
}

async fn account(user: CurrentUser<Customer>) -> String {
    format!("You are the customer {}.", user.login_name())
}

async fn orders(operator: CurrentUser<Operator>) -> String {
    format!("You are the operator {}.", operator.badge)
}

#[derive(Deserialize)]
struct SignIn {
    login: String,
    password: String,
}

async fn sign_in_customer(
    State(app): State<App>,
    auth: AuthSession<Customer>,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let customer = match app.customers.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(customer) => customer,
        PasswordCheck::Wrong => return Ok(CUSTOMER_LOGIN.into_response()),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    };
    auth.log_in(customer).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_in_operator(
    State(app): State<App>,
    auth: AuthSession<Operator>,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let operator = match app.operators.check(&auth, &form.login, form.password).await? {
        PasswordCheck::Ok(operator) => operator,
        PasswordCheck::Wrong => return Ok(OPERATOR_LOGIN.into_response()),
        PasswordCheck::Throttled(throttled) => return Ok(throttled.into_response()),
    };
    auth.log_in(operator).await?;
    Ok(auth.next_or_home().into_response())
}

async fn sign_out<U: AuthUser>(auth: AuthSession<U>) -> Result<Redirect> {
    auth.log_out().await?;
    Ok(Redirect::to("/"))
}
