//! The cases of tower-keep, with the layer around the router.

use axum::body::Body;
use axum::http::Request;
use axum::{Router, routing::get};
use tower_keep::store::UserDirectory;
use tower_keep::{Account, AuthSession, CurrentUser, Keys, LoginLayer};
use tower_keep_memory::MemoryStore;

use crate::{CaseRunner, RequestTemplate, cookies_of, run, send};

pub(crate) fn run_cases(runner: &mut impl CaseRunner) {
    let store = MemoryStore::new();
    let user = Account::new(1, "ada", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA");
    run(store.insert(&user)).expect("an empty store");
    let key = "a benchmark's key, long enough to be one";
    let auth_layer = LoginLayer::builder(store.clone(), Keys::new(key))
        .with_login_page("/login")
        .expect("a local page")
        // A message would be sealed for every request that is turned away.
        .with_messages(false)
        .build()
        .expect("settings that agree");
    let server_side_layer = LoginLayer::builder(store, Keys::new(key))
        .with_sessions()
        .build()
        .expect("settings that agree");
    let logged_in_server_side =
        RequestTemplate::with_cookie(&session_cookie(&server_side_layer, user.clone()));
    let logged_in = RequestTemplate::with_cookie(&session_cookie(&auth_layer, user));
    let anonymous = RequestTemplate::without_cookie();
    let hello = || Router::new().route("/", get(|| async { "hello" }));
    let greeting = || {
        Router::new().route(
            "/",
            get(|user: Option<CurrentUser<Account>>| async move {
                if user.is_some() { "hello" } else { "stranger" }
            }),
        )
    };
    let extractor = Router::new().route("/", get(|_: CurrentUser<Account>| async { "hello" }));
    let guarded = auth_layer.layer(auth_layer.require_login().layer(hello()));
    let guarded_route = hello().route_layer(auth_layer.require_login());

    runner.run_case("keep-anonymous", auth_layer.layer(greeting()), &anonymous, 200);
    runner.run_case("keep-untouched", auth_layer.layer(hello()), &logged_in, 200);
    runner.run_case("keep-guarded", guarded.clone(), &logged_in, 200);
    runner.run_case("keep-route-layer", auth_layer.layer(guarded_route), &logged_in, 200);
    runner.run_case("keep-extractor", auth_layer.layer(extractor.clone()), &logged_in, 200);
    let for_page = anonymous.for_page();
    runner.run_case("keep-turned-away", guarded, &for_page, 303);

    let guarded = server_side_layer.layer(server_side_layer.require_login().layer(hello()));
    let guarded_route = hello().route_layer(server_side_layer.require_login());
    runner.run_case(
        "keep-untouched-server-side",
        server_side_layer.layer(hello()),
        &logged_in_server_side,
        200,
    );
    runner.run_case("keep-guarded-server-side", guarded, &logged_in_server_side, 200);
    runner.run_case(
        "keep-route-layer-server-side",
        server_side_layer.layer(guarded_route),
        &logged_in_server_side,
        200,
    );
    runner.run_case(
        "keep-extractor-server-side",
        server_side_layer.layer(extractor),
        &logged_in_server_side,
        200,
    );
}

fn session_cookie(auth_layer: &LoginLayer<Account>, user: Account) -> String {
    let sign_in = Router::new().route(
        "/",
        get(|auth: AuthSession<Account>| async move { auth.log_in(user).await.map(|()| "in") }),
    );
    let request: Request<Body> = RequestTemplate::without_cookie().request();
    cookies_of(&send(&auth_layer.layer(sign_in), request))
}
