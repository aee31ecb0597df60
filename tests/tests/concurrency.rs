//! One lookup per request, however many tasks ask for the user, and whichever of them gives up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tower::service_fn;
use tower_keep::store::StoreError;
use tower_keep::{Account, AuthSession, Keys, LoginLayer, UserId, user_loader};
use tower_keep_testkit::client::Client;
use tower_keep_tests::{KEY, account};

/// Returns a layer over a store that responds once for each permit, the permits, and the number of
/// calls that the store received.
fn gated() -> (LoginLayer<Account>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opens, counts) = (Arc::clone(&gate), Arc::clone(&asked));
    let find = move |_: UserId| {
        let (gate, asked) = (Arc::clone(&opens), Arc::clone(&counts));
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.expect("it is never closed").forget();
            Ok::<_, StoreError>(Some(Arc::new(account("notch"))))
        }
    };
    let auth_layer = LoginLayer::builder(user_loader(find), Keys::new(KEY)).build();
    (auth_layer.expect("settings that agree"), gate, asked)
}

/// Returns the response text of a handler that does this with its auth session.
async fn handled<F, Fut>(auth_layer: &LoginLayer<Account>, handle: F) -> String
where
    F: Fn(AuthSession<Account>) -> Fut + Clone,
    Fut: Future<Output = String>,
{
    let service = service_fn(move |request: Request<String>| {
        let auth = request.extensions().get::<AuthSession<Account>>().cloned();
        let handled = handle(auth.expect("the layer is around this"));
        async move { Ok::<_, Infallible>(Response::new(Body::from(handled.await))) }
    });
    let mut client = Client::new(auth_layer.layer(service));
    client.log_in(auth_layer, account("notch")).await.expect("a login");
    client.get("/").await.text()
}

async fn name(auth: AuthSession<Account>) -> String {
    let user = auth.user().await.expect("no error");
    user.map(|user| user.login_name().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_hundred_askers_are_one_look_up() {
    let (auth_layer, gate, asked) = gated();
    gate.add_permits(1);
    let said = handled(&auth_layer, |auth| async move {
        let askers: Vec<_> = (0..100).map(|_| tokio::spawn(name(auth.clone()))).collect();
        let mut names = Vec::new();
        for asker in askers {
            names.push(asker.await.expect("no panic"));
        }
        names.dedup();
        names.join(" ")
    })
    .await;
    assert_eq!((said.as_str(), asked.load(Ordering::SeqCst)), ("notch", 1));
}

#[tokio::test]
async fn when_the_first_asker_gives_up_another_takes_over() {
    let (auth_layer, gate, asked) = gated();
    let said = handled(&auth_layer, |auth| {
        let gate = Arc::clone(&gate);
        async move {
            let first = tokio::spawn(name(auth.clone()));
            tokio::task::yield_now().await;
            let others: Vec<_> = (0..10).map(|_| tokio::spawn(name(auth.clone()))).collect();
            tokio::task::yield_now().await;
            first.abort();
            gate.add_permits(1);
            for other in others {
                assert_eq!(other.await.expect("no panic"), "notch");
            }
            name(auth).await
        }
    })
    .await;
    assert_eq!((said.as_str(), asked.load(Ordering::SeqCst)), ("notch", 2));
}

#[tokio::test]
async fn a_login_while_somebody_still_asks_has_the_last_word() {
    let (auth_layer, gate, _) = gated();
    let said = handled(&auth_layer, |auth| {
        let gate = Arc::clone(&gate);
        async move {
            let asker = tokio::spawn(name(auth.clone()));
            tokio::task::yield_now().await;
            auth.log_in(account("steve")).await.expect("a login");
            gate.add_permits(1);
            assert_eq!(asker.await.expect("no panic"), "steve");
            name(auth).await
        }
    })
    .await;
    assert_eq!(said, "steve");
}
