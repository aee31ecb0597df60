//! Finds session records, by their keys or by a user's lists.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, Epoch, SessionKey, SessionRecord, Timestamp, UserId};

use crate::RedisStore;
use crate::epoch::OfUser;
use crate::error::{Cause, Error};
use crate::keys::read_member;
use crate::record::read;
use crate::script::{OWNER, RECORDS};
use crate::servers::Use;
use crate::sessions::{AT_ONCE, MARGIN};
use crate::store::{bytes, contended};

/// A record as it is now, and the value that it was read from.
pub(crate) struct Stored {
    pub(crate) record: SessionRecord,
    pub(crate) value: Vec<u8>,
    /// The epoch in which it was created.
    pub(crate) created_in: u64,
}

impl Stored {
    fn read(key: SessionKey, user: &UserId, value: Vec<u8>, epoch: &Epoch) -> Result<Self, Error> {
        let (record, created_in) = read(key, user.clone(), &value)?;
        Ok(Self { record: epoch.applied(created_in, record), value, created_in })
    }
}

impl AsRef<SessionRecord> for Stored {
    fn as_ref(&self) -> &SessionRecord {
        &self.record
    }
}

/// A part of an index.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) index: &'a str,
    pub(crate) order: Order,
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

impl Slice<'_> {
    /// Returns the first and the last rank.
    fn places(&self) -> [String; 2] {
        let last = self.first.saturating_add(self.count).saturating_sub(1);
        [self.first, last].map(|place| i64::try_from(place).unwrap_or(i64::MAX).to_string())
    }
}

/// The members of an index, each with its record, or with `None` if the record no longer exists.
pub(crate) type Listed = Vec<(SessionKey, Option<Stored>)>;

impl<U: AuthUser> RedisStore<U> {
    /// Returns the user whom this session belongs to. With `at_least`, the key that says so lives
    /// for at least that many milliseconds from now on.
    pub(crate) async fn owner(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<UserId>, Error> {
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
            |_| Error::corrupt("the user of a session is not what this store has written");
        text.map(UserId::from).map(Some).map_err(corrupt)
    }

    /// Returns the record with this key, and its user's epoch. The caller does not know the user.
    pub(crate) async fn find(
        &self,
        key: &SessionKey,
        at_least: Option<u64>,
        whose: Use,
        deadline: Instant,
    ) -> Result<Option<(Stored, OfUser)>, Error> {
        let Some(user) = self.owner(key, at_least, whose, deadline).await? else {
            return Ok(None);
        };
        let keys = self.keys().of(&user);
        let names = [keys.session(key), keys.epoch()];
        let names = names.each_ref().map(String::as_str);
        let [value, epoch] = self.get_all(names, 1, whose, deadline).await?;
        let Some(value) = value else { return Ok(None) };
        let of_user = OfUser::read(epoch)?;
        Ok(Some((Stored::read(*key, &user, value, &of_user.epoch)?, of_user)))
    }

    /// Returns records of an index and the user's epoch, all read at the same moment.
    pub(crate) async fn listed(
        &self,
        user: &UserId,
        slice: Slice<'_>,
        deadline: Instant,
    ) -> Result<(Listed, OfUser), Error> {
        let keys = self.keys().of(user);
        let (prefix, epoch) = (keys.sessions(), keys.epoch());
        let [first, last] = slice.places();
        let expired_by = match slice.order {
            Order::LastToExpire(by) => by.as_secs().to_string(),
            Order::Lowest | Order::Highest => String::new(),
        };
        let command = slice.order.command();
        let arguments = [&prefix, command, &first, &last, &expired_by].map(str::as_bytes);
        let names = [slice.index, &epoch];
        let reply =
            RECORDS.run(self.servers(), Use::ReadLatest, &names, &arguments, deadline).await;
        let reply = match reply {
            Ok(Value::Array(reply)) => reply,
            Ok(_) => return Err(Error::unexpected_reply()),
            Err(error) if error.cause == Cause::TryAgain => {
                return self.listed_singly(user, slice, deadline).await;
            }
            Err(error) => return Err(error),
        };
        let mut reply = reply.into_iter();
        let of_user = OfUser::read(reply.next().map(bytes).transpose()?.flatten())?;
        let mut listed = Listed::new();
        while let (Some(member), Some(value)) = (reply.next(), reply.next()) {
            let key = read_member(&bytes(member)?.ok_or_else(Error::unexpected_reply)?)?;
            let Some(value) = bytes(value)? else {
                // The record has expired, or it is on another node while the slot moves.
                return self.listed_singly(user, slice, deadline).await;
            };
            listed.push((key, Some(Stored::read(key, user, value, &of_user.epoch)?)));
        }
        Ok((listed, of_user))
    }

    /// Does the same by commands that each read one key, and so find it on whichever node it is.
    /// Every change of the set of sessions also changes the index or the epoch, so the result is
    /// consistent if neither has changed.
    async fn listed_singly(
        &self,
        user: &UserId,
        slice: Slice<'_>,
        deadline: Instant,
    ) -> Result<(Listed, OfUser), Error> {
        let keys = self.keys().of(user);
        let look = async || {
            let members = self.slice(&slice, deadline).await?;
            Ok::<_, Error>((members, self.epoch(&keys, Use::ReadLatest, deadline).await?))
        };
        let mut before = look().await?;
        while Instant::now() < deadline {
            let listed = self.named(user, &before.0, &before.1.epoch, deadline).await?;
            let after = look().await?;
            if after.0 == before.0 && after.1.epoch == before.1.epoch {
                return Ok((listed, after.1));
            }
            before = after;
        }
        Err(contended())
    }

    /// Returns at most `count` members of an index, beginning at the rank `first`.
    pub(crate) async fn members(
        &self,
        index: &str,
        first: usize,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<SessionKey>, Error> {
        self.slice(&Slice { index, order: Order::Lowest, first, count }, deadline).await
    }

    async fn slice(&self, slice: &Slice<'_>, deadline: Instant) -> Result<Vec<SessionKey>, Error> {
        let mut command;
        if let Order::LastToExpire(by) = slice.order {
            command = redis::cmd("ZREVRANGEBYSCORE");
            command.arg(slice.index).arg("+inf").arg(format!("({}", by.as_secs()));
            command.arg("LIMIT").arg(slice.first).arg(slice.count);
        } else {
            command = redis::cmd(slice.order.command());
            command.arg(slice.index).arg(&slice.places());
        }
        let reply = self.servers().ask(slice.index, Use::ReadLatest, &command, deadline).await?;
        let Value::Array(members) = reply else { return Err(Error::unexpected_reply()) };
        let member = |member| read_member(&bytes(member)?.ok_or_else(Error::unexpected_reply)?);
        members.into_iter().map(member).collect()
    }

    /// Returns the records with these keys, as they are in this epoch of their user.
    pub(crate) async fn named(
        &self,
        user: &UserId,
        these: &[SessionKey],
        epoch: &Epoch,
        deadline: Instant,
    ) -> Result<Listed, Error> {
        let keys = self.keys().of(user);
        let records = stream::iter(these.to_vec()).map(|key| {
            let name = keys.session(&key);
            async move {
                let value = self.get(&name, Use::ReadLatest, deadline).await?;
                let stored = value.map(|value| Stored::read(key, user, value, epoch));
                Ok((key, stored.transpose()?))
            }
        });
        records.buffered(AT_ONCE).try_collect().await
    }
}
