//! Finds session records, by their keys or in a user's indexes.
//!
//! An index is a sorted set whose members are session keys, encoded as text.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, Epoch, SessionKey, Timestamp, UserId};

use crate::access::Access;
use crate::epoch::StoredEpoch;
use crate::error::{Cause, Error};
use crate::keys::{UserKeyNames, decode_session_key};
use crate::life::OWNER_MARGIN;
use crate::script::{OWNER, RECORDS};
use crate::store::{MAX_CONCURRENT, RedisStore, bytes};
use crate::write_session::StoredRecord;

/// A range of the members of an index, by rank.
#[derive(Clone, Copy)]
pub(crate) struct IndexRange<'a> {
    pub(crate) index: &'a str,
    pub(crate) order: Order,
    /// The rank of the first member, counted from 0.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// The order of an index's members, by score.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    LowestFirst,
    HighestFirst,
    /// The highest first, and only members with a higher score than this time. In the index by
    /// expiry these are the sessions that have not expired by this time.
    HighestFirstAbove(Timestamp),
}

impl Order {
    fn command(self) -> &'static str {
        match self {
            Self::LowestFirst => "ZRANGE",
            Self::HighestFirst | Self::HighestFirstAbove(_) => "ZREVRANGE",
        }
    }
}

impl IndexRange<'_> {
    /// Returns the first and the last rank, as arguments of a command.
    fn ranks(&self) -> [String; 2] {
        let last = self.first.saturating_add(self.count).saturating_sub(1);
        [self.first, last].map(|rank| i64::try_from(rank).unwrap_or(i64::MAX).to_string())
    }
}

/// The members of an index, each with its record, or with `None` if the record no longer exists.
pub(crate) type ListedRecords = Vec<(SessionKey, Option<StoredRecord>)>;

impl<U: AuthUser> RedisStore<U> {
    /// Returns the user whom this session belongs to, as the session's owner key says.
    ///
    /// `record_life` is how long the caller is going to keep the record, in milliseconds from now
    /// on. If it is given, the owner key is kept for longer than that.
    pub(crate) async fn session_owner(
        &self,
        key: &SessionKey,
        record_life: Option<u64>,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<UserId>, Error> {
        let name = self.keys().session_owner(key);
        let value = match record_life {
            None => self.get(&name, access, deadline).await?,
            Some(millis) => {
                let millis = (millis + OWNER_MARGIN).to_string();
                let arguments = [millis.as_bytes()];
                let reply =
                    OWNER.run(self.servers(), Access::Write, &[&name], &arguments, deadline).await;
                bytes(reply?)?
            }
        };
        let Some(value) = value else { return Ok(None) };
        let text = String::from_utf8(value);
        let corrupt = |_| {
            Error::corrupt(
                "the key that names the user of a session, which is the prefix and `session:…`, \
                 holds a value that this store has not written: delete the key, and the user logs \
                 in again",
            )
        };
        text.map(UserId::from).map(Some).map_err(corrupt)
    }

    pub(crate) async fn read_epoch(
        &self,
        keys: &UserKeyNames,
        access: Access,
        deadline: Instant,
    ) -> Result<StoredEpoch, Error> {
        StoredEpoch::read(self.get(&keys.epoch(), access, deadline).await?)
    }

    /// Returns the record with this key, and the epoch of the record's user, for a caller that does
    /// not know the user. `record_life` means the same as in
    /// [`session_owner`](Self::session_owner).
    pub(crate) async fn find_record(
        &self,
        key: &SessionKey,
        record_life: Option<u64>,
        access: Access,
        deadline: Instant,
    ) -> Result<Option<(StoredRecord, StoredEpoch)>, Error> {
        let Some(user) = self.session_owner(key, record_life, access, deadline).await? else {
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
        let (prefix, epoch) = (keys.session_prefix(), keys.epoch());
        let [first, last] = range.ranks();
        let above = match range.order {
            Order::HighestFirstAbove(time) => time.as_secs().to_string(),
            Order::LowestFirst | Order::HighestFirst => String::new(),
        };
        let command = range.order.command();
        let arguments = [&prefix, command, &first, &last, &above].map(str::as_bytes);
        let names = [range.index, &epoch];
        let reply =
            RECORDS.run(self.servers(), Access::ReadLatest, &names, &arguments, deadline).await;
        let reply = match reply {
            Ok(Value::Array(reply)) => reply,
            Ok(_) => return Err(Error::unexpected_reply()),
            Err(error) if error.cause == Cause::TryAgain => {
                return self.list_records_one_by_one(user, range, deadline).await;
            }
            Err(error) => return Err(error),
        };
        let mut reply = reply.into_iter();
        let stored_epoch = StoredEpoch::read(reply.next().map(bytes).transpose()?.flatten())?;
        let mut listed = ListedRecords::new();
        while let (Some(member), Some(value)) = (reply.next(), reply.next()) {
            let key = decode_session_key(&bytes(member)?.ok_or_else(Error::unexpected_reply)?)?;
            let Some(value) = bytes(value)? else {
                // Either the record has expired, or its slot is moving and the record is on another
                // node.
                return self.list_records_one_by_one(user, range, deadline).await;
            };
            listed.push((key, Some(StoredRecord::read(key, user, value, &stored_epoch.epoch)?)));
        }
        Ok((listed, stored_epoch))
    }

    /// Does the same as [`list_records`](Self::list_records) with one command for each key. While a
    /// slot moves, each key may be on another node, and a command for one key is sent to the right
    /// node.
    ///
    /// A call that begins or ends sessions also changes the index or the epoch. So the records
    /// belong together if the index and the epoch are the same before and after they are read.
    async fn list_records_one_by_one(
        &self,
        user: &UserId,
        range: IndexRange<'_>,
        deadline: Instant,
    ) -> Result<(ListedRecords, StoredEpoch), Error> {
        let keys = self.keys().of(user);
        let read_index_and_epoch = async || {
            let members = self.read_members(&range, deadline).await?;
            Ok::<_, Error>((members, self.read_epoch(&keys, Access::ReadLatest, deadline).await?))
        };
        let mut before = read_index_and_epoch().await?;
        while Instant::now() < deadline {
            let listed = self.read_records(user, &before.0, &before.1.epoch, deadline).await?;
            let after = read_index_and_epoch().await?;
            if after.0 == before.0 && after.1.epoch == before.1.epoch {
                return Ok((listed, after.1));
            }
            before = after;
        }
        Err(Error::contended())
    }

    /// Returns the first `count` members of an index, the lowest score first.
    pub(crate) async fn lowest_members(
        &self,
        index: &str,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<SessionKey>, Error> {
        self.read_members(
            &IndexRange { index, order: Order::LowestFirst, first: 0, count },
            deadline,
        )
        .await
    }

    async fn read_members(
        &self,
        range: &IndexRange<'_>,
        deadline: Instant,
    ) -> Result<Vec<SessionKey>, Error> {
        let mut command;
        if let Order::HighestFirstAbove(time) = range.order {
            command = redis::cmd("ZREVRANGEBYSCORE");
            command.arg(range.index).arg("+inf").arg(format!("({}", time.as_secs()));
            command.arg("LIMIT").arg(range.first).arg(range.count);
        } else {
            command = redis::cmd(range.order.command());
            command.arg(range.index).arg(&range.ranks());
        }
        let reply =
            self.servers().call(range.index, Access::ReadLatest, &command, deadline).await?;
        let Value::Array(members) = reply else { return Err(Error::unexpected_reply()) };
        let decode =
            |member| decode_session_key(&bytes(member)?.ok_or_else(Error::unexpected_reply)?);
        members.into_iter().map(decode).collect()
    }

    /// Returns the user's records with these keys. `epoch` is the user's current epoch.
    pub(crate) async fn read_records(
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
