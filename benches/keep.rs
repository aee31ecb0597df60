//! tower-keep, with the layer around the router.

use axum::body::Body;
use axum::http::Request;
use axum::{Router, routing::get};
use tower::Layer;
use tower_keep::{Account, CurrentUser, Keys, Login, LoginLayer, UserDirectory};
use tower_keep_memory::MemoryStore;

use crate::{Template, Visitor, cookies_of, run, send};

pub(crate) fn visit(visitor: &mut impl Visitor) {
    let store = MemoryStore::new();
    let user = Account::new(1, "ada", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA");
    run(store.insert(&user)).expect("an empty store");
    let key = "a benchmark's key, long enough to be one";
    let auth = LoginLayer::builder(store.clone(), Keys::new(key))
        .with_login_page("/login")
        .build()
        .expect("settings that agree");
    let records = LoginLayer::builder(store, Keys::new(key))
        .with_sessions()
        .build()
        .expect("settings that agree");
    let recorded = Template::with_cookie(&session_cookie(&records, user.clone()));
    let session = Template::with_cookie(&session_cookie(&auth, user));
    let none = Template::without_cookie();
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
    let guarded = auth.layer(auth.require_login().layer(hello()));
    let routes = hello().route_layer(auth.require_login());

    visitor.case("keep-anonymous", auth.layer(greet()), &none, 200);
    visitor.case("keep-untouched", auth.layer(hello()), &session, 200);
    visitor.case("keep-guarded", guarded.clone(), &session, 200);
    visitor.case("keep-route-layer", auth.layer(routes), &session, 200);
    visitor.case("keep-extractor", auth.layer(extract.clone()), &session, 200);
    visitor.case("keep-turned-away", guarded, &none, 303);

    let guarded = records.layer(records.require_login().layer(hello()));
    let routes = hello().route_layer(records.require_login());
    visitor.case("keep-untouched-records", records.layer(hello()), &recorded, 200);
    visitor.case("keep-guarded-records", guarded, &recorded, 200);
    visitor.case("keep-route-layer-records", records.layer(routes), &recorded, 200);
    visitor.case("keep-extractor-records", records.layer(extract), &recorded, 200);
}

fn session_cookie(auth: &LoginLayer<Account>, user: Account) -> String {
    let sign_in = Router::new().route(
        "/",
        get(|login: Login<Account>| async move { login.log_in(user).await.map(|()| "in") }),
    );
    let request: Request<Body> = Template::without_cookie().request();
    cookies_of(&send(&auth.layer(sign_in), request))
}
