//! A user's epoch: a number that is stored for each user. Raising it ends all of the user's
//! sessions with one write, because a record that was created in a lower epoch counts as ended.
//!
//! ```text
//! 3 1800000000 revoked 1800000060
//! ```
//!
//! The fields are the number, the time at which the last such write ended all sessions, the reason,
//! and the time until which these sessions are kept.
//!
//! When a new epoch begins, the sessions that it ends move to an index of their own
//! ([`UserKeyNames::ended_by_epoch`]). The new epoch is also added to the purge queue
//! ([`KeyNames::purge_queue`]), a sorted set for all users. [`purge`] takes the epochs from there,
//! and deletes the records in their indexes.
//!
//! [`KeyNames::purge_queue`]: crate::keys::KeyNames::purge_queue
//! [`purge`]: tower_keep_core::SessionStore::purge

use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, End, Epoch, SessionKey, Timestamp, UserId};

use crate::RedisStore;
use crate::error::Error;
use crate::find::StoredRecord;
use crate::keys::{UserKeyNames, encode_session_key};
use crate::script::{Commit, Life};
use crate::servers::Access;
use crate::sessions::{MAX_CONCURRENT, set_record};
use crate::store::{bytes, contended};

/// A user's epoch, and the value that it was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredEpoch {
    pub(crate) epoch: Epoch,
    value: Option<Vec<u8>>,
}

impl StoredEpoch {
    pub(crate) fn read(value: Option<Vec<u8>>) -> Result<Self, Error> {
        let Some(bytes) = &value else { return Ok(Self::default()) };
        let text = std::str::from_utf8(bytes).ok();
        let corrupt = || {
            Error::corrupt(
                "the key of a user's epoch, which ends in `:epoch`, holds a value that this store \
                 has not written: restore the key, or delete it together with the user's session \
                 records",
            )
        };
        let epoch = text.and_then(parse_epoch).ok_or_else(corrupt)?;
        Ok(Self { epoch, value })
    }

    /// Adds to a commit the condition that the epoch is unchanged.
    pub(crate) fn require_unchanged(&self, commit: &mut Commit, keys: &UserKeyNames) {
        match &self.value {
            Some(value) => commit.require_value(keys.epoch(), value.clone()),
            None => commit.require_absent(keys.epoch()),
        }
    }
}

fn write_epoch(number: u64, end: &End) -> Vec<u8> {
    let End { at, reason, keep_until, .. } = end;
    format!("{number} {} {reason} {}", at.as_secs(), keep_until.as_secs()).into_bytes()
}

fn parse_epoch(text: &str) -> Option<Epoch> {
    let mut fields = text.split(' ');
    let mut next = || fields.next();
    let number = next()?.parse().ok()?;
    let at = Timestamp::from_secs(next()?.parse().ok()?);
    let reason = next()?.parse().ok()?;
    let keep_until = Timestamp::from_secs(next()?.parse().ok()?);
    let end = Some(End::new(at, reason, keep_until));
    fields.next().is_none().then(|| Epoch::new(number, end))
}

/// Adds to a commit the steps that raise a user's epoch, which ends all sessions except those in
/// `stay`. Returns the new epoch's number.
pub(crate) fn raise_epoch<'a>(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: &StoredEpoch,
    end: &End,
    stay: impl Iterator<Item = &'a StoredRecord>,
) -> u64 {
    let next = before.epoch.raised(end);
    let (number, ended) = (next.number, keys.ended_by_epoch(next.number));
    commit.rename(keys.sessions_by_login_time(), ended.clone());
    commit.unlink(keys.sessions_by_expiry());
    commit.set(keys.epoch(), write_epoch(number, &next.end.unwrap_or(*end)), Life::AsBefore);
    commit.outlive(keys.epoch(), ended.clone());
    for stored in stay {
        set_record(commit, keys, Some(stored), &stored.record, number, end.at);
        commit.remove_member(ended.clone(), encode_session_key(&stored.record.key));
    }
    number
}

impl<U: AuthUser> RedisStore<U> {
    pub(crate) async fn read_epoch(
        &self,
        keys: &UserKeyNames,
        access: Access,
        deadline: Instant,
    ) -> Result<StoredEpoch, Error> {
        StoredEpoch::read(self.get(&keys.epoch(), access, deadline).await?)
    }

    /// Ends all of a user's sessions, or all except one.
    pub(crate) async fn end_all_sessions(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
        deadline: Instant,
    ) -> Result<(), Error> {
        let keys = self.keys().of(user);
        while Instant::now() < deadline {
            let stored_epoch = self.read_epoch(&keys, Access::ReadLatest, deadline).await?;
            let mut count = redis::cmd("ZCARD");
            count.arg(keys.sessions_by_login_time());
            let count = self
                .servers()
                .call(&keys.sessions_by_login_time(), Access::ReadLatest, &count, deadline)
                .await?;
            if count == Value::Int(0) {
                return Ok(());
            }
            let except = except.map_or(&[][..], std::slice::from_ref);
            let stay = self.read_records(user, except, &stored_epoch.epoch, deadline).await?;
            let stay: Vec<_> = stay.into_iter().filter_map(|(_, stored)| stored).collect();
            let stay = stay.iter().filter(|stored| stored.record.ended.is_none());
            let mut commit = Commit::default();
            stored_epoch.require_unchanged(&mut commit, &keys);
            let number = raise_epoch(&mut commit, &keys, &stored_epoch, end, stay);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                self.queue_for_purge(user, number, end.keep_until, deadline).await;
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Adds an epoch of a user to the purge queue: the sessions that it ended can be removed after
    /// `keep_until`. If this fails, Redis removes these sessions when they expire.
    pub(crate) async fn queue_for_purge(
        &self,
        user: &UserId,
        number: u64,
        keep_until: Timestamp,
        deadline: Instant,
    ) {
        let queue = self.keys().purge_queue();
        let mut add = redis::cmd("ZADD");
        add.arg(&queue).arg(keep_until.as_secs()).arg(format!("{number} {user}"));
        let _ = self.servers().call(&queue, Access::UNCONFIRMED_WRITE, &add, deadline).await;
    }

    /// Removes at most `limit` sessions that ended because a new epoch began and whose `keep_until`
    /// is at most `before`. Returns how many were removed.
    pub(crate) async fn purge_ended_by_epochs(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        let queue = self.keys().purge_queue();
        let mut removed = 0;
        while removed < limit {
            let deadline = self.deadline();
            let mut first = redis::cmd("ZRANGEBYSCORE");
            first.arg(&queue).arg("-inf").arg(before.as_secs()).arg("LIMIT").arg(0).arg(1);
            let found = self.servers().call(&queue, Access::ReadLatest, &first, deadline).await?;
            let Value::Array(found) = found else { return Err(Error::unexpected_reply()) };
            let Some(entry) = found.into_iter().next() else { break };
            let entry = bytes(entry)?.ok_or_else(Error::unexpected_reply)?;
            let (number, user) = parse_queue_entry(&entry)?;
            let keys = self.keys().of(&user);
            let index = keys.ended_by_epoch(number);
            let count = MAX_CONCURRENT.min(limit - removed);
            let ended = self.lowest_members(&index, count, deadline).await?;
            let mut commit = Commit::default();
            if ended.is_empty() {
                commit.remove_member_bytes(queue.clone(), entry);
            }
            for key in &ended {
                commit.unlink(keys.session(key));
                commit.remove_member(index.clone(), encode_session_key(key));
            }
            commit.run_unconfirmed(self.servers(), deadline).await?.ok();
            removed += ended.len();
        }
        Ok(removed)
    }
}

/// Returns the number of the epoch and the user that a member of the purge queue names.
fn parse_queue_entry(entry: &[u8]) -> Result<(u64, UserId), Error> {
    let corrupt = || {
        Error::corrupt(
            "the sorted set of the epochs to purge, whose key is the prefix and `past`, has a \
             member that this store has not written: remove this member",
        )
    };
    let text = std::str::from_utf8(entry).map_err(|_| corrupt())?;
    let (number, user) = text.split_once(' ').ok_or_else(corrupt)?;
    Ok((number.parse().map_err(|_| corrupt())?, user.into()))
}

#[cfg(test)]
mod tests {
    use tower_keep_core::EndReason;

    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_was_written_and_an_error_does_not_quote_it() {
        let end = End::new(Timestamp::from_secs(0), EndReason::Limit, Timestamp::MAX);
        let read = StoredEpoch::read(Some(write_epoch(7, &end))).unwrap();
        assert_eq!(read.epoch, Epoch::new(7, Some(end)));
        assert_eq!(StoredEpoch::read(None).unwrap().epoch, Epoch::default());
        for bad in [
            "",
            "7",
            "x 0 limit 1",
            "secret 0 limit 1",
            "7 0 Secret! 1",
            "7 0 limit",
            "7 0 limit 1 2",
        ] {
            let error = StoredEpoch::read(Some(bad.into())).unwrap_err();
            assert!(!format!("{error:?}").to_lowercase().contains("secret"), "{bad}");
        }
        assert_eq!(parse_queue_entry(b"3 a b").unwrap(), (3, "a b".into()));
        assert!(parse_queue_entry(b"3").is_err() && parse_queue_entry(b"x a").is_err());
    }
}
