//! Removes the records of sessions that ended because a new epoch began. Redis removes all other
//! records when they expire.

use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{AuthUser, Timestamp, UserId};

use crate::access::Access;
use crate::error::Error;
use crate::keys::encode_session_key;
use crate::script::Commit;
use crate::store::{MAX_CONCURRENT, RedisStore, bytes};

impl<U: AuthUser> RedisStore<U> {
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
    use super::*;

    #[test]
    fn a_member_of_the_purge_queue_names_an_epoch_and_a_user() {
        assert_eq!(parse_queue_entry(b"3 a b").unwrap(), (3, "a b".into()));
        assert!(parse_queue_entry(b"3").is_err() && parse_queue_entry(b"x a").is_err());
    }
}
