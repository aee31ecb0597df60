//! nginx in front of a site, as a shared cache and as a proxy with default buffers. Two users and
//! an anonymous visitor send requests.

use std::net::SocketAddr;

use http::StatusCode;
use tower_keep_tests::{Browser, Http, Site};
use xtask::servers::Server;

struct SiteBehindNginx {
    site: Site,
    _nginx: Server,
    /// The address where nginx listens.
    address: SocketAddr,
}

impl SiteBehindNginx {
    async fn start() -> Self {
        let site = Site::start_with(|builder| {
            builder
                .with_login_page("/login")
                .expect("a page")
                .with_confirm_page("/confirm")
                .expect("a page")
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
