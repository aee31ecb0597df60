//! `Set-Cookie`: the attributes, whether they agree, and the header.

use std::fmt::Write;

use http::HeaderValue;

/// How a cookie is set: its name and its attributes.
///
/// The default is the strictest that works for a login: `Secure`, `HttpOnly`, `SameSite=Lax`,
/// `Path=/`, no `Domain`, and a `__Host-` name, which browsers accept only over HTTPS, from this
/// host and for all of it. Each method that weakens this has a name that says so, and what does not
/// go together is an error when the layer is built.
///
/// ```
/// use tower_keep::{CookieSettings, SameSite};
///
/// let shop = CookieSettings::new().with_name("__Host-shop").with_same_site(SameSite::Strict);
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
    /// `None` is the attribute's own word for cross-site.
    same_site: Option<SameSite>,
    secure: bool,
    http_only: bool,
    partitioned: bool,
}

/// When browsers send a cookie with requests that other sites cause (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Never, not even when the user follows a link to this site: they arrive logged out.
    Strict,
    /// With links that the user follows, but not with forms, images or scripts of other sites.
    #[default]
    Lax,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl CookieSettings {
    /// The strict defaults.
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

    /// The whole name. Without one it is made of the strongest prefix that the attributes allow
    /// (`__Host-`, `__Secure-`, none), `keep`, the area and the purpose: `__Host-keep`,
    /// `__Host-keep-remember`.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The path below which browsers send the cookie; `/` by default. Another one excludes the
    /// `__Host-` prefix, and is no protection between applications on one host.
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends the cookie to this domain *and every host below it*; each of them can then read it,
    /// and set it too. Excludes the `__Host-` prefix.
    pub fn with_domain_and_subdomains(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// `Lax` by default.
    pub fn with_same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// Keeps a separate cookie for each site that embeds this one (`Partitioned`).
    pub fn with_partitioned(mut self) -> Self {
        self.partitioned = true;
        self
    }

    /// Leaves `Secure` away, so that the cookie also travels over plain HTTP, where everybody on
    /// the way can read it. Not needed on `localhost`: browsers and curl take `Secure` cookies
    /// there (Safari does not).
    pub fn insecure_over_http(mut self) -> Self {
        self.secure = false;
        self
    }

    /// Leaves `HttpOnly` away, so that scripts, injected ones too, can read the cookie.
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
        match (self.secure, &self.domain, self.path.as_str()) {
            (true, None, "/") => "__Host-",
            (true, ..) => "__Secure-",
            (false, ..) => "",
        }
    }

    /// Settles the name and checks that everything agrees.
    pub(crate) fn resolve(&self, area: &str, purpose: &str) -> Result<Template, CookieError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let words = ["keep", area, purpose].into_iter().filter(|word| !word.is_empty());
                self.prefix().to_owned() + &words.collect::<Vec<_>>().join("-")
            }
        };
        self.check(&name)?;
        Ok(Template::new(self, name))
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
        if lower.starts_with("__host-") && self.prefix() != "__Host-" {
            return Err(CookieError::HostPrefix { name });
        }
        if lower.starts_with("__secure-") && !self.secure {
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

/// What a cookie's settings disagree about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields hold the settings that the messages quote")]
pub enum CookieError {
    /// The name is empty or has characters that no cookie's name can have (RFC 9110 §5.6.2).
    #[error("the cookie name {name:?} is not a token: use letters, digits, `-` and `_`")]
    Name { name: String },
    /// The path does not begin with `/`, or has a `;` or other bytes that would end it.
    #[error("the cookie path {path:?} must begin with `/` and be visible ASCII without `;`")]
    Path { path: String },
    /// The domain is not a host name.
    #[error("the cookie domain {domain:?} is not a host name: write it as `example.org`")]
    Domain { domain: String },
    /// Browsers drop a `__Host-` cookie that is not `Secure`, has a `Domain`, or another path.
    #[error(
        "the cookie name {name:?} promises Secure, Path=/ and no Domain: \
         drop the `__Host-` prefix or the setting that breaks it"
    )]
    HostPrefix { name: String },
    /// Browsers drop a `__Secure-` cookie that is not `Secure`.
    #[error("the cookie name {name:?} promises Secure: drop the prefix or `insecure_over_http`")]
    SecurePrefix { name: String },
    /// Browsers drop a cookie with `SameSite=None` that is not `Secure`.
    #[error("the cookie {name:?} is sent cross-site, which browsers allow with Secure only")]
    CrossSiteNeedsSecure { name: String },
    /// Browsers drop a partitioned cookie that is not `Secure`.
    #[error("the cookie {name:?} is partitioned, which browsers allow with Secure only")]
    PartitionedNeedsSecure { name: String },
}

/// A cookie's name and attributes, ready for `Set-Cookie`.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    name: String,
    path: String,
    /// Everything after the value and `Max-Age`.
    attributes: String,
}

impl Template {
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

    /// Whether browsers send the cookie with a request for this path (RFC 6265bis §5.1.4).
    pub(crate) fn is_sent_to(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.path);
        rest.is_some_and(|rest| {
            rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `Set-Cookie` for this value, for as many seconds, or until the browser is closed.
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

    /// `Set-Cookie` that makes a browser drop it: the attributes it was set with (a `__Host-` cookie
    /// goes only so), and an `Expires` for clients that know no `Max-Age`.
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
    fn the_default_is_the_strictest() {
        let template = CookieSettings::new().resolve("", "").unwrap();
        assert_eq!(
            template.set("v", None).unwrap(),
            "__Host-keep=v; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn attributes_follow_the_settings_and_so_does_the_prefix() {
        let new = CookieSettings::new;
        for (settings, expected) in [
            (new(), "__Host-keep-remember=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"),
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
                new().with_name("me").insecure_cross_site(),
                "me=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=None",
            ),
        ] {
            assert_eq!(set(settings).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_path_is_a_prefix_of_whole_segments() {
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
    fn clearing_uses_the_attributes_of_setting() {
        let template = CookieSettings::new().with_path("/app").resolve("admin", "").unwrap();
        assert_eq!(
            template.clear().unwrap(),
            "__Secure-keep-admin=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/app; \
             Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn settings_that_disagree_are_refused() {
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
