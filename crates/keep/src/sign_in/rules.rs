//! The rules for new passwords.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tower_keep_core::StoreError;

use crate::passwords::{MAX_PASSWORD_BYTES, PasswordError, normalized};

/// What a new password must be like. A password that is in use is never checked against this.
///
/// The default: at least 8 characters (OWASP ASVS 5.0, 6.2.1; 15 are better), at most 256, and with
/// the feature `common-passwords` not one of the 99,838 commonest (6.2.4). There is no rule about
/// kinds of characters, because such rules make passwords easier to guess (6.2.5).
///
/// ```
/// use tower_keep::sign_in::{PasswordRejection, PasswordRules};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_keep::password::PasswordError> {
/// let rules = PasswordRules::new().with_min_length(15);
/// let rejection = rules.rejection_of("correct horse").await?;
/// assert_eq!(rejection, Some(PasswordRejection::TooShort { min: 15 }));
/// assert_eq!(rejection.unwrap().to_string(), "The password needs at least 15 characters.");
/// assert_eq!(rules.rejection_of("correct horse battery staple").await?, None);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PasswordRules {
    min_length: usize,
    max_length: usize,
    is_breached: Option<BreachCheck>,
}

type BreachCheck = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<bool, StoreError>> + Send>> + Send + Sync,
>;

/// The reason why a password can't be a new password.
///
/// `Display` writes a sentence for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordRejection {
    /// The password has too few characters.
    TooShort {
        /// How many it needs at least.
        min: usize,
    },
    /// The password has too many characters.
    TooLong {
        /// How many it may have at most.
        max: usize,
    },
    /// The password is among the commonest ones, or was found in stolen data.
    Common,
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self::new()
    }
}

impl PasswordRules {
    /// The least number of characters that may be allowed as the greatest length (ASVS 5.0, 6.2.9).
    const LEAST_MAX_LENGTH: usize = 64;
    /// With more characters, a password could have more than 4,096 bytes.
    const GREATEST_MAX_LENGTH: usize = 1_000;

    /// Creates the default rules.
    pub fn new() -> Self {
        Self { min_length: 8, max_length: 256, is_breached: None }
    }

    /// Sets how many characters a password needs at least; 8 by default. A number above 64 becomes
    /// 64. Characters are code points of Unicode.
    #[must_use]
    pub fn with_min_length(mut self, min: usize) -> Self {
        self.min_length = min.min(Self::LEAST_MAX_LENGTH);
        self
    }

    /// Sets how many characters a password may have at most; 256 by default. A number below 64
    /// becomes 64, and a number above 1,000 becomes 1,000.
    #[must_use]
    pub fn with_max_length(mut self, max: usize) -> Self {
        self.max_length = max.clamp(Self::LEAST_MAX_LENGTH, Self::GREATEST_MAX_LENGTH);
        self
    }

    /// Adds a check of whether the password was found in stolen data. The closure gets the password
    /// in the form that is hashed, NFKC, and returns whether it was found. Never send the password
    /// itself to another service: [Pwned
    /// Passwords](https://haveibeenpwned.com/API/v3#PwnedPasswords), for example, takes the first
    /// five digits of its SHA-1 digest.
    ///
    /// If the closure returns an error, the password is neither accepted nor rejected, and the
    /// response is 503. To accept passwords while the service fails, return `Ok(false)`.
    ///
    /// ```
    /// use tower_keep::sign_in::PasswordRules;
    /// # async fn was_stolen(_: &str) -> bool { false }
    ///
    /// let rules = PasswordRules::new()
    ///     .with_breach_check(async |password: String| Ok(was_stolen(&password).await));
    /// # let _ = rules;
    /// ```
    #[must_use]
    pub fn with_breach_check<F, Fut>(mut self, is_breached: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<bool, StoreError>> + Send + 'static,
    {
        self.is_breached = Some(Arc::new(move |password| Box::pin(is_breached(password))));
        self
    }

    /// Returns why this password can't be a new password, or `None` if it can.
    ///
    /// # Errors
    ///
    /// Returns an error only if the [breach check](Self::with_breach_check) does.
    pub async fn rejection_of(
        &self,
        password: &str,
    ) -> Result<Option<PasswordRejection>, PasswordError> {
        // A longer text would take long to convert, and is too long afterwards, too.
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(Some(PasswordRejection::TooLong { max: self.max_length }));
        }
        // What is hashed is this form, so this form must be good.
        let password = &*normalized(password);
        let length = password.chars().take(self.max_length + 1).count();
        if length < self.min_length {
            return Ok(Some(PasswordRejection::TooShort { min: self.min_length }));
        }
        if length > self.max_length {
            return Ok(Some(PasswordRejection::TooLong { max: self.max_length }));
        }
        if is_common(password) {
            return Ok(Some(PasswordRejection::Common));
        }
        let is_breached = match &self.is_breached {
            Some(is_breached) => is_breached(password.to_owned()).await?,
            None => false,
        };
        Ok(is_breached.then_some(PasswordRejection::Common))
    }
}

/// Checks whether the password is one of the commonest, in upper or lower case.
#[cfg(feature = "common-passwords")]
fn is_common(password: &str) -> bool {
    use passwords::analyzer::is_common_password;
    is_common_password(password) || is_common_password(password.to_lowercase())
}

#[cfg(not(feature = "common-passwords"))]
fn is_common(_password: &str) -> bool {
    false
}

impl fmt::Display for PasswordRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { min } => write!(f, "The password needs at least {min} characters."),
            Self::TooLong { max } => write!(f, "The password may have at most {max} characters."),
            Self::Common => f.write_str("This password is well known. Choose another one."),
        }
    }
}

impl fmt::Debug for PasswordRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordRules")
            .field("min_length", &self.min_length)
            .field("max_length", &self.max_length)
            .field("has_breach_check", &self.is_breached.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use tower_keep_core::StoreErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_new_password_is_checked_by_its_characters() {
        let rules = PasswordRules::new().with_max_length(1);
        let (short, long) =
            (PasswordRejection::TooShort { min: 8 }, PasswordRejection::TooLong { max: 64 });
        for (password, expected) in [
            (String::new(), Some(short)),
            ("佐藤佐藤佐藤佐".into(), Some(short)),
            ("佐藤佐藤佐藤佐藤".into(), None),
            ("🦀".repeat(64), None),
            ("🦀".repeat(65), Some(long)),
            ("no one else has this".into(), None),
            // What is hashed has four characters.
            ("e\u{301}".repeat(4), Some(short)),
            ("a".repeat(1_000_000), Some(long)),
        ] {
            assert_eq!(rules.rejection_of(&password).await.unwrap(), expected, "{password}");
        }
    }

    #[cfg(feature = "common-passwords")]
    #[tokio::test]
    async fn common_passwords_are_rejected_in_any_case() {
        for password in ["password1", "PassWord1", "12345678", "qwertyuiop", "ｐａｓｓｗｏｒｄ１"]
        {
            let rejection = PasswordRules::new().rejection_of(password).await.unwrap();
            assert_eq!(rejection, Some(PasswordRejection::Common), "{password}");
        }
    }

    #[tokio::test]
    async fn a_breach_check_decides_and_may_fail() {
        let rules = PasswordRules::new().with_breach_check(async |password: String| match password
            .as_str()
        {
            "was stolen once" => Ok(true),
            "service is down" => Err(StoreError::new(StoreErrorKind::Unavailable, "breaches")),
            _ => Ok(false),
        });
        let rejection = rules.rejection_of("was stolen once").await.unwrap();
        assert_eq!(rejection, Some(PasswordRejection::Common));
        assert!(matches!(
            rules.rejection_of("service is down").await,
            Err(PasswordError::Store(_))
        ));
        assert_eq!(rules.rejection_of("was never stolen").await.unwrap(), None);
    }
}
