//! Guards and extractors, areas (logins that are separate from each other), failures of the store,
//! and wrong wiring.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt, service_fn};
use tower_keep::client::ClientAddr;
use tower_keep::event::Event;
use tower_keep::guard::Rejection;
use tower_keep::store::{StoreError, StoreErrorKind};
use tower_keep::{
    Account, AuthSession, AuthUser, Keys, LoginLayer, UserId, UserRoles, user_loader,
};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::client::Client;
use tower_keep_tests::{KEY, Site, WatchedStoreExt, account};

fn layer(area: &str) -> LoginLayer<Account> {
    let find = |id: tower_keep::UserId| async move {
        let names = ["notch", "steve", "creeper", "sato"];
        let found = names.iter().map(|name| account(name)).find(|account| *account.id() == id);
        Ok(found.map(Arc::new))
    };
    LoginLayer::builder(user_loader(find), Keys::new(KEY))
        .with_area(area)
        .build()
        .expect("settings that agree")
}

/// Responds with the name of the user of the innermost layer.
async fn page(request: Request<String>) -> Result<Response<Full<Bytes>>, Infallible> {
    let auth = request.extensions().get::<AuthSession<Account>>().cloned();
    let user = match auth {
        Some(auth) => auth.user().await.expect("no store fails here"),
        None => None,
    };
    let name = user.map(|user| user.login_name().to_owned()).unwrap_or_default();
    Ok(Response::new(Full::from(format!("page for {name}"))))
}

#[tokio::test]
async fn a_user_who_fails_a_user_test_gets_403_and_no_redirect() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let mut steve = site.logged_in("user=steve").await;
    let response = steve.get("/notch-only").await;
    assert_eq!((response.status, response.location().as_str()), (StatusCode::FORBIDDEN, ""));
    assert_eq!(site.logged_in("user=notch").await.get("/notch-only").await.status, StatusCode::OK);
    assert_eq!(site.browser().get("/notch-only").await.location(), "/login?next=%2Fnotch-only");
    assert_eq!(steve.get("/visitors-only").await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.browser().get("/visitors-only").await.status, StatusCode::OK);
    assert_eq!(
        site.events.take(),
        [
            "logged_in steve",
            "forbidden steve",
            "logged_in notch",
            "unauthorized",
            "forbidden steve"
        ]
    );
}

#[tokio::test]
async fn extractors_reject_requests_as_guards_do() {
    let site = Site::start_with(|builder| {
        builder
            .with_login_page("/login")
            .expect("a page")
            .with_confirm_page("/confirm")
            .expect("a page")
    })
    .await;
    let mut nobody = site.browser();
    assert_eq!(nobody.get("/extracted").await.location(), "/login?next=%2Fextracted");
    let mut stale = site.logged_in("user=notch&fresh=0").await;
    assert_eq!(stale.get("/extracted").await.text(), "notch");
    assert_eq!(stale.get("/extracted-fresh").await.location(), "/confirm?next=%2Fextracted-fresh");
    stale.get("/confirm").await;
    assert_eq!(stale.get("/extracted-fresh").await.text(), "notch");
}

// `faults.rs` tests every call of the store with server-side sessions.
#[tokio::test]
async fn a_store_error_is_503_and_changes_no_cookie() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let logged_in = site.logged_in("user=notch&remember=1").await;
    let mut after_closing = logged_in.clone();
    after_closing.close_browser();
    site.store.set_down(true);
    for mut browser in [logged_in, after_closing] {
        let before = browser.jar.clone();
        for path in [
            "/username",
            "/secret",
            "/sensitive",
            "/recent",
            "/notch-only",
            "/visitors-only",
            "/extracted",
            "/extracted-fresh",
            "/is-fresh",
            "/logout",
            "/confirm",
            "/change-password",
        ] {
            let response = browser.get(path).await;
            assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(response.header("retry-after"), "1");
            assert!(response.set_cookies().is_empty(), "{path}");
        }
        assert_eq!(browser.get("/hello").await.status, StatusCode::OK);
        assert_eq!(before.names(), browser.jar.names());
        site.store.set_down(false);
        assert_eq!(browser.get("/secret").await.text(), "secret of notch");
        site.store.set_down(true);
    }
    // If no cookie names a user, no call of the store is made.
    assert_eq!(site.browser().get("/secret").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn an_error_of_a_request_loader_is_503() {
    let site = Site::start_with(|builder| {
        builder.with_request_loader(tower_keep::loader::Bearer::new(|_| async {
            Err::<Option<Arc<Account>>, _>(StoreError::new(StoreErrorKind::Timeout, "tokens"))
        }))
    })
    .await;
    let mut browser = site.browser();
    assert_eq!(browser.get("/secret").await.status, StatusCode::UNAUTHORIZED);
    browser.set_header(http::header::AUTHORIZATION, "Bearer t");
    assert_eq!(browser.get("/secret").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn loaders_are_called_in_order_after_the_cookies_until_one_returns_a_user() {
    use tower_keep::loader::{ApiKey, Basic, Bearer};
    let called = Arc::new(Mutex::new(Vec::new()));
    let record = |name: &'static str| {
        let called = Arc::clone(&called);
        move || called.lock().unwrap().push(name)
    };
    let (record_bearer, record_basic, record_key) =
        (record("bearer"), record("basic"), record("key"));
    let site = Site::start_with(|builder| {
        builder
            .with_request_loader(Bearer::new(move |name: String| {
                record_bearer();
                async move { Ok((name != "unknown").then(|| Arc::new(account(&name)))) }
            }))
            .with_request_loader(Basic::new(move |name: String, password: String| {
                record_basic();
                async move { Ok((password == "p").then(|| Arc::new(account(&name)))) }
            }))
            .with_request_loader(ApiKey::new("x-api-key".parse().unwrap(), move |name: String| {
                record_key();
                async move { Ok(Some(Arc::new(account(&name)))) }
            }))
    })
    .await;
    let api_key = || "x-api-key".parse().unwrap();
    for (authorization, key, user, expected_calls) in [
        ("Bearer notch", "steve", "notch", &["bearer"][..]),
        ("Bearer unknown", "steve", "steve", &["bearer", "key"]),
        ("Basic bm90Y2g6cA==", "steve", "notch", &["basic"]),
        ("Basic bm90Y2g6eA==", "steve", "steve", &["basic", "key"]),
        ("Bearer creeper", "steve", "Anonymous", &["bearer"]),
        ("", "sato", "sato", &["key"]),
    ] {
        let mut browser = site.browser();
        browser.set_header(http::header::AUTHORIZATION, authorization);
        browser.set_header(api_key(), key);
        let response = browser.get("/username").await;
        assert_eq!(response.text(), user, "{authorization}");
        assert_eq!(std::mem::take(&mut *called.lock().unwrap()), expected_calls);
        assert!(response.set_cookies().is_empty());
    }
    let mut browser = site.logged_in("user=notch").await;
    browser.set_header(http::header::AUTHORIZATION, "Bearer steve");
    let response = browser.get("/username").await;
    assert_eq!(response.text(), "notch");
    assert_eq!(response.header("vary"), "Cookie");
    assert!(called.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_or_extractor_without_its_layer_responds_with_500() {
    let auth_layer = layer("");
    for service in [auth_layer.require_login(), !auth_layer.require_login()] {
        let response = service.layer(service_fn(page)).oneshot(Request::default()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    // The layer around the guard is not the guard's own layer.
    let other_layer = layer("other");
    let service = other_layer.layer(auth_layer.require_login().layer(service_fn(page)));
    let response = service.oneshot(Request::default()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let router: axum::Router = axum::Router::new()
        .route("/a", axum::routing::get(|_: AuthSession<Account>| async { "never" }))
        .route("/b", axum::routing::get(|_: tower_keep::CurrentUser<Account>| async { "never" }));
    for path in ["/a", "/b"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn layers_of_two_areas_can_be_stacked_and_each_guard_uses_its_own_layer() {
    let (site, admin) = (layer(""), layer("admin"));
    let guarded_twice = site.require_login().layer(admin.require_login().layer(service_fn(page)));
    let stacked = site.layer(admin.layer(guarded_twice));
    let mut client = Client::new(stacked);
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
    client.log_in(&site, account("notch")).await.unwrap();
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
    client.log_in(&admin, account("steve")).await.unwrap();
    assert_eq!(client.jar.names(), ["__Host-Http-keep", "__Host-Http-keep-admin"]);
    assert_eq!(client.get("/").await.text(), "page for steve");
}

#[tokio::test]
async fn a_layer_that_is_applied_twice_counts_once() {
    let auth_layer = layer("");
    let accesses = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&accesses);
    let find = |_| async { Ok(Some(Arc::new(account("notch")))) };
    let counting_layer = LoginLayer::builder(user_loader(find), Keys::new(KEY))
        .with_listener(move |event: &Event<Account>| {
            *counter.lock().unwrap() += usize::from(matches!(event, Event::Accessed));
        })
        .build()
        .unwrap();
    let twice = counting_layer
        .layer(counting_layer.layer(counting_layer.require_login().layer(service_fn(page))));
    let mut client = Client::new(twice);
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!(
        (response.text().as_str(), response.header("vary").as_str()),
        ("page for notch", "Cookie")
    );
    assert_eq!(*accesses.lock().unwrap(), 1);
}

#[tokio::test]
async fn the_reason_of_a_rejection_is_in_the_response_extensions() {
    let auth_layer = layer("");
    let service = auth_layer.layer(auth_layer.require_fresh().layer(service_fn(page)));
    let mut client = Client::new(service);
    let rejection = |response: &tower_keep_testkit::client::TestResponse| {
        response.extensions.get::<Rejection>().copied()
    };
    assert_eq!(rejection(&client.get("/").await), Some(Rejection::Unauthenticated));
    client.log_in_not_fresh(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(rejection(&client.get("/").await), Some(Rejection::NotFresh { max_age: None }));
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(rejection(&client.get("/").await), None);
}

#[tokio::test]
async fn a_rejection_handler_of_the_layer_or_of_a_guard_builds_any_response() {
    let builder = || LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    let auth_layer = builder()
        .with_login_page("/login")
        .expect("a page")
        .with_rejection_handler(|context| {
            if context.request().uri.path() == "/default" {
                return context.default_response();
            }
            let mut response = Response::new(Bytes::from_static(b"layer says no"));
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            response
        })
        .build()
        .unwrap();
    let guard_with_handler = auth_layer.require_login().with_rejection_handler(|context| {
        assert!(context.user().is_none());
        Response::new(Bytes::from(format!("{:?}", context.rejection())))
    });
    let page_layer = builder().with_login_page("/login").expect("a page").build().unwrap();
    let guard_with_page =
        page_layer.require_login().with_login_page("/admin/login").expect("a page");
    assert!(page_layer.require_login().with_login_page("admin").is_err());
    for (service, path, status, text, location) in [
        (
            auth_layer.layer(auth_layer.require_login().layer(service_fn(page))),
            "/",
            418,
            "layer says no",
            "",
        ),
        (
            auth_layer.layer(auth_layer.require_login().layer(service_fn(page))),
            "/default",
            303,
            "See Other",
            "/login?next=%2Fdefault",
        ),
        (
            auth_layer.layer(guard_with_handler.layer(service_fn(page))),
            "/",
            200,
            "Unauthenticated",
            "",
        ),
        (
            page_layer.layer(guard_with_page.layer(service_fn(page))),
            "/x",
            303,
            "See Other",
            "/admin/login?next=%2Fx",
        ),
        (
            page_layer.layer(guard_with_page.layer(service_fn(page))),
            "/admin/login",
            303,
            "See Other",
            "/admin/login",
        ),
    ] {
        let response = Client::new(service).get(path).await;
        assert_eq!(
            (response.status.as_u16(), response.text().as_str(), response.location().as_str()),
            (status, text, location)
        );
    }
}

#[tokio::test]
async fn an_application_can_have_its_own_anonymous_user() {
    let name_of_anonymous = async |auth_layer: LoginLayer<Account>| {
        let service = auth_layer.layer(service_fn(|request: Request<String>| async move {
            let auth = request.extensions().get::<AuthSession<Account>>().cloned().unwrap();
            let user = auth.user_or_anonymous().await.unwrap();
            let name = user.map(|user| user.login_name().to_owned());
            Ok::<_, Infallible>(Response::new(name.unwrap_or_default()))
        }));
        Client::new(service).get("/").await.text()
    };
    let builder = || LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    assert_eq!(name_of_anonymous(builder().build().unwrap()).await, "");
    let guest = || Arc::new(Account::new("guest", "guest", ""));
    assert_eq!(
        name_of_anonymous(builder().with_anonymous_user(guest).build().unwrap()).await,
        "guest"
    );
}

#[tokio::test]
async fn the_layer_waits_until_the_inner_service_is_ready_and_calls_that_instance() {
    let auth_layer = layer("");
    let (mock, mut handle) = tower_test::mock::pair::<Request<()>, Response<Full<Bytes>>>();
    let mut service = auth_layer.layer((!auth_layer.require_login()).layer(mock));
    handle.allow(0);
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), service.ready()).await;
    assert!(waiting.is_err());
    handle.allow(1);
    let response = service.ready().await.unwrap().call(Request::new(()));
    let respond = async {
        let (_, sender) = handle.next_request().await.unwrap();
        sender.send_response(Response::new(Full::from("ok")));
    };
    let (response, ()) = tokio::join!(response, respond);
    let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn an_auth_session_cannot_log_in_after_the_inner_service_returned_an_error() {
    let auth_layer = layer("");
    let kept: Arc<Mutex<Option<AuthSession<Account>>>> = Arc::default();
    let keeper = Arc::clone(&kept);
    let failing = service_fn(move |request: Request<()>| {
        *keeper.lock().unwrap() = request.extensions().get::<AuthSession<Account>>().cloned();
        async { Err::<Response<Full<Bytes>>, _>("broken") }
    });
    let error = auth_layer.layer(failing).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error, "broken");
    let auth = kept.lock().unwrap().take().unwrap();
    assert!(auth.log_in(account("notch")).await.is_err());
}

#[tokio::test]
async fn an_auth_session_cannot_log_in_after_the_future_of_its_request_is_dropped() {
    let auth_layer = layer("");
    let kept: Arc<Mutex<Option<AuthSession<Account>>>> = Arc::default();
    let keeper = Arc::clone(&kept);
    let slow = service_fn(move |request: Request<()>| {
        *keeper.lock().unwrap() = request.extensions().get::<AuthSession<Account>>().cloned();
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    drop(auth_layer.layer(slow).call(Request::new(())));
    let auth = kept.lock().unwrap().take().unwrap();
    assert!(auth.log_in(account("notch")).await.is_err());
}

#[tokio::test]
async fn the_service_sees_the_address_in_the_client_addr_extension() {
    let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
        .with_session_protection(tower_keep::client::SessionProtection::Strong)
        .build()
        .unwrap();
    let seen = Arc::new(Mutex::new(None));
    let seen_by_service = Arc::clone(&seen);
    let service = auth_layer.layer(service_fn(move |request: Request<String>| {
        *seen_by_service.lock().unwrap() = request.extensions().get::<ClientAddr>().copied();
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    }));
    let mut client = Client::new(service);
    client.set_address("192.0.2.9".parse().unwrap());
    client.get("/").await;
    assert_eq!(*seen.lock().unwrap(), Some(ClientAddr("192.0.2.9".parse().unwrap())));
}

#[tokio::test]
async fn a_guard_can_ask_a_store_and_a_failed_store_is_never_no() {
    let auth_layer = layer("");
    let calls = Arc::new(AtomicUsize::new(0));
    let in_table = |name: &'static str| {
        let calls = Arc::clone(&calls);
        auth_layer.require_user_async(move |user: Arc<Account>| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move { Ok(user.login_name() == name) }
        })
    };
    let failing = || {
        auth_layer.require_user_async(|_| async {
            Err(StoreError::new(StoreErrorKind::Unavailable, "roles"))
        })
    };
    let is_notch = || auth_layer.require_user(|user| user.login_name() == "notch");
    for (guard, nobody, notch, steve, expected_calls) in [
        (in_table("notch"), 401, 200, 403, 2),
        (!in_table("notch"), 200, 403, 200, 2),
        (is_notch().and(in_table("notch")), 401, 200, 403, 1),
        (is_notch().or(in_table("steve")), 401, 200, 200, 1),
        (failing(), 401, 503, 503, 0),
        (!failing(), 200, 503, 503, 0),
        (is_notch().and(failing()), 401, 503, 403, 0),
        (failing().or(is_notch()), 401, 200, 503, 0),
    ] {
        let description = format!("{guard:?}");
        let mut client = Client::new(auth_layer.layer(guard.layer(service_fn(page))));
        assert_eq!(client.get("/").await.status.as_u16(), nobody, "{description}");
        for (name, expected) in [("notch", notch), ("steve", steve)] {
            client.log_in(&auth_layer, account(name)).await.unwrap();
            let response = client.get("/").await;
            assert_eq!(response.status.as_u16(), expected, "{name} at {description}");
            let is_unavailable = expected == 503;
            assert_eq!(response.header("retry-after") == "1", is_unavailable, "{description}");
        }
        assert_eq!(calls.swap(0, Ordering::Relaxed), expected_calls, "{description}");
    }
}

/// A user whose roles are in the user's name.
#[derive(Debug)]
struct Member(&'static str);

impl AuthUser for Member {
    fn id(&self) -> UserId {
        self.0.into()
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"")
    }
}

impl UserRoles for Member {
    type Role = String;

    fn has_role(&self, role: &String) -> bool {
        self.0.split('+').any(|own| own == role)
    }
}

#[tokio::test]
async fn a_guard_can_require_one_of_several_roles() {
    let find = |id: UserId| async move {
        let members = ["admin", "editor", "editor+admin", "reader"];
        let found = members.into_iter().find(|name| UserId::from(*name) == id);
        Ok(found.map(|name| Arc::new(Member(name))))
    };
    let auth_layer = LoginLayer::builder(user_loader(find), Keys::new(KEY)).build().unwrap();
    let nothing =
        || service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())));
    for (roles, admits) in [
        (&["admin"][..], &["admin", "editor+admin"][..]),
        (&["admin", "editor"], &["admin", "editor", "editor+admin"]),
        (&[], &[]),
    ] {
        let guard = auth_layer.require_any_role(roles.iter().copied());
        let mut client = Client::new(auth_layer.layer(guard.layer(nothing())));
        assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
        for name in ["admin", "editor", "editor+admin", "reader"] {
            client.log_in(&auth_layer, Member(name)).await.unwrap();
            let expected = if admits.contains(&name) { 200 } else { 403 };
            assert_eq!(client.get("/").await.status.as_u16(), expected, "{name} with {roles:?}");
        }
    }
}

#[tokio::test]
async fn a_guard_checks_a_request_inside_a_handler() {
    let (auth_layer, other_layer) = (layer(""), layer("other"));
    let guard = auth_layer.require_user(|user| user.login_name() == "notch");
    let guards = [
        guard.clone(),
        guard.with_rejection_handler(|context| {
            let path = context.request().uri.path().to_owned();
            Response::new(Bytes::from(format!("{:?} of {path}", context.rejection())))
        }),
        other_layer.require_login(),
    ];
    let handler = move |request: Request<String>| {
        let guards = guards.clone();
        async move {
            let head = request.into_parts().0;
            let index: usize = head.uri.path()[1..].parse().unwrap();
            Ok::<_, Infallible>(match guards[index].check(&head).await {
                Ok(()) => Response::new(Full::from("in")),
                Err(rejected) => rejected.response().map(Full::new),
            })
        }
    };
    let mut client = Client::new(auth_layer.layer(service_fn(handler)));
    assert_eq!(client.get("/0").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/1").await.text(), "Unauthenticated of /1");
    assert_eq!(client.get("/2").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    client.log_in(&auth_layer, account("steve")).await.unwrap();
    assert_eq!(client.get("/0").await.status, StatusCode::FORBIDDEN);
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    for path in ["/0", "/1"] {
        assert_eq!(client.get(path).await.text(), "in");
    }
}

#[tokio::test]
async fn an_optional_extractor_is_none_where_the_extractor_would_reject() {
    let site = Site::start().await;
    assert_eq!(site.browser().get("/maybe").await.text(), "yes no no no");
    let mut stale = site.logged_in("user=steve&fresh=0").await;
    assert_eq!(stale.get("/maybe").await.text(), "yes yes no no");
    let mut fresh = site.logged_in("user=steve").await;
    assert_eq!(fresh.get("/maybe").await.text(), "yes yes yes yes");
    assert_eq!(fresh.get("/extracted-recent").await.text(), "steve");
    site.advance(601);
    assert_eq!(fresh.get("/maybe").await.text(), "yes yes yes no");
    let response = fresh.get("/extracted-recent").await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert!(response.header("www-authenticate").ends_with("max_age=\"600\""));
    // A store that has failed is not "no user".
    site.store.set_down(true);
    assert_eq!(fresh.get("/maybe").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_optional_handle_is_none_outside_of_a_layer() {
    let handler = async |auth: Option<AuthSession<Account>>| auth.is_none().to_string();
    let router: axum::Router = axum::Router::new().route("/", axum::routing::get(handler));
    assert_eq!(Client::new(router).get("/").await.text(), "true");
}

#[tokio::test]
async fn an_extractor_of_the_application_rejects_as_guards_do() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    assert_eq!(
        site.browser().get("/extracted-notch").await.location(),
        "/login?next=%2Fextracted-notch"
    );
    let mut steve = site.logged_in("user=steve").await;
    let response = steve.get("/extracted-notch").await;
    assert_eq!(response.status, StatusCode::FORBIDDEN);
    assert!(response.text().contains("<h1>403 Forbidden</h1>"), "{}", response.text());
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(site.logged_in("user=notch").await.get("/extracted-notch").await.text(), "notch");
    assert_eq!(
        site.events.take().join(", "),
        "unauthorized, logged_in steve, forbidden steve, logged_in notch"
    );
}

#[tokio::test]
async fn guards_of_one_layer_can_be_joined() {
    let auth_layer = layer("");
    let is_notch = || auth_layer.require_user(|user| user.login_name() == "notch");
    for (guard, notch, stale_notch, steve) in [
        (is_notch().and(auth_layer.require_fresh()), 200, 401, 403),
        (is_notch().or(auth_layer.require_fresh()), 200, 200, 200),
        (auth_layer.require_login().and(!is_notch()), 403, 403, 200),
    ] {
        let service = auth_layer.layer(guard.layer(service_fn(page)));
        let mut client = Client::new(service);
        assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
        client.log_in(&auth_layer, account("notch")).await.unwrap();
        assert_eq!(client.get("/").await.status.as_u16(), notch);
        client.log_in_not_fresh(&auth_layer, account("notch")).await.unwrap();
        assert_eq!(client.get("/").await.status.as_u16(), stale_notch);
        client.log_in(&auth_layer, account("steve")).await.unwrap();
        assert_eq!(client.get("/").await.status.as_u16(), steve);
    }
}

#[tokio::test]
async fn a_guard_joined_from_two_layers_responds_with_500() {
    let (site, admin) = (layer(""), layer("admin"));
    let mixed = [
        site.require_login().and(admin.require_login()),
        site.require_login().or(admin.require_login()),
        !(!site.require_login()).and(admin.require_login()),
    ];
    for guard in mixed {
        let mut client = Client::new(site.layer(admin.layer(guard.layer(service_fn(page)))));
        client.log_in(&site, account("notch")).await.unwrap();
        client.log_in(&admin, account("notch")).await.unwrap();
        assert_eq!(client.get("/").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn a_guard_finds_its_layer_outside_of_the_layer_of_another_area() {
    let (site, admin) = (layer(""), layer("admin"));
    let guarded = site.require_login().layer(service_fn(page));
    // The layer of `site` is applied twice, which counts as once. So the innermost layer is that of
    // `admin`, and `page` sees no user. The guard finds the login of `site`.
    let mut client = Client::new(site.layer(admin.layer(site.layer(guarded))));
    client.log_in(&site, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "page for "));
    assert_eq!(response.header("vary"), "Cookie");
}

#[tokio::test]
async fn a_rejection_handler_sees_the_path_that_the_client_requested() {
    let site = Site::start_with(|builder| {
        builder.with_rejection_handler(|context| {
            Response::new(Bytes::from(context.request().uri.to_string()))
        })
    })
    .await;
    let mut browser = site.browser();
    for path in ["/nested/secret?a=b", "/nested/extracted?a=b", "/secret?a=b", "/extracted"] {
        assert_eq!(browser.get(path).await.text(), path);
    }
}

#[tokio::test]
async fn a_store_error_uses_up_neither_the_flash_message_nor_next() {
    let auth_layer = LoginLayer::builder(
        user_loader(|_| async {
            Err::<Option<Arc<Account>>, _>(StoreError::new(StoreErrorKind::Unavailable, "users"))
        }),
        Keys::new(KEY),
    )
    .with_login_page("/login")
    .expect("a page")
    .with_next_in_cookie(true)
    .build()
    .unwrap();
    let service = auth_layer.layer(service_fn(|request: Request<String>| async move {
        let auth = request.extensions().get::<AuthSession<Account>>().cloned().unwrap();
        if request.uri().path() == "/flash" {
            auth.flash("message", "kept").unwrap();
            return Ok::<_, Infallible>(Response::new(Body::from("set")));
        }
        let flash = auth.take_flash().map(|flash| flash.to_string()).unwrap_or_default();
        let user = auth.user().await;
        Ok(user.map_or_else(
            |error| error.response().map(Body::new),
            |_| Response::new(Body::from(flash)),
        ))
    }));
    let mut client = Client::new(service);
    client.get("/flash").await;
    let anonymous = client.jar.clone();
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.set_cookies().is_empty());
    client.jar = anonymous;
    assert_eq!(client.get("/").await.text(), "kept");
}

#[tokio::test]
async fn the_test_client_accepts_an_axum_router() {
    let auth_layer = layer("");
    let router: axum::Router = axum::Router::new().route(
        "/",
        axum::routing::get(|user: tower_keep::CurrentUser<Account>| async move {
            user.login_name().to_owned()
        }),
    );
    let mut client = Client::new(auth_layer.layer(router.clone()));
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(client.get("/").await.text(), "notch");
    // `Router::layer` works as well.
    let mut client = Client::new(router.layer(auth_layer.clone()));
    client.log_in(&auth_layer, account("steve")).await.unwrap();
    assert_eq!(client.get("/").await.text(), "steve");
}

#[tokio::test]
async fn a_rejection_of_a_login_that_is_not_fresh_has_the_challenge_of_a_session() {
    let auth_layer = LoginLayer::builder(
        user_loader(|_| async { Ok(Some(Arc::new(account("notch")))) }),
        Keys::new(KEY),
    )
    .with_request_loader(tower_keep::loader::Basic::new(|_, _| async { Ok(None) }))
    .build()
    .unwrap();
    let mut client =
        Client::new(auth_layer.layer(auth_layer.require_fresh().layer(service_fn(page))));
    assert_ne!(client.get("/").await.header("www-authenticate"), "");
    client.log_in_not_fresh(&auth_layer, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!(
        (response.status, response.header("www-authenticate").as_str()),
        (
            StatusCode::UNAUTHORIZED,
            r#"Session realm="site", error="insufficient_user_authentication""#
        )
    );
}

#[tokio::test]
async fn next_is_the_whole_path_even_if_the_layer_is_in_a_nested_router() {
    let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
        .with_login_page("/login")
        .expect("a page")
        .build()
        .unwrap();
    let inside: axum::Router = axum::Router::new()
        .route("/secret", axum::routing::get(|| async { "secret" }))
        .route_layer(auth_layer.require_login())
        .layer(auth_layer);
    let mut client = Client::new(axum::Router::<()>::new().nest("/app", inside));
    assert_eq!(
        client.get("/app/secret?a=b").await.location(),
        "/login?next=%2Fapp%2Fsecret%3Fa%3Db"
    );
}
