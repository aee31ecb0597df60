//! Finds session records, by their keys or by a user's lists.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, Epoch, SessionKey, SessionRecord, Timestamp, UserId};

use crate::RedisStore;
use crate::epoch::StoredEpoch;
use crate::error::{Cause, Error};
use crate::keys::read_member;
use crate::record::read;
use crate::script::{OWNER, RECORDS};
use crate::servers::Access;
use crate::sessions::{MAX_CONCURRENT, OWNER_MARGIN};
use crate::store::{bytes, contended};

/// A record as it is now, and the value that it was read from.
pub(crate) struct StoredRecord {
    pub(crate) record: SessionRecord,
    pub(crate) value: Vec<u8>,
    /// The epoch in which it was created.
    pub(crate) created_in: u64,
}

impl StoredRecord {
    fn read(key: SessionKey, user: &UserId, value: Vec<u8>, epoch: &Epoch) -> Result<Self, Error> {
        let (record, created_in) = read(key, user.clone(), &value)?;
        Ok(Self { record: epoch.apply_to(record, created_in), value, created_in })
    }
}

impl AsRef<SessionRecord> for StoredRecord {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// A range of the members of an index, by rank.
#[derive(Clone, Copy)]
pub(crate) struct IndexRange<'a> {
    pub(crate) index: &'a str,
    pub(crate) order: Order,
    /// The rank of the first member, counted from 0.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Which members of an index come first.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Lowest,
    Highest,
    /// For an index by expiry: the highest first, without those that have expired by this time.
    LastToExpire(Timestamp),
}

impl Order {
    fn command(self) -> &'static str {
        match self {
            Self::Lowest => "ZRANGE",
            Self::Highest | Self::LastToExpire(_) => "ZREVRANGE",
        }
    }
}

impl IndexRange<'_> {
    /// Returns the first and the last rank.
    fn ranks(&self) -> [String; 2] {
        let last = self.first.saturating_add(self.count).saturating_sub(1);
        [self.first, last].map(|rank| i64::try_from(rank).unwrap_or(i64::MAX).to_string())
    }
}

/// The members of an index, each with its record, or with `None` if the record no longer exists.
pub(crate) type ListedRecords = Vec<(SessionKey, Option<StoredRecord>)>;

impl<U: AuthUser> RedisStore<U> {
    /// Returns the user whom this session belongs to. With `at_least`, the key that says so lives
    /// for at least that many milliseconds from now on.
    pub(crate) async fn owner(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<UserId>, Error> {
        let name = self.keys().owner(key);
        let value = match at_least {
            None => self.get(&name, access, deadline).await?,
            Some(millis) => {
                let millis = (millis + OWNER_MARGIN).to_string();
                let millis = [millis.as_bytes()];
                bytes(OWNER.run(self.servers(), Access::Write, &[&name], &millis, deadline).await?)?
            }
        };
        let Some(value) = value else { return Ok(None) };
        let text = String::from_utf8(value);
        let corrupt = |_| {
            Error::corrupt(
                "the key that says which user a session belongs to (`session:…`) is not what this \
                 store has written: delete it, and the user logs in again",
            )
        };
        text.map(UserId::from).map(Some).map_err(corrupt)
    }

    /// Returns the record with this key, and its user's epoch. The caller does not know the user.
    pub(crate) async fn find(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<(StoredRecord, StoredEpoch)>, Error> {
        let Some(user) = self.owner(key, at_least, access, deadline).await? else {
            return Ok(None);
        };
        let keys = self.keys().of(&user);
        let names = [keys.session(key), keys.epoch()];
        let names = names.each_ref().map(String::as_str);
        let [value, epoch] = self.get_all(names, 1, access, deadline).await?;
        let Some(value) = value else { return Ok(None) };
        let stored_epoch = StoredEpoch::read(epoch)?;
        Ok(Some((StoredRecord::read(*key, &user, value, &stored_epoch.epoch)?, stored_epoch)))
    }

    /// Returns records of an index and the user's epoch, all read at the same moment.
    pub(crate) async fn list_records(
        &self,
        user: &UserId,
        range: IndexRange<'_>,
        deadline: Instant,
    ) -> Result<(ListedRecords, StoredEpoch), Error> {
        let keys = self.keys().of(user);
        let (prefix, epoch) = (keys.sessions(), keys.epoch());
        let [first, last] = range.ranks();
        let expired_by = match range.order {
            Order::LastToExpire(by) => by.as_secs().to_string(),
            Order::Lowest | Order::Highest => String::new(),
        };
        let command = range.order.command();
        let arguments = [&prefix, command, &first, &last, &expired_by].map(str::as_bytes);
        let names = [range.index, &epoch];
        let reply =
            RECORDS.run(self.servers(), Access::ReadLatest, &names, &arguments, deadline).await;
        let reply = match reply {
            Ok(Value::Array(reply)) => reply,
            Ok(_) => return Err(Error::unexpected_reply()),
            Err(error) if error.cause == Cause::TryAgain => {
                return self.list_records_singly(user, range, deadline).await;
            }
            Err(error) => return Err(error),
        };
        let mut reply = reply.into_iter();
        let stored_epoch = StoredEpoch::read(reply.next().map(bytes).transpose()?.flatten())?;
        let mut listed = ListedRecords::new();
        while let (Some(member), Some(value)) = (reply.next(), reply.next()) {
            let key = read_member(&bytes(member)?.ok_or_else(Error::unexpected_reply)?)?;
            let Some(value) = bytes(value)? else {
                // The record has expired, or it is on another node while the slot moves.
                return self.list_records_singly(user, range, deadline).await;
            };
            listed.push((key, Some(StoredRecord::read(key, user, value, &stored_epoch.epoch)?)));
        }
        Ok((listed, stored_epoch))
    }

    /// Does the same by commands that each read one key, and so find it on whichever node it is.
    /// Every change of the set of sessions also changes the index or the epoch, so the result is
    /// consistent if neither has changed.
    async fn list_records_singly(
        &self,
        user: &UserId,
        range: IndexRange<'_>,
        deadline: Instant,
    ) -> Result<(ListedRecords, StoredEpoch), Error> {
        let keys = self.keys().of(user);
        let read = async || {
            let members = self.members(&range, deadline).await?;
            Ok::<_, Error>((members, self.epoch(&keys, Access::ReadLatest, deadline).await?))
        };
        let mut before = read().await?;
        while Instant::now() < deadline {
            let listed = self.records(user, &before.0, &before.1.epoch, deadline).await?;
            let after = read().await?;
            if after.0 == before.0 && after.1.epoch == before.1.epoch {
                return Ok((listed, after.1));
            }
            before = after;
        }
        Err(contended())
    }

    /// Returns at most `count` members of an index, those with the lowest scores.
    pub(crate) async fn lowest_members(
        &self,
        index: &str,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<SessionKey>, Error> {
        self.members(&IndexRange { index, order: Order::Lowest, first: 0, count }, deadline).await
    }

    async fn members(
        &self,
        range: &IndexRange<'_>,
        deadline: Instant,
    ) -> Result<Vec<SessionKey>, Error> {
        let mut command;
        if let Order::LastToExpire(by) = range.order {
            command = redis::cmd("ZREVRANGEBYSCORE");
            command.arg(range.index).arg("+inf").arg(format!("({}", by.as_secs()));
            command.arg("LIMIT").arg(range.first).arg(range.count);
        } else {
            command = redis::cmd(range.order.command());
            command.arg(range.index).arg(&range.ranks());
        }
        let reply =
            self.servers().call(range.index, Access::ReadLatest, &command, deadline).await?;
        let Value::Array(members) = reply else { return Err(Error::unexpected_reply()) };
        let member = |member| read_member(&bytes(member)?.ok_or_else(Error::unexpected_reply)?);
        members.into_iter().map(member).collect()
    }

    /// Returns the user's records with these keys, as they are in this epoch.
    pub(crate) async fn records(
        &self,
        user: &UserId,
        session_keys: &[SessionKey],
        epoch: &Epoch,
        deadline: Instant,
    ) -> Result<ListedRecords, Error> {
        let keys = self.keys().of(user);
        let records = stream::iter(session_keys.to_vec()).map(|key| {
            let name = keys.session(&key);
            async move {
                let value = self.get(&name, Access::ReadLatest, deadline).await?;
                let stored = value.map(|value| StoredRecord::read(key, user, value, epoch));
                Ok((key, stored.transpose()?))
            }
        });
        records.buffered(MAX_CONCURRENT).try_collect().await
    }
}
