//! Session records, found: by their keys, or by a user's lists.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, SessionKey, SessionRecord, UserId};

use crate::RedisStore;
use crate::error::{Cause, Fault};
use crate::keys::read_member;
use crate::record::read;
use crate::script::{OWNER, RECORDS};
use crate::servers::Use;
use crate::sessions::{AT_ONCE, MARGIN};
use crate::store::{bytes, contended};

/// A record, and the value that it was read from.
pub(crate) struct Stored {
    pub(crate) record: SessionRecord,
    pub(crate) value: Vec<u8>,
}

impl AsRef<SessionRecord> for Stored {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// The records of an index, or nothing where there is none any more.
pub(crate) type Listed = Vec<(SessionKey, Option<Stored>)>;

impl<U: AuthUser> RedisStore<U> {
    /// Whose session this is; with a time, that is known for at least so long from now on.
    pub(crate) async fn owner(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<UserId>, Fault> {
        let name = self.keys().owner(key);
        let value = match at_least {
            None => self.get(&name, whose, deadline).await?,
            Some(millis) => {
                let millis = (millis + MARGIN).to_string();
                let millis = [millis.as_bytes()];
                bytes(OWNER.run(self.servers(), Use::Write, &[&name], &millis, deadline).await?)?
            }
        };
        let Some(value) = value else { return Ok(None) };
        let text = String::from_utf8(value);
        let corrupt =
            |_| Fault::corrupt("the user of a session is not what this store has written");
        text.map(UserId::from).map(Some).map_err(corrupt)
    }

    /// The record with this key, for one who does not know whose it is.
    pub(crate) async fn find(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<Stored>, Fault> {
        let Some(user) = self.owner(key, at_least, whose, deadline).await? else {
            return Ok(None);
        };
        let name = self.keys().of(&user).session(key);
        let Some(value) = self.get(&name, whose, deadline).await? else { return Ok(None) };
        Ok(Some(Stored { record: read(*key, user, &value)?, value }))
    }

    /// The records of an index, all as they are at one moment.
    pub(crate) async fn listed(
        &self,
        user: &UserId,
        index: &str,
        deadline: Instant,
    ) -> Result<Listed, Fault> {
        let prefix = self.keys().of(user).sessions();
        let arguments = [prefix.as_bytes()];
        let answer =
            RECORDS.run(self.servers(), Use::ReadLatest, &[index], &arguments, deadline).await;
        let answer = match answer {
            Ok(Value::Array(answer)) => answer,
            Ok(_) => return Err(Fault::odd_answer()),
            Err(fault) if fault.cause == Cause::TryAgain => {
                return self.listed_singly(user, index, deadline).await;
            }
            Err(fault) => return Err(fault),
        };
        let mut listed = Listed::new();
        let mut answer = answer.into_iter();
        while let (Some(member), Some(value)) = (answer.next(), answer.next()) {
            let key = read_member(&bytes(member)?.ok_or_else(Fault::odd_answer)?)?;
            let Some(value) = bytes(value)? else {
                // It has expired; or it is at another node, while the slot moves.
                return self.listed_singly(user, index, deadline).await;
            };
            listed.push((key, Some(Stored { record: read(key, user.clone(), &value)?, value })));
        }
        Ok(listed)
    }

    /// The same, by commands that each ask for one key, and so find it wherever it is. Whatever changes
    /// which sessions there are changes the index.
    async fn listed_singly(
        &self,
        user: &UserId,
        index: &str,
        deadline: Instant,
    ) -> Result<Listed, Fault> {
        let mut members = self.members(index, deadline).await?;
        while Instant::now() < deadline {
            let listed = self.named(user, &members, deadline).await?;
            let after = self.members(index, deadline).await?;
            if after == members {
                return Ok(listed);
            }
            members = after;
        }
        Err(contended())
    }

    async fn members(&self, index: &str, deadline: Instant) -> Result<Vec<SessionKey>, Fault> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(index).arg(0).arg(-1);
        let answer = self.servers().ask(index, Use::ReadLatest, &command, deadline).await?;
        let Value::Array(members) = answer else { return Err(Fault::odd_answer()) };
        let member = |member| read_member(&bytes(member)?.ok_or_else(Fault::odd_answer)?);
        let mut members: Vec<_> = members.into_iter().map(member).collect::<Result<_, _>>()?;
        members.sort_unstable();
        Ok(members)
    }

    /// The records with these keys.
    pub(crate) async fn named(
        &self,
        user: &UserId,
        these: &[SessionKey],
        deadline: Instant,
    ) -> Result<Listed, Fault> {
        let keys = self.keys().of(user);
        let records = stream::iter(these.to_vec()).map(|key| {
            let name = keys.session(&key);
            async move {
                let value = self.get(&name, Use::ReadLatest, deadline).await?;
                let stored = value.map(|value| {
                    read(key, user.clone(), &value).map(|record| Stored { record, value })
                });
                Ok((key, stored.transpose()?))
            }
        });
        records.buffered(AT_ONCE).try_collect().await
    }
}
