//! Chromium: navigations, scripts, and htmx 2 and 4. `browser.mjs` drives it.

use std::path::Path;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::{any, get};
use serde_json::{Value, json};
use tower_keep::{Account, LoginError};
use tower_keep_tests::{
    Site, WatchedStore, WatchedStoreExt, account, drive_chromium, npm_packages, serve,
};

use crate::cases::start_site;

type AuthSession = tower_keep::AuthSession<Account>;
type QueryFields = Query<std::collections::HashMap<String, String>>;

/// Returns the router of the pages that the browser opens.
fn router(site: &Site) -> Router {
    let auth_layer = &site.auth_layer;
    let ten_minutes = std::time::Duration::from_secs(600);
    let guarded =
        |path: &str, guard| Router::new().route(path, any(|| async { "in" })).route_layer(guard);
    Router::new()
        .route("/board", get(board))
        .route("/log-in", get(log_in))
        .route("/login", get(page_with_message))
        .route("/confirm", get(page_with_message))
        .route("/store", get(set_store))
        .route("/htmx2", get(|| script("htmx2")))
        .route("/htmx4", get(|| script("htmx4")))
        .with_state(site.store.clone())
        .merge(guarded("/secret", auth_layer.require_login()))
        .merge(guarded("/recent", auth_layer.require_fresh_within(ten_minutes)))
        .merge(guarded("/notch-only", auth_layer.require_user(|user| user.login_name() == "notch")))
}

async fn script(name: &'static str) -> ([(&'static str, &'static str); 1], String) {
    let path = npm_packages().join("node_modules").join(name).join("dist/htmx.min.js");
    let script = tokio::fs::read_to_string(&path).await.expect("htmx is installed");
    ([("content-type", "text/javascript")], script)
}

async fn board(Query(query): QueryFields) -> Html<String> {
    let (version, path) = (&query["htmx"], &query["path"]);
    Html(format!(
        "<!doctype html><script src=/{version}></script>
         <button data-test=button hx-get={path} hx-target='#target'>get</button>
         <form hx-post={path} hx-target='#target'><button data-test=form>post</button></form>
         <a href={path} hx-boost=true hx-target='#target' data-test='boosted link'>link</a>
         <div id=target>as before</div>"
    ))
}

async fn log_in(auth: AuthSession, Query(query): QueryFields) -> Result<&'static str, LoginError> {
    let is_fresh = query.get("fresh").is_none_or(|fresh| fresh != "0");
    auth.log_in(account(&query["user"])).with_fresh(is_fresh).await.map(|()| "in")
}

async fn page_with_message(auth: AuthSession) -> String {
    auth.take_flash().map(|flash| flash.text().to_owned()).unwrap_or_default()
}

async fn set_store(State(store): State<WatchedStore>, Query(query): QueryFields) {
    store.set_down(query["down"] == "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_with_htmx_2_and_4_gets_what_it_can_show() {
    let site = start_site().await;
    let serving = serve(site.auth_layer.layer(router(&site))).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser.mjs");
    let lines = drive_chromium(&script, &format!("http://{}", serving.address), "clients").await;
    let steps: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(steps.len(), 4 * (6 + 4 + 2));
    for step in steps {
        println!("{step}");
        check(&step);
    }
}

fn check(step: &Value) {
    let case = step["case"].as_str().expect("a case");
    let (path, page, status) = match case {
        "not logged in" => ("/secret", Some("/login"), 401),
        "not fresh" => ("/recent", Some("/confirm"), 401),
        "forbidden" => ("/notch-only", None, 403),
        _ => ("/secret", None, 503),
    };
    let encoded = |text: &str| {
        text.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D").replace('&', "%26")
    };
    match step["client"].as_str().expect("a client") {
        client @ ("htmx2" | "htmx4") => {
            assert_eq!(step["status"], status);
            let board = format!("/board?htmx={client}&path={path}");
            let is_boosted = step["element"] == "boosted link";
            let next = if is_boosted { path } else { &board };
            let url = match page {
                Some(page) => format!("{page}?next={}", encoded(next)),
                // htmx 4 shows an error in place of the page that the link leads to.
                None if is_boosted && client == "htmx4" => path.to_owned(),
                None => board.clone(),
            };
            assert_eq!(step["url"], url);
            // htmx 2 ignores the text of an error, and htmx 4 shows it.
            let text = match status {
                403 => "You are not allowed to do this.",
                503 => "This can't be done at the moment. Try again soon.",
                _ => "",
            };
            let expected = match (page, client) {
                (Some(_), _) => "",
                (None, "htmx2") => "as before",
                (None, _) => text,
            };
            assert_eq!(step["target"], expected);
        }
        "fetch" => {
            let outcome = match case {
                "not logged in" => "401 LOGIN_REQUIRED",
                "not fresh" => "401 LOGIN_NOT_FRESH 600",
                "forbidden" => "403 FORBIDDEN",
                _ => "503 UNAVAILABLE",
            };
            assert_eq!(step["outcome"], outcome);
        }
        "image" | "WebSocket" => assert_eq!(step["outcome"], "error"),
        "EventSource" => assert_eq!(step["outcome"], "error true"),
        "background" => {
            let expected =
                if page == Some("/login") { json!([]) } else { json!(["__Host-Http-keep"]) };
            assert_eq!(step["cookies"], expected);
        }
        "page" => {
            let url = page.map_or(path.to_owned(), |page| format!("{page}?next={}", encoded(path)));
            assert_eq!(step["url"], url);
            let (status, text) = match case {
                "not logged in" => (200, "Please log in to see this page."),
                "not fresh" => (200, "Please confirm that it is you."),
                "forbidden" => (403, "403 Forbidden"),
                _ => (503, "503 Service Unavailable"),
            };
            assert_eq!((&step["status"], &step["text"]), (&json!(status), &json!(text)));
        }
        other => panic!("{other}"),
    }
}
