//! A browser that knows what each response must be.

use std::time::Duration;

use http::{Method, StatusCode};

use super::site::PASSWORD;
use crate::{Browser, Http};

/// What is known about a browser's login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// This user is logged in.
    LoggedIn(String),
    /// Nobody is logged in.
    LoggedOut,
    /// A request has failed, so that it is not known whether it took effect: one of these is true.
    Either(Box<Known>, Box<Known>),
}

impl Known {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::LoggedIn(user) => user == name,
            Self::LoggedOut => name == "nobody",
            Self::Either(one, other) => one.allows(name) || other.allows(name),
        }
    }
}

/// A browser, and what must be true of its login.
///
/// A response that says that the server has failed (503), or no response within the time-out,
/// proves nothing. Every other response must agree with what is known.
pub struct Oracle {
    browser: Browser,
    timeout: Duration,
    /// What is known.
    pub known: Known,
    /// How many requests have failed.
    pub failures: usize,
}

impl Oracle {
    /// Creates an oracle for a browser in which nobody is logged in.
    pub fn new(browser: Browser, timeout: Duration) -> Self {
        Self { browser, timeout, known: Known::LoggedOut, failures: 0 }
    }

    /// Sends the next requests to other nodes, with the same cookies.
    pub fn move_to(&mut self, http: Http) {
        let jar = std::mem::take(&mut self.browser.jar);
        self.browser = Browser::new(http);
        self.browser.jar = jar;
    }

    /// Sends a form with POST, or a GET if there is no form. Returns the status and the text, or
    /// `None` if the request has failed.
    async fn send(
        &mut self,
        path: &str,
        form: Option<&[(&str, &str)]>,
    ) -> Option<(StatusCode, String)> {
        let request = async {
            match form {
                Some(form) => self.browser.try_post(path, form).await,
                None => self.browser.try_send(Method::GET, path, String::new()).await,
            }
        };
        let response = tokio::time::timeout(self.timeout, request).await;
        let response = response.ok().and_then(Result::ok);
        let response = response.map(|response| (response.status, response.text()));
        let response = response.filter(|(status, _)| *status != StatusCode::SERVICE_UNAVAILABLE);
        self.failures += usize::from(response.is_none());
        response
    }

    fn may_be(&mut self, other: Known) {
        if self.known != other {
            let before = std::mem::replace(&mut self.known, Known::LoggedOut);
            self.known = Known::Either(Box::new(before), Box::new(other));
        }
    }

    /// Logs in with the right password. A refusal, because of the wrong passwords of others,
    /// changes nothing.
    pub async fn log_in(&mut self, user: &str) {
        let form = [("login", user), ("password", PASSWORD)];
        match self.send("/sign-in", Some(&form)).await {
            None => self.may_be(Known::LoggedIn(user.to_owned())),
            Some((StatusCode::OK, _)) => self.known = Known::LoggedIn(user.to_owned()),
            Some((StatusCode::TOO_MANY_REQUESTS, _)) => {}
            Some(other) => panic!("{user} logs in with the right password: {other:?}"),
        }
    }

    /// Logs out.
    pub async fn log_out(&mut self) {
        match self.send("/log-out", Some(&[])).await {
            None => self.may_be(Known::LoggedOut),
            Some((StatusCode::OK, _)) => self.known = Known::LoggedOut,
            Some(other) => panic!("logging out: {other:?}"),
        }
    }

    /// Asks who is logged in, and checks the response.
    pub async fn check(&mut self) {
        let Some((status, name)) = self.send("/name", None).await else { return };
        assert_eq!(status, StatusCode::OK);
        assert!(self.known.allows(&name), "{name:?} is logged in, but {:?}", self.known);
        self.known = match name.as_str() {
            "nobody" => Known::LoggedOut,
            _ => Known::LoggedIn(name),
        };
    }
}

/// Does not show the cookies.
impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle")
            .field("known", &self.known)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
