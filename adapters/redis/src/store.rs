//! The store, and how it reads values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;
use tower_keep_core::{Account, AuthUser, StoreErrorKind, UserId};

use crate::error::{Cause, Error};
use crate::format::{self, UserFormat};
use crate::keys::KeyNames;
use crate::script::Life;
use crate::servers::{Access, Servers};

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
    pub(crate) users: Users<U>,
}

/// What the store knows about the application's users.
pub(crate) struct Users<U> {
    pub(crate) format: Box<dyn UserFormat<U>>,
    pub(crate) login_name: fn(&U) -> &str,
    pub(crate) life: Option<Duration>,
}

/// A user as stored.
pub(crate) struct StoredUser<U> {
    pub(crate) user: U,
    pub(crate) claim: String,
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

impl<U: AuthUser> Users<U> {
    pub(crate) fn write(&self, claim: &str, user: &U) -> Result<Vec<u8>, Error> {
        let written = self.format.write(user);
        let written = written.map_err(|error| {
            Error::new(StoreErrorKind::Unsupported, format!("a user can't be written: {error}"))
        })?;
        Ok(format::Value { claim, user: &written }.write())
    }

    pub(crate) fn read(&self, id: &UserId, value: &[u8]) -> Result<StoredUser<U>, Error> {
        let format::Value { claim, user } = format::Value::read(value)?;
        let user = self.format.read(user);
        let user = user.map_err(|error| {
            Error::corrupt(format!(
                "a user (`user`) can't be read: {error}; restore the key, or delete it and insert \
                     the user again"
            ))
        })?;
        if user.id() != *id {
            return Err(Error::corrupt(
                "a user (`user`) has another id than their key: rename the key",
            ));
        }
        Ok(StoredUser { user, claim: claim.to_owned() })
    }

    pub(crate) fn life(&self) -> Life {
        self.life.map_or(Life::Forever, |life| Life::Millis(millis(life)))
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

    pub(crate) async fn get(
        &self,
        key: &str,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        let value = bytes(self.servers().call(key, access, &command, deadline).await?)?;
        if value.is_none() && access == Access::Read && self.servers().has_replicas() {
            // A replica may not have it yet.
            return bytes(self.servers().call(key, Access::ReadLatest, &command, deadline).await?);
        }
        Ok(value)
    }

    /// Reads values of one slot in one round trip. The first `expected` of them are expected to
    /// exist.
    pub(crate) async fn get_all<const N: usize>(
        &self,
        keys: [&str; N],
        expected: usize,
        access: Access,
        deadline: Instant,
    ) -> Result<[Option<Vec<u8>>; N], Error> {
        let length = keys.iter().map(|key| key.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(1 + N, 4 + length);
        command.arg("MGET").arg(&keys);
        let mut all = [const { None }; N];
        let expected = match self.servers().call(keys[0], access, &command, deadline).await {
            Ok(Value::Array(values)) if values.len() == N => {
                for (place, value) in all.iter_mut().zip(values) {
                    *place = bytes(value)?;
                }
                expected
            }
            Ok(_) => return Err(Error::unexpected_reply()),
            // The keys are on two nodes while their slot moves.
            Err(error) if error.cause == Cause::TryAgain => N,
            Err(error) => return Err(error),
        };
        for (value, key) in all.iter_mut().zip(keys).take(expected) {
            // `MGET` also returns nil for a value of another type, and a replica returns nil for a
            // key that it does not have yet.
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

/// Creates the error for a call that ran out of time because other calls were always quicker.
pub(crate) fn contended() -> Error {
    let message = "other calls kept changing the same data until the time-out; try again later";
    Error::new(StoreErrorKind::Unavailable, message)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
