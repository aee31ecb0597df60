//! The `Set-Cookie` header, and the settings that it is made from.

use std::fmt::Write;

use http::HeaderValue;

/// How a cookie is set: its name and its attributes.
///
/// The defaults are the strictest that work for a login: `Secure`, `HttpOnly`, `SameSite=Lax`,
/// `Path=/`, no `Domain`, and a `__Host-Http-` name. Browsers accept such a name only over HTTPS,
/// from this host and for the whole host. Each method that weakens the defaults has a name that
/// says so. Settings that contradict each other are an error when the layer is built.
///
/// ```
/// use tower_keep::cookie::{CookieSettings, SameSite};
///
/// let shop = CookieSettings::new().with_name("__Host-Http-shop").with_same_site(SameSite::Strict);
/// let site = CookieSettings::new().with_domain_and_subdomains("example.org");
/// # let _ = (shop, site);
/// ```
///
/// Source: RFC 6265bis §4.1 and, for `Partitioned`, the CHIPS specification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CookieSettings {
    name: Option<String>,
    domain: Option<String>,
    path: String,
    /// `None` means `SameSite=None`: the cookie is also sent with cross-site requests.
    same_site: Option<SameSite>,
    secure: bool,
    http_only: bool,
    partitioned: bool,
}

/// Whether browsers send a cookie with requests that other sites cause (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Never, not even if the user follows a link to this site. A user who follows a link arrives
    /// logged out.
    Strict,
    /// Only if the user follows a link, not for forms, images or scripts of other sites.
    #[default]
    Lax,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl CookieSettings {
    /// Creates settings with the strict defaults.
    pub fn new() -> Self {
        Self {
            name: None,
            domain: None,
            path: "/".into(),
            same_site: Some(SameSite::Lax),
            secure: true,
            http_only: true,
            partitioned: false,
        }
    }

    /// Sets the whole name. By default, the name consists of the strongest prefix that the
    /// attributes allow (`__Host-Http-`, `__Host-`, `__Secure-`, or none), `keep`, the
    /// [area](crate::LoginLayerBuilder::with_area) and the purpose: `__Host-Http-keep`,
    /// `__Host-Http-keep-remember`.
    ///
    /// A browser that knows `__Host-Http-` accepts such a cookie only from a response, never from a
    /// script (MDN, `Set-Cookie`, cookie prefixes). Other browsers treat the name as `__Host-`.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the path below which browsers send the cookie; `/` by default. A path other than `/`
    /// excludes the `__Host-` prefix. A path does not protect applications on one host from each
    /// other.
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends the cookie to this domain *and every host below it*. Each of these hosts can then read
    /// the cookie, and set it too. A domain excludes the `__Host-` prefix.
    pub fn with_domain_and_subdomains(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets the `SameSite` attribute; `Lax` by default.
    pub fn with_same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// Keeps a separate cookie for each site that embeds this one (`Partitioned`).
    pub fn with_partitioned(mut self) -> Self {
        self.partitioned = true;
        self
    }

    /// Omits `Secure`, so the cookie is also sent over plain HTTP, where anyone on the network path
    /// can read it. This is not needed on `localhost`: browsers and curl accept `Secure` cookies
    /// there (Safari does not).
    pub fn insecure_over_http(mut self) -> Self {
        self.secure = false;
        self
    }

    /// Omits `HttpOnly`, so scripts can read the cookie. This includes injected scripts.
    pub fn insecure_readable_by_scripts(mut self) -> Self {
        self.http_only = false;
        self
    }

    /// Sends the cookie with requests that any other site causes (`SameSite=None`). The
    /// application then needs its own protection against cross-site request forgery.
    pub fn insecure_cross_site(mut self) -> Self {
        self.same_site = None;
        self
    }

    fn prefix(&self) -> &'static str {
        match (self.secure, self.allows_host_prefix(), self.http_only) {
            (true, true, true) => "__Host-Http-",
            (true, true, false) => "__Host-",
            (true, false, _) => "__Secure-",
            (false, ..) => "",
        }
    }

    /// Checks whether browsers send the cookie to the whole host that set it, and to no other host.
    fn allows_host_prefix(&self) -> bool {
        self.domain.is_none() && self.path == "/"
    }

    /// Chooses the name and checks that the settings agree.
    pub(crate) fn resolve(&self, area: &str, purpose: &str) -> Result<CookieTemplate, CookieError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let words = ["keep", area, purpose].into_iter().filter(|word| !word.is_empty());
                self.prefix().to_owned() + &words.collect::<Vec<_>>().join("-")
            }
        };
        self.check(&name)?;
        Ok(CookieTemplate::new(self, name))
    }

    fn check(&self, name: &str) -> Result<(), CookieError> {
        let name = name.to_owned();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(CookieError::Name { name });
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(is_attribute_byte) {
            return Err(CookieError::Path { path: self.path.clone() });
        }
        if let Some(domain) = &self.domain {
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if domain.is_empty() || domain.starts_with('.') || !domain.bytes().all(is_host) {
                return Err(CookieError::Domain { domain: domain.clone() });
            }
        }
        // Browsers compare the prefixes without regard to case (RFC 6265bis §4.1.3).
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("__host-") && !(self.secure && self.allows_host_prefix()) {
            return Err(CookieError::HostPrefix { name });
        }
        let is_http = lower.starts_with("__host-http-") || lower.starts_with("__http-");
        if is_http && !self.http_only {
            return Err(CookieError::HttpPrefix { name });
        }
        if (lower.starts_with("__secure-") || is_http) && !self.secure {
            return Err(CookieError::SecurePrefix { name });
        }
        if self.same_site.is_none() && !self.secure {
            return Err(CookieError::CrossSiteNeedsSecure { name });
        }
        if self.partitioned && !self.secure {
            return Err(CookieError::PartitionedNeedsSecure { name });
        }
        Ok(())
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_attribute_byte(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E) && byte != b';'
}

/// A cookie's settings are invalid or contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields hold the settings that the messages quote")]
pub enum CookieError {
    /// The name is empty or has characters that a cookie's name can't have (RFC 9110 §5.6.2).
    #[error(
        "the cookie name {name:?} is empty or has characters that cookie names can't have: use \
         letters, digits, `-` and `_`"
    )]
    Name { name: String },
    /// The path does not begin with `/`, or contains a `;` or bytes that are not printable ASCII.
    #[error("the cookie path {path:?} must begin with `/` and be printable ASCII without `;`")]
    Path { path: String },
    /// The domain is not a host name.
    #[error("the cookie domain {domain:?} is not a host name: write it as `example.org`")]
    Domain { domain: String },
    /// Browsers drop a `__Host-` cookie that is not `Secure`, has a `Domain`, or has a path other
    /// than `/`.
    #[error(
        "a cookie named {name:?} must have Secure, Path=/ and no Domain: remove the prefix or the \
         setting that conflicts with it"
    )]
    HostPrefix { name: String },
    /// Browsers that know the prefixes `__Http-` and `__Host-Http-` drop such a cookie if it is not
    /// `HttpOnly`.
    #[error(
        "a cookie named {name:?} must have HttpOnly: remove the prefix or \
         `insecure_readable_by_scripts`"
    )]
    HttpPrefix { name: String },
    /// Browsers drop a `__Secure-` or `__Http-` cookie that is not `Secure`.
    #[error("a cookie named {name:?} must have Secure: remove the prefix or `insecure_over_http`")]
    SecurePrefix { name: String },
    /// Browsers drop a cookie with `SameSite=None` that is not `Secure`.
    #[error(
        "the cookie {name:?} has SameSite=None, which browsers accept only with Secure: remove \
         `insecure_over_http` or `insecure_cross_site`"
    )]
    CrossSiteNeedsSecure { name: String },
    /// Browsers drop a partitioned cookie that is not `Secure`.
    #[error(
        "the cookie {name:?} is Partitioned, which browsers accept only with Secure: remove \
         `insecure_over_http` or `with_partitioned`"
    )]
    PartitionedNeedsSecure { name: String },
}

/// A cookie's name and attributes, ready for `Set-Cookie`.
#[derive(Clone, Debug)]
pub(crate) struct CookieTemplate {
    name: String,
    path: String,
    /// Everything after the value and `Max-Age`.
    attributes: String,
}

impl CookieTemplate {
    fn new(settings: &CookieSettings, name: String) -> Self {
        let mut attributes = format!("; Path={}", settings.path);
        if let Some(domain) = &settings.domain {
            attributes += "; Domain=";
            attributes += domain;
        }
        if settings.secure {
            attributes += "; Secure";
        }
        if settings.http_only {
            attributes += "; HttpOnly";
        }
        attributes += match settings.same_site {
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::Lax) => "; SameSite=Lax",
            None => "; SameSite=None",
        };
        if settings.partitioned {
            attributes += "; Partitioned";
        }
        Self { name, path: settings.path.clone(), attributes }
    }

    /// Checks whether browsers send the cookie with a request for this path (RFC 6265bis §5.1.4).
    pub(crate) fn is_sent_to(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.path);
        rest.is_some_and(|rest| {
            rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the `Set-Cookie` header that sets this value. The cookie lasts `max_age` seconds. If
    /// `max_age` is `None`, the cookie lasts until the browser is closed.
    pub(crate) fn set(&self, value: &str, max_age: Option<u32>) -> Option<HeaderValue> {
        let mut header =
            String::with_capacity(self.name.len() + value.len() + self.attributes.len() + 24);
        header += &self.name;
        header += "=";
        header += value;
        if let Some(seconds) = max_age {
            // Writing to a String can't fail.
            let _ = write!(header, "; Max-Age={seconds}");
        }
        header += &self.attributes;
        // Name and attributes were checked when the layer was built, and the value is base64url.
        HeaderValue::try_from(header).ok()
    }

    /// Returns the `Set-Cookie` header that makes a browser drop the cookie.
    ///
    /// The header has the attributes that the cookie was set with, because a `__Host-` cookie can't
    /// be removed without them. It also has `Expires`, for clients that don't know `Max-Age`.
    pub(crate) fn clear(&self) -> Option<HeaderValue> {
        let Self { name, attributes, .. } = self;
        let expires = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        HeaderValue::try_from(format!("{name}=; {expires}{attributes}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: CookieSettings) -> Result<String, CookieError> {
        let template = settings.resolve("", "remember")?;
        Ok(template.set("v", Some(60)).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_cookie_is_strict_by_default() {
        let template = CookieSettings::new().resolve("", "").unwrap();
        assert_eq!(
            template.set("v", None).unwrap(),
            "__Host-Http-keep=v; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn the_attributes_and_the_prefix_follow_the_settings() {
        let new = CookieSettings::new;
        for (settings, expected) in [
            (
                new(),
                "__Host-Http-keep-remember=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax",
            ),
            (
                new().with_path("/app").with_partitioned(),
                "__Secure-keep-remember=v; Max-Age=60; Path=/app; Secure; HttpOnly; SameSite=Lax; \
                 Partitioned",
            ),
            (
                new().with_domain_and_subdomains("example.org").with_same_site(SameSite::Strict),
                "__Secure-keep-remember=v; Max-Age=60; Path=/; Domain=example.org; Secure; \
                 HttpOnly; SameSite=Strict",
            ),
            (
                new().insecure_over_http().insecure_readable_by_scripts(),
                "keep-remember=v; Max-Age=60; Path=/; SameSite=Lax",
            ),
            (
                new().insecure_readable_by_scripts(),
                "__Host-keep-remember=v; Max-Age=60; Path=/; Secure; SameSite=Lax",
            ),
            (
                new().with_name("me").insecure_cross_site(),
                "me=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=None",
            ),
        ] {
            assert_eq!(set(settings).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_cookie_path_matches_whole_segments() {
        for (cookie, path, expected) in [
            ("/", "/", true),
            ("/", "/app", true),
            ("/app", "/app", true),
            ("/app", "/app/x", true),
            ("/app/", "/app/x", true),
            ("/app/", "/app", false),
            ("/app", "/apple", false),
            ("/app", "/", false),
        ] {
            let template = CookieSettings::new().with_path(cookie).resolve("", "").unwrap();
            assert_eq!(template.is_sent_to(path), expected, "{cookie} {path}");
        }
    }

    #[test]
    fn a_cookie_is_cleared_with_the_attributes_that_it_was_set_with() {
        let template = CookieSettings::new().with_path("/app").resolve("admin", "").unwrap();
        assert_eq!(
            template.clear().unwrap(),
            "__Secure-keep-admin=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/app; \
             Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn invalid_and_contradicting_settings_are_an_error() {
        let named = |name: &str| CookieSettings::new().with_name(name);
        let owned = str::to_owned;
        for (settings, expected) in [
            (named(""), CookieError::Name { name: owned("") }),
            (named("a b"), CookieError::Name { name: owned("a b") }),
            (named("a\r\nX: y"), CookieError::Name { name: owned("a\r\nX: y") }),
            (named("é"), CookieError::Name { name: owned("é") }),
            (CookieSettings::new().with_path("app"), CookieError::Path { path: owned("app") }),
            (
                CookieSettings::new().with_path("/;Domain=evil"),
                CookieError::Path { path: owned("/;Domain=evil") },
            ),
            (
                CookieSettings::new().with_domain_and_subdomains("https://a.example"),
                CookieError::Domain { domain: owned("https://a.example") },
            ),
            (
                named("__Host-a").with_path("/app"),
                CookieError::HostPrefix { name: owned("__Host-a") },
            ),
            (
                named("__Host-Http-a").insecure_readable_by_scripts(),
                CookieError::HttpPrefix { name: owned("__Host-Http-a") },
            ),
            (
                named("__http-a").insecure_readable_by_scripts(),
                CookieError::HttpPrefix { name: owned("__http-a") },
            ),
            (
                named("__Http-a").insecure_over_http(),
                CookieError::SecurePrefix { name: owned("__Http-a") },
            ),
            (
                named("__host-a").with_domain_and_subdomains("example.org"),
                CookieError::HostPrefix { name: owned("__host-a") },
            ),
            (
                named("__Host-a").insecure_over_http(),
                CookieError::HostPrefix { name: owned("__Host-a") },
            ),
            (
                named("__Secure-a").insecure_over_http(),
                CookieError::SecurePrefix { name: owned("__Secure-a") },
            ),
            (
                named("a").insecure_over_http().insecure_cross_site(),
                CookieError::CrossSiteNeedsSecure { name: owned("a") },
            ),
            (
                named("a").insecure_over_http().with_partitioned(),
                CookieError::PartitionedNeedsSecure { name: owned("a") },
            ),
        ] {
            assert_eq!(set(settings), Err(expected));
        }
    }
}
