//! A user's epoch: raising it ends all of their sessions with one write.
//!
//! ```text
//! 3 1800000000 revoked 1800000060
//! ```
//!
//! The fields are a number that increases with each end of all sessions, when the last end was, its
//! reason, and until when its sessions are kept. Sessions that ended with an epoch are no longer in
//! the user's lists. They have a list of their own, from which [`purge`] removes them, and another
//! list names all of these lists.
//!
//! [`purge`]: tower_keep_core::SessionStore::purge

use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, End, Epoch, SessionKey, Timestamp, UserId};

use crate::RedisStore;
use crate::error::Error;
use crate::find::StoredRecord;
use crate::keys::{UserKeyNames, member};
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
                "a user's epoch (`epoch`) is not what this store has written: restore it, or \
                 delete it together with the user's session records",
            )
        };
        let epoch = text.and_then(read_line).ok_or_else(corrupt)?;
        Ok(Self { epoch, value })
    }

    /// Adds to a commit the condition that the epoch is unchanged.
    pub(crate) fn require_unchanged(&self, commit: &mut Commit, keys: &UserKeyNames) {
        match &self.value {
            Some(value) => commit.if_is(keys.epoch(), value.clone()),
            None => commit.if_absent(keys.epoch()),
        }
    }
}

fn write(number: u64, end: &End) -> Vec<u8> {
    let End { at, reason, keep_until, .. } = end;
    format!("{number} {} {reason} {}", at.as_secs(), keep_until.as_secs()).into_bytes()
}

fn read_line(text: &str) -> Option<Epoch> {
    let mut fields = text.split(' ');
    let mut next = || fields.next();
    let number = next()?.parse().ok()?;
    let at = Timestamp::from_secs(next()?.parse().ok()?);
    let reason = next()?.parse().ok()?;
    let keep_until = Timestamp::from_secs(next()?.parse().ok()?);
    let end = Some(End::new(at, reason, keep_until));
    fields.next().is_none().then(|| Epoch::new(number, end))
}

/// Raises a user's epoch, which ends all sessions except those in `stay`. Returns the new epoch's
/// number.
pub(crate) fn raise<'a>(
    commit: &mut Commit,
    keys: &UserKeyNames,
    before: &StoredEpoch,
    end: &End,
    stay: impl Iterator<Item = &'a StoredRecord>,
) -> u64 {
    let next = before.epoch.raised(end);
    let (number, past) = (next.number, keys.past(next.number));
    commit.rename(keys.begun(), past.clone());
    commit.unlink(keys.live());
    commit.set(keys.epoch(), write(number, &next.end.unwrap_or(*end)), Life::AsBefore);
    commit.outlive(keys.epoch(), past.clone());
    for stored in stay {
        set_record(commit, keys, Some(stored), &stored.record, number, end.at);
        commit.remove(past.clone(), member(&stored.record.key));
    }
    number
}

impl<U: AuthUser> RedisStore<U> {
    pub(crate) async fn epoch(
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
            let stored_epoch = self.epoch(&keys, Access::ReadLatest, deadline).await?;
            let mut count = redis::cmd("ZCARD");
            count.arg(keys.begun());
            let count =
                self.servers().call(&keys.begun(), Access::ReadLatest, &count, deadline).await?;
            if count == Value::Int(0) {
                return Ok(());
            }
            let except = except.map_or(&[][..], std::slice::from_ref);
            let stay = self.records(user, except, &stored_epoch.epoch, deadline).await?;
            let stay: Vec<_> = stay.into_iter().filter_map(|(_, stored)| stored).collect();
            let stay = stay.iter().filter(|stored| stored.record.ended.is_none());
            let mut commit = Commit::default();
            stored_epoch.require_unchanged(&mut commit, &keys);
            let number = raise(&mut commit, &keys, &stored_epoch, end, stay);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                self.note_past(user, number, end.keep_until, deadline).await;
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Notes that there are sessions to remove. If this fails, they are removed when they expire.
    pub(crate) async fn note_past(
        &self,
        user: &UserId,
        number: u64,
        keep_until: Timestamp,
        deadline: Instant,
    ) {
        let list = self.keys().past();
        let mut note = redis::cmd("ZADD");
        note.arg(&list).arg(keep_until.as_secs()).arg(format!("{number} {user}"));
        let _ = self.servers().call(&list, Access::ReadLatest, &note, deadline).await;
    }

    /// Removes at most `limit` sessions that ended with an epoch, and returns how many were
    /// removed.
    pub(crate) async fn purge_past(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let list = self.keys().past();
        let mut removed = 0;
        while removed < limit {
            let deadline = self.deadline();
            let mut first = redis::cmd("ZRANGEBYSCORE");
            first.arg(&list).arg("-inf").arg(before.as_secs()).arg("LIMIT").arg(0).arg(1);
            let found = self.servers().call(&list, Access::ReadLatest, &first, deadline).await?;
            let Value::Array(found) = found else { return Err(Error::unexpected_reply()) };
            let Some(note) = found.into_iter().next() else { break };
            let note = bytes(note)?.ok_or_else(Error::unexpected_reply)?;
            let (number, user) = read_note(&note)?;
            let keys = self.keys().of(&user);
            let past = keys.past(number);
            let count = MAX_CONCURRENT.min(limit - removed);
            let ended = self.lowest_members(&past, count, deadline).await?;
            let mut commit = Commit::default();
            if ended.is_empty() {
                commit.remove_bytes(list.clone(), note);
            }
            for key in &ended {
                commit.unlink(keys.session(key));
                commit.remove(past.clone(), member(key));
            }
            commit.run_unconfirmed(self.servers(), deadline).await?.ok();
            removed += ended.len();
        }
        Ok(removed)
    }
}

fn read_note(note: &[u8]) -> Result<(u64, UserId), Error> {
    let corrupt = || {
        Error::corrupt(
            "the list of ended sessions (`past`) holds a member that this store has not written: \
             remove that member",
        )
    };
    let text = std::str::from_utf8(note).map_err(|_| corrupt())?;
    let (number, user) = text.split_once(' ').ok_or_else(corrupt)?;
    Ok((number.parse().map_err(|_| corrupt())?, user.into()))
}

#[cfg(test)]
mod tests {
    use tower_keep_core::EndReason;

    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_was_written() {
        let end = End::new(Timestamp::from_secs(0), EndReason::Limit, Timestamp::MAX);
        let read = StoredEpoch::read(Some(write(7, &end))).unwrap();
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
        assert_eq!(read_note(b"3 a b").unwrap(), (3, "a b".into()));
        assert!(read_note(b"3").is_err() && read_note(b"x a").is_err());
    }
}
