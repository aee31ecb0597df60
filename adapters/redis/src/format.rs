//! How users are stored.
//!
//! A user's value is `1 5f0c… {"id":…}`: the version of this format, the token of the user's claim
//! to their login name (see `names.rs`), and the user in the application's format. The
//! application's format converts only the user, not the version or the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower_keep_core::{Account, AuthUser};

use crate::error::Error;

/// The version of the format of a user's value.
const VERSION: &str = "1";

/// Converts users to bytes and back.
///
/// [`Json`] is one such format. Another format may take less memory, but redis-cli may not show it
/// as readable text. A format may use any bytes.
///
/// A value stays as it was written until the user is next updated, so a format has to read the
/// values of all earlier formats. Values in [`Json`] begin with `{`. To change to another format,
/// begin its values with another byte, and let `Json` read the values that begin with `{`:
///
/// ```
/// # struct Member;
/// # fn write_v1(_: &Member) -> Vec<u8> { Vec::new() }
/// # fn read_v1(_: &[u8]) -> Option<Member> { None }
/// # impl serde::Serialize for Member {
/// #     fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_unit() }
/// # }
/// # impl<'de> serde::Deserialize<'de> for Member {
/// #     fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> { Ok(Member) }
/// # }
/// use tower_keep_redis::{Json, UserFormat};
///
/// struct Compact;
///
/// impl UserFormat<Member> for Compact {
///     fn write(&self, member: &Member) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
///         Ok([&[1][..], &write_v1(member)].concat())
///     }
///
///     fn read(&self, bytes: &[u8]) -> Result<Member, Box<dyn std::error::Error + Send + Sync>> {
///         match bytes {
///             [b'{', ..] => Json.read(bytes),
///             [1, rest @ ..] => Ok(read_v1(rest).ok_or("not a member")?),
///             _ => Err("written by a later version".into()),
///         }
///     }
/// }
/// ```
///
/// First, release a version of your application that reads both formats and still writes the old
/// format. Then release a version that writes the new format. If a user can't be read, the call
/// returns an error ([`Corrupt`](tower_keep_core::StoreErrorKind::Corrupt)), and no user is logged
/// out.
///
/// The errors that a format returns are logged, so they must not quote a user's data.
pub trait UserFormat<U>: Send + Sync + 'static {
    /// Converts a user to bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if this user can't be written.
    fn write(&self, user: &U) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

    /// Reads a user from bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not a user in this format.
    fn read(&self, bytes: &[u8]) -> Result<U, Box<dyn std::error::Error + Send + Sync>>;
}

/// Users as JSON, with serde.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<U: Serialize + DeserializeOwned> UserFormat<U> for Json {
    fn write(&self, user: &U) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        serde_json::to_vec(user).map_err(|error| without_values(&error))
    }

    fn read(&self, bytes: &[u8]) -> Result<U, Box<dyn std::error::Error + Send + Sync>> {
        serde_json::from_slice(bytes).map_err(|error| without_values(&error))
    }
}

/// Converts serde's error to an error that does not quote the user's data. serde's own message may
/// quote values.
fn without_values(error: &serde_json::Error) -> Box<dyn std::error::Error + Send + Sync> {
    format!("JSON {:?} error at column {}", error.classify(), error.column()).into()
}

/// Accounts as JSON. `Account` itself does not implement serde's traits, so no handler can send a
/// password hash by accident.
pub(crate) struct AccountJson;

#[derive(Serialize, Deserialize)]
struct StoredAccount {
    id: String,
    login_name: String,
    password_hash: String,
    #[serde(default = "active_by_default", skip_serializing_if = "is_true")]
    active: bool,
    /// The stamp in base64; absent if the stamp equals the password hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    security_stamp: Option<String>,
}

fn active_by_default() -> bool {
    true
}

fn is_true(flag: &bool) -> bool {
    *flag
}

impl UserFormat<Account> for AccountJson {
    fn write(
        &self,
        account: &Account,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let stamp = account.security_stamp();
        let is_password_hash = *stamp == *account.password_hash().as_bytes();
        Json.write(&StoredAccount {
            id: account.id().to_string(),
            login_name: account.login_name().to_owned(),
            password_hash: account.password_hash().to_owned(),
            active: account.is_active(),
            security_stamp: (!is_password_hash).then(|| URL_SAFE_NO_PAD.encode(stamp)),
        })
    }

    fn read(&self, bytes: &[u8]) -> Result<Account, Box<dyn std::error::Error + Send + Sync>> {
        let StoredAccount { id, login_name, password_hash, active, security_stamp } =
            Json.read(bytes)?;
        let account = Account::new(id, login_name, password_hash).with_active(active);
        match security_stamp {
            Some(stamp) => {
                let stamp = URL_SAFE_NO_PAD
                    .decode(stamp)
                    .map_err(|_| "the security stamp is not base64")?;
                Ok(account.with_security_stamp(stamp))
            }
            None => Ok(account),
        }
    }
}

/// A user's value.
pub(crate) struct UserValue<'a> {
    /// The token of the user's claim to their login name.
    pub(crate) claim_token: &'a str,
    /// The user in the application's format.
    pub(crate) user: &'a [u8],
}

impl<'a> UserValue<'a> {
    pub(crate) fn write(&self) -> Vec<u8> {
        [VERSION.as_bytes(), b" ", self.claim_token.as_bytes(), b" ", self.user].concat()
    }

    pub(crate) fn read(value: &'a [u8]) -> Result<Self, Error> {
        let mut parts = value.splitn(3, |byte| *byte == b' ');
        let version = parts.next().and_then(|version| std::str::from_utf8(version).ok());
        let number = version.filter(|version| version.parse::<u8>().is_ok());
        match (number, parts.next(), parts.next()) {
            (Some(VERSION), Some(token), Some(user)) => {
                let claim_token = std::str::from_utf8(token).map_err(|_| unreadable())?;
                Ok(Self { claim_token, user })
            }
            (Some(other), ..) if other != VERSION => {
                Err(Error::of_later_version("a user", other, VERSION))
            }
            _ => Err(unreadable()),
        }
    }
}

fn unreadable() -> Error {
    Error::corrupt(
        "the key of a user, which ends in `:user`, holds a value that this store has not written: \
         restore the key, or delete it and insert the user again",
    )
}

#[cfg(test)]
mod tests {
    use tower_keep_core::StoreErrorKind;

    use super::*;

    #[test]
    fn an_account_is_read_as_it_was_written() {
        let plain = Account::new(7, "ada \"é\"", "$argon2id$…");
        for account in [
            plain.clone().with_active(false),
            plain.clone().with_security_stamp([0, 0xFF]),
            plain.clone().with_security_stamp([]),
            Account::new("", "", ""),
            plain,
        ] {
            let read = AccountJson.read(&AccountJson.write(&account).unwrap()).unwrap();
            assert_eq!(read.security_stamp(), account.security_stamp());
            assert!(read == account);
        }
    }

    #[test]
    fn the_error_for_an_unreadable_value_does_not_quote_it() {
        for bad in [r#"{"id":"1","login_name":["secret"],"password_hash":""}"#, "secret", ""] {
            let error = AccountJson.read(bad.as_bytes()).map(drop).unwrap_err().to_string();
            assert!(error.contains("column") && !error.contains("secret"), "{error}");
        }
        for bad in ["", "secret", "1", "1 token", "2 token {}", "x token {}"] {
            let error = UserValue::read(bad.as_bytes()).map(drop).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{bad}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let value = UserValue { claim_token: "5f", user: b"a b" }.write();
        assert_eq!(UserValue::read(&value).unwrap().user, b"a b");
    }
}
