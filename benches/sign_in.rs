//! `cargo bench -p tower-keep-benches --bench sign_in` compares how long a wrong password takes for
//! a user, for a name that nobody has, and for a user whose stored hash can't be one. The cases
//! take turns, so noise affects all of them alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use tower::ServiceExt;
use tower_keep::sign_in::{PasswordCheck, SignInLimits};
use tower_keep::store::UserDirectory;
use tower_keep::throttle::CounterRule;
use tower_keep::{Account, AuthSession, Keys, LoginLayer, PasswordSignIn};
use tower_keep_memory::MemoryStore;

/// How many passwords are checked for each case.
const ROUNDS: usize = 300;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let store = MemoryStore::new();
    let auth_layer =
        LoginLayer::builder(store.clone(), Keys::new("a key for a bench, with many bytes."));
    let auth_layer = auth_layer.build().expect("settings that agree");
    // Every try reaches the hash.
    let mut limits = SignInLimits::default();
    limits.by_name = CounterRule::window(u32::MAX, 3_600);
    let sign_in = PasswordSignIn::new(&auth_layer, store.clone()).with_limits(limits);
    let hash = sign_in.passwords().hash("the right password").await.expect("a hash");
    for (id, name, hash) in [(1, "user", hash.as_str()), (2, "no-hash", "!")] {
        store.insert(&Account::new(id, name, hash)).await.expect("a store in memory does not fail");
    }
    let sign_in = Arc::new(sign_in);
    let check = move |auth: AuthSession<Account>, Path(name): Path<String>| {
        let sign_in = Arc::clone(&sign_in);
        async move {
            match sign_in.check(&auth, &name, "a guess").await {
                Ok(PasswordCheck::Wrong) => StatusCode::UNAUTHORIZED,
                other => panic!("{other:?}"),
            }
        }
    };
    let site = auth_layer.layer(Router::new().route("/{name}", post(check)));
    let names = ["user", "nobody", "no-hash"];
    let mut times = names.map(|_| Vec::with_capacity(ROUNDS));
    for round in 0..ROUNDS + 10 {
        for (name, times) in names.iter().zip(&mut times) {
            let request = Request::post(format!("/{name}")).body(String::new()).expect("a request");
            let begun = Instant::now();
            let response = site.clone().oneshot(request).await.expect("the layer never fails");
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            if round >= 10 {
                times.push(begun.elapsed());
            }
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let medians = times.each_mut().map(median);
    for (name, time) in names.iter().zip(medians) {
        println!(
            "{name}: median {time:?}, {:.3} of a user's",
            time.as_secs_f64() / medians[0].as_secs_f64()
        );
    }
}
