//! Guards, areas, extractors, store failures, and what happens when something is wired wrongly.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::client::ClientAddr;
use tower_keep::event::Event;
use tower_keep::guard::Rejection;
use tower_keep::store::{StoreError, StoreErrorKind};
use tower_keep::{Account, AuthSession, Keys, LoginLayer, user_loader};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::client::Client;
use tower_keep_tests::{KEY, Site, Watched, account};

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
async fn user_tests_answer_403_and_never_redirect() {
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
async fn extractors_refuse_as_guards_do() {
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

// With server-side sessions, `faults.rs` tests every call of the store.
#[tokio::test]
async fn a_store_fault_is_503_and_loses_nothing() {
    let site = Site::start_with(|builder| builder.with_login_page("/login").expect("a page")).await;
    let logged_in = site.logged_in("user=notch&remember=1").await;
    let mut closed = logged_in.clone();
    closed.close_browser();
    site.store.set_down(true);
    for mut browser in [logged_in, closed] {
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
    // The store is not asked if no cookie names a user.
    assert_eq!(site.browser().get("/secret").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_loaders_fault_is_503_too() {
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
async fn loaders_are_asked_in_order_after_the_cookies_and_only_the_first_user_counts() {
    use tower_keep::loader::{ApiKey, Basic, Bearer};
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let asked = Arc::clone(&asked);
        move || asked.lock().unwrap().push(name)
    };
    let (bearer, basic, key) = (note("bearer"), note("basic"), note("key"));
    let site = Site::start_with(|builder| {
        builder
            .with_request_loader(Bearer::new(move |name: String| {
                bearer();
                async move { Ok((name != "unknown").then(|| Arc::new(account(&name)))) }
            }))
            .with_request_loader(Basic::new(move |name: String, password: String| {
                basic();
                async move { Ok((password == "p").then(|| Arc::new(account(&name)))) }
            }))
            .with_request_loader(ApiKey::new("x-api-key".parse().unwrap(), move |name: String| {
                key();
                async move { Ok(Some(Arc::new(account(&name)))) }
            }))
    })
    .await;
    let api_key = || "x-api-key".parse().unwrap();
    for (authorization, key, who, expected) in [
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
        assert_eq!(response.text(), who, "{authorization}");
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), expected);
        assert!(response.set_cookies().is_empty());
    }
    let mut browser = site.logged_in("user=notch").await;
    browser.set_header(http::header::AUTHORIZATION, "Bearer steve");
    let response = browser.get("/username").await;
    assert_eq!(response.text(), "notch");
    assert_eq!(response.header("vary"), "Cookie");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_without_its_layer_answers_500_and_never_lets_through() {
    let auth_layer = layer("");
    for service in [auth_layer.require_login(), !auth_layer.require_login()] {
        let response = service.layer(service_fn(page)).oneshot(Request::default()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    // There is a layer around the guard, but another one.
    let other = layer("other");
    let service = other.layer(auth_layer.require_login().layer(service_fn(page)));
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
async fn areas_stack_and_each_guard_finds_its_own_login() {
    let (site, admin) = (layer(""), layer("admin"));
    let both = site.require_login().layer(admin.require_login().layer(service_fn(page)));
    let stacked = site.layer(admin.layer(both));
    let mut client = Client::new(stacked);
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
    client.log_in(&site, account("notch")).await.unwrap();
    assert_eq!(client.get("/").await.status, StatusCode::UNAUTHORIZED);
    client.log_in(&admin, account("steve")).await.unwrap();
    assert_eq!(client.jar.names(), ["__Host-Http-keep", "__Host-Http-keep-admin"]);
    assert_eq!(client.get("/").await.text(), "page for steve");
}

#[tokio::test]
async fn the_same_layer_twice_is_one_layer() {
    let auth_layer = layer("");
    let accessed = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&accessed);
    let find = |_| async { Ok(Some(Arc::new(account("notch")))) };
    let auth_once = LoginLayer::builder(user_loader(find), Keys::new(KEY))
        .with_listener(move |event: &Event<Account>| {
            *counted.lock().unwrap() += usize::from(matches!(event, Event::Accessed));
        })
        .build()
        .unwrap();
    let twice = auth_once.layer(auth_once.layer(auth_once.require_login().layer(service_fn(page))));
    let mut client = Client::new(twice);
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!(
        (response.text().as_str(), response.header("vary").as_str()),
        ("page for notch", "Cookie")
    );
    assert_eq!(*accessed.lock().unwrap(), 1);
}

#[tokio::test]
async fn why_somebody_was_refused_is_in_the_extensions() {
    let auth_layer = layer("");
    let service = auth_layer.layer(auth_layer.require_fresh().layer(service_fn(page)));
    let mut client = Client::new(service);
    let rejection = |response: &tower_keep_testkit::client::TestResponse| {
        response.extensions.get::<Rejection>().copied()
    };
    assert_eq!(rejection(&client.get("/").await), Some(Rejection::Unauthenticated));
    client.log_in_not_fresh(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(rejection(&client.get("/").await), Some(Rejection::NotFresh));
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    assert_eq!(rejection(&client.get("/").await), None);
}

#[tokio::test]
async fn a_handler_may_build_any_answer_for_the_layer_or_for_one_guard() {
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
    let own = auth_layer.require_login().with_rejection_handler(|context| {
        assert!(context.user().is_none());
        Response::new(Bytes::from(format!("{:?}", context.rejection())))
    });
    let pages = builder().with_login_page("/login").expect("a page").build().unwrap();
    let elsewhere = pages.require_login().with_login_page("/admin/login").expect("a page");
    assert!(pages.require_login().with_login_page("admin").is_err());
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
        (auth_layer.layer(own.layer(service_fn(page))), "/", 200, "Unauthenticated", ""),
        (
            pages.layer(elsewhere.layer(service_fn(page))),
            "/x",
            303,
            "See Other",
            "/admin/login?next=%2Fx",
        ),
        (
            pages.layer(elsewhere.layer(service_fn(page))),
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
    let ask = async |auth_layer: LoginLayer<Account>| {
        let service = auth_layer.layer(service_fn(|request: Request<String>| async move {
            let auth = request.extensions().get::<AuthSession<Account>>().cloned().unwrap();
            let user = auth.user_or_anonymous().await.unwrap();
            let name = user.map(|user| user.login_name().to_owned());
            Ok::<_, Infallible>(Response::new(name.unwrap_or_default()))
        }));
        Client::new(service).get("/").await.text()
    };
    let builder = || LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY));
    assert_eq!(ask(builder().build().unwrap()).await, "");
    let guest = || Arc::new(Account::new("guest", "guest", ""));
    assert_eq!(ask(builder().with_anonymous_user(guest).build().unwrap()).await, "guest");
}

#[tokio::test]
async fn the_layer_waits_until_the_inner_service_is_ready_and_calls_that_very_one() {
    let auth_layer = layer("");
    let (mock, mut handle) = tower_test::mock::pair::<Request<()>, Response<Full<Bytes>>>();
    let mut service = auth_layer.layer((!auth_layer.require_login()).layer(mock));
    handle.allow(0);
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), service.ready()).await;
    assert!(waiting.is_err());
    handle.allow(1);
    let response = service.ready().await.unwrap().call(Request::new(()));
    let answered = async {
        let (_, respond) = handle.next_request().await.unwrap();
        respond.send_response(Response::new(Full::from("ok")));
    };
    let (response, ()) = tokio::join!(response, answered);
    let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_and_ends_the_handle() {
    let auth_layer = layer("");
    let kept: Arc<Mutex<Option<AuthSession<Account>>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let failing = service_fn(move |request: Request<()>| {
        *keep.lock().unwrap() = request.extensions().get::<AuthSession<Account>>().cloned();
        async { Err::<Response<Full<Bytes>>, _>("broken") }
    });
    let error = auth_layer.layer(failing).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error, "broken");
    let auth = kept.lock().unwrap().take().unwrap();
    assert!(auth.log_in(account("notch")).await.is_err());
}

#[tokio::test]
async fn a_dropped_request_ends_the_handle() {
    let auth_layer = layer("");
    let kept: Arc<Mutex<Option<AuthSession<Account>>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let slow = service_fn(move |request: Request<()>| {
        *keep.lock().unwrap() = request.extensions().get::<AuthSession<Account>>().cloned();
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    drop(auth_layer.layer(slow).call(Request::new(())));
    let auth = kept.lock().unwrap().take().unwrap();
    assert!(auth.log_in(account("notch")).await.is_err());
}

#[tokio::test]
async fn the_address_comes_from_our_extension_without_a_framework() {
    let auth_layer = LoginLayer::builder(MemoryStore::<Account>::new(), Keys::new(KEY))
        .with_session_protection(tower_keep::client::SessionProtection::Strong)
        .build()
        .unwrap();
    let seen = Arc::new(Mutex::new(None));
    let see = Arc::clone(&seen);
    let service = auth_layer.layer(service_fn(move |request: Request<String>| {
        *see.lock().unwrap() = request.extensions().get::<ClientAddr>().copied();
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    }));
    let mut client = Client::new(service);
    client.set_address("192.0.2.9".parse().unwrap());
    client.get("/").await;
    assert_eq!(*seen.lock().unwrap(), Some(ClientAddr("192.0.2.9".parse().unwrap())));
}

#[tokio::test]
async fn guards_can_be_joined_within_one_layer() {
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
async fn a_guard_joined_of_two_layers_lets_nobody_through() {
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
async fn a_layer_is_found_through_those_inside_of_it() {
    let (site, admin) = (layer(""), layer("admin"));
    let guarded = site.require_login().layer(service_fn(page));
    // The layers are `site`, `admin`, and `site` once more: there is still one login of each.
    let mut client = Client::new(site.layer(admin.layer(site.layer(guarded))));
    client.log_in(&site, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "page for "));
    assert_eq!(response.header("vary"), "Cookie");
}

#[tokio::test]
async fn a_refusal_handler_sees_the_path_that_the_client_asked_for() {
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
async fn a_fault_uses_up_no_notice_and_no_next() {
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
        if request.uri().path() == "/leave" {
            auth.flash("message", "kept").unwrap();
            return Ok::<_, Infallible>(Response::new(Full::from("left")));
        }
        let flash = auth.take_flash().map(|flash| flash.to_string()).unwrap_or_default();
        let known = auth.user().await;
        Ok(known.map_or_else(
            |fault| fault.response().map(Full::new),
            |_| Response::new(Full::from(flash)),
        ))
    }));
    let mut client = Client::new(service);
    client.get("/leave").await;
    let anonymous = client.jar.clone();
    client.log_in(&auth_layer, account("notch")).await.unwrap();
    let response = client.get("/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.set_cookies().is_empty());
    client.jar = anonymous;
    assert_eq!(client.get("/").await.text(), "kept");
}

#[tokio::test]
async fn an_axum_router_is_a_service_for_the_test_client() {
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
async fn who_is_not_fresh_is_asked_for_no_password_by_the_browser_itself() {
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
        (StatusCode::UNAUTHORIZED, "")
    );
}

#[tokio::test]
async fn a_layer_inside_of_a_nested_router_still_sends_people_back_to_the_whole_path() {
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
