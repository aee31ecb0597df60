//! One look-up per request, however many ask, and whoever gives up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tower::service_fn;
use tower_keep::{Account, Keys, Login, LoginLayer, StoreError, UserId, user_loader};
use tower_keep_testkit::client::Client;
use tower_keep_tests::{KEY, account};

/// A layer over a store that answers once for each permit, and the count of what it was asked.
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
    let auth = LoginLayer::builder(user_loader(find), Keys::new(KEY)).build();
    (auth.expect("settings that agree"), gate, asked)
}

/// What a handler says that does this with its login.
async fn handled<F, Fut>(auth: &LoginLayer<Account>, handle: F) -> String
where
    F: Fn(Login<Account>) -> Fut + Clone,
    Fut: Future<Output = String>,
{
    let service = service_fn(move |request: Request<String>| {
        let login = request.extensions().get::<Login<Account>>().cloned();
        let handled = handle(login.expect("the layer is around this"));
        async move { Ok::<_, Infallible>(Response::new(Body::from(handled.await))) }
    });
    let mut client = Client::new(auth.layer(service));
    client.log_in(auth, account("notch")).await.expect("a login");
    client.get("/").await.text()
}

async fn name(login: Login<Account>) -> String {
    let user = login.user().await.expect("no fault");
    user.map(|user| user.login().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_hundred_askers_are_one_look_up() {
    let (auth, gate, asked) = gated();
    gate.add_permits(1);
    let said = handled(&auth, |login| async move {
        let askers: Vec<_> = (0..100).map(|_| tokio::spawn(name(login.clone()))).collect();
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
    let (auth, gate, asked) = gated();
    let said = handled(&auth, |login| {
        let gate = Arc::clone(&gate);
        async move {
            let first = tokio::spawn(name(login.clone()));
            tokio::task::yield_now().await;
            let others: Vec<_> = (0..10).map(|_| tokio::spawn(name(login.clone()))).collect();
            tokio::task::yield_now().await;
            first.abort();
            gate.add_permits(1);
            for other in others {
                assert_eq!(other.await.expect("no panic"), "notch");
            }
            name(login).await
        }
    })
    .await;
    assert_eq!((said.as_str(), asked.load(Ordering::SeqCst)), ("notch", 2));
}

#[tokio::test]
async fn a_login_while_somebody_still_asks_has_the_last_word() {
    let (auth, gate, _) = gated();
    let said = handled(&auth, |login| {
        let gate = Arc::clone(&gate);
        async move {
            let asker = tokio::spawn(name(login.clone()));
            tokio::task::yield_now().await;
            login.log_in(account("steve")).await.expect("a login");
            gate.add_permits(1);
            assert_eq!(asker.await.expect("no panic"), "steve");
            name(login).await
        }
    })
    .await;
    assert_eq!(said, "steve");
}
