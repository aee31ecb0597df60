//! Bearer tokens, as applications see them.

use std::fmt;
use std::time::SystemTime;

use http::HeaderValue;
use tower_keep_core::Timestamp;

/// Every token begins with these characters, so that scanners for leaked secrets find it.
const PREFIX: &str = "tkb_";

/// The scheme of the `Authorization` of a token.
const SCHEME: &[u8] = b"Bearer";

/// Returns the sealed contents of the token in an `Authorization` field, if it is a token of this
/// crate. Whether the token is valid is not checked.
pub(crate) fn sealed_token_in(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked(SCHEME.len())?;
    let is_bearer =
        scheme.eq_ignore_ascii_case(SCHEME) && token.first().is_some_and(u8::is_ascii_whitespace);
    token.trim_ascii().strip_prefix(PREFIX.as_bytes()).filter(|_| is_bearer)
}

/// A token that carries a login in the header `Authorization: Bearer TOKEN` (RFC 6750), for clients
/// without cookies.
///
/// The login is fresh until ten minutes after the user has proved who they are, which may be before
/// the token was issued; see [`require_fresh`](crate::LoginLayer::require_fresh). Whoever has the
/// token is logged in: send it only over TLS, and only to its user. No cache stores the response
/// that has issued it. The store has only a hash of the session's id, so a lost token can't be
/// shown again.
///
/// It has 72 characters: `tkb_`, and letters, digits, `-` and `_`.
#[derive(Clone)]
pub struct BearerToken {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl BearerToken {
    pub(crate) fn new(sealed: &str, issued: Timestamp, expires: Timestamp) -> Self {
        Self { text: format!("{PREFIX}{sealed}"), issued, expires }
    }

    /// Returns the token's text, to send to the client.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns when the token expires. Use does not extend it.
    pub fn expires(&self) -> SystemTime {
        self.expires.into()
    }

    /// Returns for how many seconds the token is valid after the login, as `expires_in` of an OAuth
    /// response says it (RFC 6749 §5.1).
    pub fn expires_in(&self) -> u32 {
        self.expires.as_secs().saturating_sub(self.issued.as_secs())
    }

    /// Returns the value of the header `Authorization` with this token. It is marked as sensitive,
    /// so that logs don't show it. `None` never happens, because a token is ASCII.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Does not show the token.
impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognized_by_its_scheme_and_prefix() {
        for (authorization, expected) in [
            ("Bearer tkb_abc", Some("abc")),
            ("bearer  tkb_abc ", Some("abc")),
            ("BEARER\ttkb_abc", Some("abc")),
            ("Bearertkb_abc", None),
            ("Bearer tkb_", Some("")),
            ("Bearer abc", None),
            ("Bearer", None),
            ("Basic tkb_abc", None),
            ("tkb_abc", None),
        ] {
            let value = HeaderValue::from_static(authorization);
            assert_eq!(sealed_token_in(&value), expected.map(str::as_bytes), "{authorization}");
        }
    }
}
