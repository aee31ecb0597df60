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
use crate::find::Stored;
use crate::keys::{UserKeyNames, member};
use crate::script::{Commit, Life};
use crate::servers::Use;
use crate::sessions::{AT_ONCE, put};
use crate::store::{bytes, contended};

/// A user's epoch, and the value that it was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfUser {
    pub(crate) epoch: Epoch,
    value: Option<Vec<u8>>,
}

impl OfUser {
    pub(crate) fn read(value: Option<Vec<u8>>) -> Result<Self, Error> {
        let Some(bytes) = &value else { return Ok(Self::default()) };
        let text = std::str::from_utf8(bytes).ok();
        let corrupt = || Error::corrupt("a user's epoch is not what this store has written");
        let epoch = text.and_then(read_line).ok_or_else(corrupt)?;
        Ok(Self { epoch, value })
    }

    /// Adds to a commit the condition that the epoch is unchanged.
    pub(crate) fn hold(&self, commit: &mut Commit, keys: &UserKeyNames) {
        match &self.value {
            Some(value) => commit.if_is(keys.epoch(), value.clone()),
            None => commit.if_absent(keys.epoch()),
        }
    }
}

fn write(number: u64, end: &End) -> Vec<u8> {
    let End { at, reason, keep_until } = end;
    format!("{number} {} {reason} {}", at.as_secs(), keep_until.as_secs()).into_bytes()
}

fn read_line(text: &str) -> Option<Epoch> {
    let mut words = text.split(' ');
    let mut next = || words.next();
    let number = next()?.parse().ok()?;
    let at = Timestamp::from_secs(next()?.parse().ok()?);
    let reason = next()?.parse().ok()?;
    let keep_until = Timestamp::from_secs(next()?.parse().ok()?);
    words.next().is_none().then_some(Epoch { number, end: Some(End { at, reason, keep_until }) })
}

/// Raises a user's epoch, which ends all sessions except those in `stay`. Returns the new epoch's
/// number.
pub(crate) fn raise<'a>(
    commit: &mut Commit,
    keys: &UserKeyNames,
    of_user: &OfUser,
    end: &End,
    stay: impl Iterator<Item = &'a Stored>,
) -> u64 {
    let next = of_user.epoch.raised(end);
    let (number, past) = (next.number, keys.past(next.number));
    commit.rename(keys.begun(), past.clone());
    commit.unlink(keys.live());
    commit.set(keys.epoch(), write(number, &next.end.unwrap_or(*end)), Life::AsBefore);
    commit.outlive(keys.epoch(), past.clone());
    for stored in stay {
        put(commit, keys, Some(stored), &stored.record, number, end.at);
        commit.remove(past.clone(), member(&stored.record.key));
    }
    number
}

impl<U: AuthUser> RedisStore<U> {
    pub(crate) async fn epoch(
        &self,
        keys: &UserKeyNames,
        whose: Use,
        deadline: Instant,
    ) -> Result<OfUser, Error> {
        OfUser::read(self.get(&keys.epoch(), whose, deadline).await?)
    }

    /// Ends all of a user's sessions, or all but one.
    pub(crate) async fn ended_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
        deadline: Instant,
    ) -> Result<(), Error> {
        let keys = self.keys().of(user);
        while Instant::now() < deadline {
            let of_user = self.epoch(&keys, Use::ReadLatest, deadline).await?;
            let mut count = redis::cmd("ZCARD");
            count.arg(keys.begun());
            let count =
                self.servers().ask(&keys.begun(), Use::ReadLatest, &count, deadline).await?;
            if count == Value::Int(0) {
                return Ok(());
            }
            let but = but.map_or(&[][..], std::slice::from_ref);
            let stay = self.named(user, but, &of_user.epoch, deadline).await?;
            let stay: Vec<_> = stay.into_iter().filter_map(|(_, stored)| stored).collect();
            let stay = stay.iter().filter(|stored| stored.record.ended.is_none());
            let mut commit = Commit::default();
            of_user.hold(&mut commit, &keys);
            let number = raise(&mut commit, &keys, &of_user, end, stay);
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
        let _ = self.servers().ask(&list, Use::ReadLatest, &note, deadline).await;
    }

    /// Removes at most `most` sessions that ended with an epoch, and returns how many were removed.
    pub(crate) async fn purged_past(&self, before: Timestamp, most: usize) -> Result<usize, Error> {
        let list = self.keys().past();
        let mut removed = 0;
        while removed < most {
            let deadline = self.deadline();
            let mut first = redis::cmd("ZRANGEBYSCORE");
            first.arg(&list).arg("-inf").arg(before.as_secs()).arg("LIMIT").arg(0).arg(1);
            let found = self.servers().ask(&list, Use::ReadLatest, &first, deadline).await?;
            let Value::Array(found) = found else { return Err(Error::unexpected_reply()) };
            let Some(note) = found.into_iter().next() else { break };
            let note = bytes(note)?.ok_or_else(Error::unexpected_reply)?;
            let (number, user) = read_note(&note)?;
            let keys = self.keys().of(&user);
            let past = keys.past(number);
            let some = self.members(&past, 0, AT_ONCE.min(most - removed), deadline).await?;
            if some.is_empty() {
                let mut done = Commit::default();
                done.remove_bytes(list.clone(), note);
                done.run_unconfirmed(self.servers(), deadline).await?.ok();
                continue;
            }
            let mut commit = Commit::default();
            for key in &some {
                commit.unlink(keys.session(key));
                commit.remove(past.clone(), member(key));
            }
            commit.run_unconfirmed(self.servers(), deadline).await?.ok();
            removed += some.len();
        }
        Ok(removed)
    }
}

fn read_note(note: &[u8]) -> Result<(u64, UserId), Error> {
    let corrupt =
        || Error::corrupt("the list of ended sessions holds what is no note of this store");
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
        let end = End {
            at: Timestamp::from_secs(0),
            reason: EndReason::Limit,
            keep_until: Timestamp::MAX,
        };
        let read = OfUser::read(Some(write(7, &end))).unwrap();
        assert_eq!(read.epoch, Epoch { number: 7, end: Some(end) });
        assert_eq!(OfUser::read(None).unwrap().epoch, Epoch::default());
        for bad in [
            "",
            "7",
            "x 0 limit 1",
            "secret 0 limit 1",
            "7 0 Secret! 1",
            "7 0 limit",
            "7 0 limit 1 2",
        ] {
            let error = OfUser::read(Some(bad.into())).unwrap_err();
            assert!(!format!("{error:?}").to_lowercase().contains("secret"), "{bad}");
        }
        assert_eq!(read_note(b"3 a b").unwrap(), (3, "a b".into()));
        assert!(read_note(b"3").is_err() && read_note(b"x a").is_err());
    }
}
