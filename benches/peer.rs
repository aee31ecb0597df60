//! The peer, which is the crate that tower-keep is compared with: axum-login, set up as in its
//! documentation, with its sessions in memory.

use axum::body::Body;
use axum::http::Request;
use axum::{Router, routing::get};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, login_required};
use tower_keep_bench_cases::{CaseRunner, RequestTemplate, cookies_of, send};
use tower_sessions::{MemoryStore, SessionManagerLayer};

#[derive(Clone, Debug)]
struct User {
    id: i64,
    password_hash: &'static str,
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.password_hash.as_bytes()
    }
}

const USER: User = User { id: 1, password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA" };

#[derive(Clone)]
struct Backend;

impl AuthnBackend for Backend {
    type User = User;
    type Credentials = ();
    type Error = std::convert::Infallible;

    async fn authenticate(&self, (): ()) -> Result<Option<User>, Self::Error> {
        Ok(Some(USER))
    }

    async fn get_user(&self, id: &i64) -> Result<Option<User>, Self::Error> {
        Ok((*id == USER.id).then_some(USER))
    }
}

pub(crate) fn run_cases(runner: &mut impl CaseRunner) {
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let auth = AuthManagerLayerBuilder::new(Backend, sessions).build();
    let sign_in = Router::new()
        .route(
            "/",
            get(|mut session: AuthSession<Backend>| async move {
                session.login(&USER).await.expect("a login");
            }),
        )
        .layer(auth.clone());
    let request: Request<Body> = RequestTemplate::without_cookie().request();
    let logged_in = RequestTemplate::with_cookie(&cookies_of(&send(&sign_in, request)));
    let anonymous = RequestTemplate::without_cookie();
    let hello = || Router::new().route("/", get(|| async { "hello" }));
    let greeting = Router::new().route(
        "/",
        get(|session: AuthSession<Backend>| async move {
            if session.user.is_some() { "hello" } else { "stranger" }
        }),
    );
    let guarded = hello().route_layer(login_required!(Backend, login_url = "/login"));

    runner.run_case("axum-login-anonymous", greeting.layer(auth.clone()), &anonymous, 200);
    runner.run_case("axum-login-untouched", hello().layer(auth.clone()), &logged_in, 200);
    runner.run_case("axum-login-guarded", guarded.clone().layer(auth.clone()), &logged_in, 200);
    runner.run_case("axum-login-turned-away", guarded.layer(auth), &anonymous, 307);
}
