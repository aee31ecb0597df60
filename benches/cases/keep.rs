//! tower-keep, with the layer around the router.

use axum::body::Body;
use axum::http::Request;
use axum::{Router, routing::get};
use tower::Layer;
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
        .build()
        .expect("settings that agree");
    let server_side = LoginLayer::builder(store, Keys::new(key))
        .with_sessions()
        .build()
        .expect("settings that agree");
    let server_side_session =
        RequestTemplate::with_cookie(&session_cookie(&server_side, user.clone()));
    let session = RequestTemplate::with_cookie(&session_cookie(&auth_layer, user));
    let none = RequestTemplate::without_cookie();
    let hello = || Router::new().route("/", get(|| async { "hello" }));
    let greet = || {
        Router::new().route(
            "/",
            get(|user: Option<CurrentUser<Account>>| async move {
                if user.is_some() { "hello" } else { "stranger" }
            }),
        )
    };
    let extract = Router::new().route("/", get(|_: CurrentUser<Account>| async { "hello" }));
    let guarded = auth_layer.layer(auth_layer.require_login().layer(hello()));
    let routes = hello().route_layer(auth_layer.require_login());

    runner.case("keep-anonymous", auth_layer.layer(greet()), &none, 200);
    runner.case("keep-untouched", auth_layer.layer(hello()), &session, 200);
    runner.case("keep-guarded", guarded.clone(), &session, 200);
    runner.case("keep-route-layer", auth_layer.layer(routes), &session, 200);
    runner.case("keep-extractor", auth_layer.layer(extract.clone()), &session, 200);
    runner.case("keep-turned-away", guarded, &none, 303);

    let guarded = server_side.layer(server_side.require_login().layer(hello()));
    let routes = hello().route_layer(server_side.require_login());
    runner.case(
        "keep-untouched-server-side",
        server_side.layer(hello()),
        &server_side_session,
        200,
    );
    runner.case("keep-guarded-server-side", guarded, &server_side_session, 200);
    runner.case(
        "keep-route-layer-server-side",
        server_side.layer(routes),
        &server_side_session,
        200,
    );
    runner.case(
        "keep-extractor-server-side",
        server_side.layer(extract),
        &server_side_session,
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
