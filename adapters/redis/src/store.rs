//! The store, and how it reads values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;
use tower_keep_core::{Account, AuthUser, UserId};

use crate::access::Access;
use crate::error::{Cause, Error};
use crate::format::{UserFormat, UserValue};
use crate::keys::KeyNames;
use crate::life::{Life, millis};
use crate::servers::Servers;

/// A call reads or writes at most this many keys concurrently, each by a command of its own.
pub(crate) const MAX_CONCURRENT: usize = 64;

/// Users and server-side sessions in Redis.
///
/// A clone uses the same connections. See the [crate's documentation](crate).
pub struct RedisStore<U = Account> {
    pub(crate) shared: Arc<Shared<U>>,
}

pub(crate) struct Shared<U> {
    pub(crate) servers: Servers,
    pub(crate) keys: KeyNames,
    pub(crate) timeout: Duration,
    pub(crate) users: UserSettings<U>,
}

/// How the store writes the application's users.
pub(crate) struct UserSettings<U> {
    pub(crate) format: Box<dyn UserFormat<U>>,
    /// Returns the name that a user logs in with.
    pub(crate) login_name: fn(&U) -> &str,
    /// How long after its last write a user expires; `None` if users never expire.
    pub(crate) ttl: Option<Duration>,
}

/// A user as stored.
pub(crate) struct StoredUser<U> {
    pub(crate) user: U,
    /// The token of the user's claim to their login name; see `names.rs`.
    pub(crate) claim_token: String,
}

impl<U> Clone for RedisStore<U> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Shows neither stored data nor anything about the connection.
impl<U> fmt::Debug for RedisStore<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

impl<U: AuthUser> UserSettings<U> {
    /// Returns the value to store for this user.
    pub(crate) fn write(&self, claim_token: &str, user: &U) -> Result<Vec<u8>, Error> {
        let written = self.format.write(user);
        let written = written.map_err(|error| {
            Error::unsupported(format!("the format can't write this user: {error}"))
        })?;
        Ok(UserValue { claim_token, user: &written }.write())
    }

    /// Reads the user with this id from a stored value.
    pub(crate) fn read(&self, id: &UserId, value: &[u8]) -> Result<StoredUser<U>, Error> {
        let UserValue { claim_token, user } = UserValue::read(value)?;
        let user = self.format.read(user);
        let user = user.map_err(|error| {
            Error::corrupt(format!(
                "the format can't read a user: {error}; restore the user's key, which ends in \
                 `:user`, or delete it and insert the user again"
            ))
        })?;
        if user.id() != *id {
            return Err(Error::corrupt(
                "a key that ends in `:user` names another id than the user in its value has: \
                 rename the key",
            ));
        }
        Ok(StoredUser { user, claim_token: claim_token.to_owned() })
    }

    pub(crate) fn life(&self) -> Life {
        self.ttl.map_or(Life::Forever, |ttl| Life::Millis(millis(ttl)))
    }
}

impl<U> RedisStore<U> {
    pub(crate) fn servers(&self) -> &Servers {
        &self.shared.servers
    }

    pub(crate) fn keys(&self) -> &KeyNames {
        &self.shared.keys
    }

    /// Returns the deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }

    /// Reads one value. If reads from replicas are allowed and the replica has no value, reads
    /// again from the master.
    pub(crate) async fn get(
        &self,
        key: &str,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        let value = bytes(self.servers().call(key, access, &command, deadline).await?)?;
        if value.is_none() && access == Access::Read && self.servers().reads_from_replicas() {
            // The replica may not have the key yet.
            return bytes(self.servers().call(key, Access::ReadLatest, &command, deadline).await?);
        }
        Ok(value)
    }

    /// Reads the values of these keys, which are in one slot, in one round trip. If one of the
    /// first `expected_count` keys seems to have no value, reads that key again from the master.
    pub(crate) async fn get_all<const N: usize>(
        &self,
        keys: [&str; N],
        expected_count: usize,
        access: Access,
        deadline: Instant,
    ) -> Result<[Option<Vec<u8>>; N], Error> {
        let length = keys.iter().map(|key| key.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(1 + N, 4 + length);
        command.arg("MGET").arg(&keys);
        let mut all = [const { None }; N];
        let expected_count = match self.servers().call(keys[0], access, &command, deadline).await {
            Ok(Value::Array(values)) if values.len() == N => {
                for (value, reply) in all.iter_mut().zip(values) {
                    *value = bytes(reply)?;
                }
                expected_count
            }
            Ok(_) => return Err(Error::unexpected_reply()),
            // While their slot moves, the keys are on two nodes. Each key is read separately.
            Err(error) if error.cause == Cause::TryAgain => N,
            Err(error) => return Err(error),
        };
        for (value, key) in all.iter_mut().zip(keys).take(expected_count) {
            // `MGET` also returns nil if the key holds a value of another type; `GET` returns an
            // error. A replica returns nil if it does not have the key yet.
            if value.is_none() {
                *value = Box::pin(self.get(key, Access::ReadLatest, deadline)).await?;
            }
        }
        Ok(all)
    }
}

/// Returns the bytes of a reply, or `None` if it is nil.
pub(crate) fn bytes(reply: Value) -> Result<Option<Vec<u8>>, Error> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        _ => Err(Error::unexpected_reply()),
    }
}
