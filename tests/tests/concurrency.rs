//! A request looks the user up once, however many tasks ask for the user. If the task that looks
//! the user up is aborted, another task does it.

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

/// Returns a layer, the permits for the calls of its store, and the number of these calls. Each
/// call waits for a permit before it returns.
fn layer_with_permits() -> (LoginLayer<Account>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (permits, lookups) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (store_permits, store_lookups) = (Arc::clone(&permits), Arc::clone(&lookups));
    let find = move |_: UserId| {
        let (permits, lookups) = (Arc::clone(&store_permits), Arc::clone(&store_lookups));
        async move {
            lookups.fetch_add(1, Ordering::SeqCst);
            permits.acquire().await.expect("the semaphore is never closed").forget();
            Ok::<_, StoreError>(Some(Arc::new(account("notch"))))
        }
    };
    let auth_layer = LoginLayer::builder(user_loader(find), Keys::new(KEY)).build();
    (auth_layer.expect("settings that agree"), permits, lookups)
}

/// Logs notch in, sends a request to a handler that calls `handle`, and returns the response's
/// text.
async fn response_of<F, Fut>(auth_layer: &LoginLayer<Account>, handle: F) -> String
where
    F: Fn(AuthSession<Account>) -> Fut + Clone,
    Fut: Future<Output = String>,
{
    let service = service_fn(move |request: Request<String>| {
        let auth = request.extensions().get::<AuthSession<Account>>().cloned();
        let text = handle(auth.expect("the layer is around the service"));
        async move { Ok::<_, Infallible>(Response::new(Body::from(text.await))) }
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
async fn a_hundred_tasks_that_ask_for_the_user_cause_one_lookup() {
    let (auth_layer, permits, lookups) = layer_with_permits();
    permits.add_permits(1);
    let text = response_of(&auth_layer, |auth| async move {
        let tasks: Vec<_> = (0..100).map(|_| tokio::spawn(name(auth.clone()))).collect();
        let mut names = Vec::new();
        for task in tasks {
            names.push(task.await.expect("no panic"));
        }
        names.dedup();
        names.join(" ")
    })
    .await;
    assert_eq!((text.as_str(), lookups.load(Ordering::SeqCst)), ("notch", 1));
}

#[tokio::test]
async fn if_the_task_that_looks_up_the_user_is_aborted_another_task_does() {
    let (auth_layer, permits, lookups) = layer_with_permits();
    let text = response_of(&auth_layer, |auth| {
        let permits = Arc::clone(&permits);
        async move {
            let first = tokio::spawn(name(auth.clone()));
            tokio::task::yield_now().await;
            let others: Vec<_> = (0..10).map(|_| tokio::spawn(name(auth.clone()))).collect();
            tokio::task::yield_now().await;
            first.abort();
            permits.add_permits(1);
            for other in others {
                assert_eq!(other.await.expect("no panic"), "notch");
            }
            name(auth).await
        }
    })
    .await;
    assert_eq!((text.as_str(), lookups.load(Ordering::SeqCst)), ("notch", 2));
}

#[tokio::test]
async fn a_login_during_a_lookup_decides_what_the_lookup_returns() {
    let (auth_layer, permits, _) = layer_with_permits();
    let text = response_of(&auth_layer, |auth| {
        let permits = Arc::clone(&permits);
        async move {
            let lookup = tokio::spawn(name(auth.clone()));
            tokio::task::yield_now().await;
            auth.log_in(account("steve")).await.expect("a login");
            permits.add_permits(1);
            assert_eq!(lookup.await.expect("no panic"), "steve");
            name(auth).await
        }
    })
    .await;
    assert_eq!(text, "steve");
}
