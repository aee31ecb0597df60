//! A browser's cookies for one host.

use std::time::{Duration, SystemTime};

use cookie::Cookie;
use http::HeaderValue;

/// A browser's cookies for one host, by name and path (RFC 6265bis §5.7).
///
/// `Domain` and `Secure` are ignored, because there is only one host, and it may use plain HTTP.
/// `Expires` is ignored too: a cookie expires by its `Max-Age`.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    value: String,
    path: String,
    /// `None` if the cookie lives until the browser is closed.
    expires: Option<SystemTime>,
}

impl Jar {
    /// Returns the value of the cookie with this name. If there are several with different paths,
    /// returns the value of the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
    }

    /// Returns the names of all cookies, in the order in which they were received.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Inserts a cookie that is sent for every path and lives until the browser is closed.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.entries.push(Entry {
            name: name.to_owned(),
            value: value.to_owned(),
            path: "/".to_owned(),
            expires: None,
        });
    }

    /// Removes the cookies with this name.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }

    /// Makes the current cookies live until the browser is closed, whatever their `Max-Age` was. A
    /// thief can send copied cookies even after they have expired.
    pub fn ignore_expiry(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.expires = None);
    }

    /// Removes the cookies that live until the browser is closed.
    pub(super) fn close_browser(&mut self) {
        self.entries.retain(|entry| entry.expires.is_some());
    }

    /// Returns the `Cookie` header of a request for this path, or `None` if no cookie matches.
    pub(super) fn cookie_header(&self, path: &str, now: SystemTime) -> Option<HeaderValue> {
        let pairs: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.expires.is_none_or(|expires| now < expires))
            .filter(|entry| matches_path(path, &entry.path))
            .map(|entry| format!("{}={}", entry.name, entry.value))
            .collect();
        if pairs.is_empty() { None } else { HeaderValue::try_from(pairs.join("; ")).ok() }
    }

    /// Stores the cookie of a `Set-Cookie` header, or removes it if `Max-Age` is not positive.
    /// `path` is the path of the request.
    pub(super) fn receive(&mut self, set_cookie: &HeaderValue, path: &str, now: SystemTime) {
        let Some(cookie) = set_cookie.to_str().ok().and_then(|text| Cookie::parse(text).ok())
        else {
            return;
        };
        let default_path = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let path = cookie.path().unwrap_or(default_path);
        let path = if path.starts_with('/') { path } else { "/" };
        let position =
            self.entries.iter().position(|entry| entry.name == cookie.name() && entry.path == path);
        let max_age = cookie.max_age().map(|age| u64::try_from(age.whole_seconds()).unwrap_or(0));
        let expires = max_age.map(|seconds| now + Duration::from_secs(seconds));
        let entry = Entry {
            name: cookie.name().to_owned(),
            value: cookie.value().to_owned(),
            path: path.to_owned(),
            expires,
        };
        match (position, max_age) {
            (Some(index), Some(0)) => drop(self.entries.remove(index)),
            (Some(index), _) => self.entries[index] = entry,
            (None, Some(0)) => {}
            (None, _) => self.entries.push(entry),
        }
    }
}

/// Checks whether a request's path matches a cookie's path (RFC 6265bis §5.1.4).
fn matches_path(request_path: &str, cookie_path: &str) -> bool {
    match request_path.strip_prefix(cookie_path) {
        Some(rest) => rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_keeps_cookies_as_browsers_do() {
        let now = SystemTime::now();
        let mut jar = Jar::default();
        for set_cookie in ["a=1; Path=/", "b=2; Path=/app; Max-Age=60", "c=3", "a=4; Path=/"] {
            jar.receive(&HeaderValue::from_static(set_cookie), "/app/page", now);
        }
        let cookies_sent = |jar: &Jar, path, now| {
            jar.cookie_header(path, now).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(cookies_sent(&jar, "/app/page", now).as_deref(), Some("a=4; b=2; c=3"));
        assert_eq!(cookies_sent(&jar, "/apps", now).as_deref(), Some("a=4"));
        let later = now + Duration::from_secs(60);
        assert_eq!(cookies_sent(&jar, "/app", later).as_deref(), Some("a=4; c=3"));
        jar.receive(&HeaderValue::from_static("a=; Path=/; Max-Age=0"), "/", now);
        assert_eq!(jar.names(), ["b", "c"]);
        jar.close_browser();
        assert_eq!(jar.names(), ["b"]);
    }
}
