//! The reasons why a request gets no normal response, and the site that responds.

use http::StatusCode;
use tower_keep_tests::{Builder, Site, WatchedStoreExt};

/// Why a request gets no normal response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Case {
    NotLoggedIn,
    NotFresh,
    Forbidden,
    StoreFailed,
}

pub(crate) const CASES: [Case; 4] =
    [Case::NotLoggedIn, Case::NotFresh, Case::Forbidden, Case::StoreFailed];

impl Case {
    /// Returns the paths of the site that respond in this case: behind a guard, with an extractor,
    /// and with an error that the handler returns.
    pub(crate) fn paths(self) -> &'static [&'static str] {
        match self {
            Self::NotLoggedIn => &["/secret", "/extracted", "/nested/secret"],
            Self::NotFresh => &["/recent", "/extracted-recent"],
            Self::Forbidden => &["/notch-only", "/extracted-notch"],
            Self::StoreFailed => &["/secret", "/extracted", "/username"],
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotLoggedIn | Self::NotFresh => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the path of the page that a browser is redirected to.
    pub(crate) fn page(self) -> Option<&'static str> {
        match self {
            Self::NotLoggedIn => Some("/login"),
            Self::NotFresh => Some("/confirm"),
            Self::Forbidden | Self::StoreFailed => None,
        }
    }

    /// Returns the type of the problem.
    pub(crate) fn problem(self) -> &'static str {
        match self {
            Self::NotLoggedIn => tower_keep::problem::LOGIN_REQUIRED,
            Self::NotFresh => tower_keep::problem::LOGIN_NOT_FRESH,
            Self::Forbidden => tower_keep::problem::FORBIDDEN,
            Self::StoreFailed => tower_keep::problem::UNAVAILABLE,
        }
    }
}

/// Starts a site with a login page and a confirm page.
pub(crate) async fn start_site() -> Site {
    start_site_with(|builder| builder).await
}

pub(crate) async fn start_site_with(configure: impl FnOnce(Builder) -> Builder) -> Site {
    Site::start_with(|builder| {
        let builder = builder.with_login_page("/login").expect("a page");
        configure(builder.with_confirm_page("/confirm").expect("a page"))
    })
    .await
}

/// Returns the cookies of a client in this case, and lets the store fail in the last case.
pub(crate) async fn begin(case: Case, site: &Site) -> String {
    let query = match case {
        Case::NotLoggedIn => return String::new(),
        Case::NotFresh => "user=notch&fresh=0",
        Case::Forbidden | Case::StoreFailed => "user=steve",
    };
    let cookies = cookies_after_login(site, query).await;
    site.store.set_down(case == Case::StoreFailed);
    cookies
}

/// Ends what [`begin`] has begun.
pub(crate) fn finish(site: &Site) {
    site.store.set_down(false);
}

/// Returns the cookies of a browser that has logged in with this query of `/login`.
pub(crate) async fn cookies_after_login(site: &Site, query: &str) -> String {
    let browser = site.logged_in(query).await;
    let jar = &browser.jar;
    let pair = |name: &&str| format!("{name}={}", jar.get(name).unwrap_or_default());
    jar.names().iter().map(pair).collect::<Vec<_>>().join("; ")
}
