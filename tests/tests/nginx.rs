//! nginx in front of a site, as a shared cache and as a proxy with default buffers. Two users and
//! an anonymous visitor send requests.

use std::net::SocketAddr;

use http::StatusCode;
use tower_keep_tests::{Browser, Builder, Http, Site, WatchedStoreExt};
use xtask::servers::Server;

struct SiteBehindNginx {
    site: Site,
    _nginx: Server,
    /// The address where nginx listens.
    address: SocketAddr,
}

impl SiteBehindNginx {
    async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    async fn start_with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let site = Site::start_with(|builder| {
            let builder = builder.with_login_page("/login").expect("a page");
            configure(builder.with_confirm_page("/confirm").expect("a page"))
        })
        .await;
        let nginx = Server::start_nginx(site.address).expect("nginx");
        let address = SocketAddr::from(([127, 0, 0, 1], nginx.port()));
        Self { site, _nginx: nginx, address }
    }

    fn browser(&self) -> Browser {
        Browser::new(Http::to(self.address)).with_clock(self.site.clock.clone())
    }

    async fn logged_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let response = browser.get(&format!("/login?user={user}")).await;
        assert_eq!((response.status, response.text().as_str()), (StatusCode::OK, "True"));
        browser
    }
}

/// Returns the text of a page, and whether nginx found it in its cache.
async fn get(browser: &mut Browser, path: &str) -> (String, bool) {
    let response = browser.get(path).await;
    assert_eq!(response.status, StatusCode::OK, "{path}: {}", response.text());
    (response.text(), response.header("x-cache") == "HIT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_cache_shows_no_response_that_was_made_for_another_user() {
    let proxied = SiteBehindNginx::start().await;
    let mut notch = proxied.logged_in("notch").await;
    let mut steve = proxied.logged_in("steve").await;
    let mut anonymous = proxied.browser();
    // In each round, another browser requests the pages first. If nginx cached a user's response,
    // the browsers that request the page later would get it.
    for round in 0..3 {
        for path in ["/username", "/cacheable", "/for-caches", "/streamed", "/asked-late"] {
            let path = format!("{path}?round={round}");
            for turn in 0..6 {
                match (round + turn) % 3 {
                    0 => assert_eq!(get(&mut notch, &path).await, ("notch".to_owned(), false)),
                    1 => assert_eq!(get(&mut steve, &path).await, ("steve".to_owned(), false)),
                    _ => assert_eq!(get(&mut anonymous, &path).await.0, "Anonymous", "{path}"),
                }
            }
        }
    }
    // nginx does cache: it may store the page of an anonymous visitor, for clients without our
    // cookies.
    for path in ["/cacheable?kept", "/for-caches?kept"] {
        assert_eq!(get(&mut anonymous, path).await, ("Anonymous".to_owned(), false));
        assert_eq!(get(&mut anonymous, path).await, ("Anonymous".to_owned(), true), "{path}");
        assert_eq!(get(&mut notch, path).await, ("notch".to_owned(), false));
    }
    assert_eq!(notch.get("/logout").await.status, StatusCode::OK);
    assert_eq!(get(&mut notch, "/cacheable?round=0").await.0, "Anonymous");
}

/// The status and the start of the responses that a client gets to `/secret` without a login, to a
/// page that is forbidden, and while the store fails.
type Expected = [(u16, &'static str); 3];

/// Returns clients of each kind, with their names.
fn clients(proxied: &SiteBehindNginx) -> Vec<(&'static str, Browser, Expected)> {
    let client = |headers: &[(&'static str, &str)]| {
        let mut client = proxied.browser();
        client.remove_header(http::header::ACCEPT);
        for (name, value) in headers {
            client.set_header(name.parse().expect("a name"), value);
        }
        client
    };
    let problem = [(401, "{\"status\":401"), (403, "{\"status\":403"), (503, "{\"status\":503")];
    let htmx = [(401, "<p>Log in"), (403, "<p>You are"), (503, "<p>This can't")];
    let page = [(303, "See Other"), (403, "<!doctype"), (503, "<!doctype")];
    vec![
        ("program", client(&[("accept", "*/*")]), problem),
        ("page", client(&[("accept", "text/html")]), page),
        ("navigation", client(&[("accept", "text/html"), ("sec-fetch-mode", "navigate")]), page),
        ("fetch", client(&[("accept", "text/html"), ("sec-fetch-mode", "cors")]), problem),
        ("htmx", client(&[("accept", "*/*"), ("hx-request", "true")]), htmx),
        ("EventSource", client(&[("accept", "text/event-stream")]), problem),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_cache_gives_no_client_the_response_for_another_kind() {
    let proxied = SiteBehindNginx::start().await;
    let steve = proxied.logged_in("steve").await;
    let notch = proxied.logged_in("notch").await;
    for case in 0..3 {
        let path = ["/secret", "/notch-only", "/secret"][case];
        let mut clients = clients(&proxied);
        proxied.site.store.set_down(case == 2);
        // In each round, another client asks first.
        for round in 0..clients.len() {
            clients.rotate_left(1);
            for (name, client, expected) in &mut clients {
                let mut client = client.clone();
                if case > 0 {
                    client.jar = steve.jar.clone();
                }
                let response = client.get(&format!("{path}?round={round}")).await;
                let (status, start) = expected[case];
                let text = response.text();
                assert_eq!(response.status.as_u16(), status, "{name}: {text}");
                assert!(text.starts_with(start), "{name}: {text}");
                assert_ne!(response.header("x-cache"), "HIT", "{name}");
            }
            if case < 2 {
                // Nor does a user whom the guard admits get what was sent to the others.
                let mut notch = notch.clone();
                let response = notch.get(&format!("{path}?round={round}")).await;
                assert_eq!(response.text(), "secret of notch");
            }
        }
        proxied.site.store.set_down(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_cache_gives_no_response_of_a_visitor_to_a_program_with_a_token() {
    let proxied =
        SiteBehindNginx::start_with(|builder| builder.with_sessions().with_bearer_sessions(true))
            .await;
    let program = async |user: &str| {
        let mut program = proxied.browser();
        let token = program.get(&format!("/token?user={user}")).await.text();
        program.set_header(http::header::AUTHORIZATION, &format!("Bearer {token}"));
        program
    };
    let (mut notch, mut steve) = (program("notch").await, program("steve").await);
    let mut visitor = proxied.browser();
    for round in 0..3 {
        for path in ["/cacheable", "/for-caches", "/username"] {
            let path = format!("{path}?round={round}");
            for turn in 0..6 {
                match (round + turn) % 3 {
                    0 => assert_eq!(get(&mut notch, &path).await, ("notch".to_owned(), false)),
                    1 => assert_eq!(get(&mut steve, &path).await, ("steve".to_owned(), false)),
                    _ => assert_eq!(get(&mut visitor, &path).await.0, "Anonymous", "{path}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_redirect_fits_into_the_default_buffers_of_nginx() {
    let proxied = SiteBehindNginx::start().await;
    let visitor = proxied.browser();
    let user = proxied.logged_in("notch&fresh=0").await;
    for (mut browser, path, page) in
        [(visitor, "/secret", "/login"), (user, "/sensitive", "/confirm")]
    {
        for length in [0, 300, 1_010, 1_900, 3_000, 6_000] {
            for piece in ["a", "=", "%C3%A4"] {
                let query = piece.repeat(length / piece.len());
                let response = browser.get(&format!("{path}?{query}")).await;
                assert_eq!(response.status, StatusCode::SEE_OTHER, "{length} of {piece}");
                assert!(response.location().starts_with(page), "{}", response.location());
            }
        }
    }
}
