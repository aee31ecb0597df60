//! What a login writes: its record, and the ends of those that it takes the place of.

use std::sync::Arc;

use futures_util::future::try_join5;
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, NewLogin, SessionKey, SessionRecord, StoreErrorKind,
};

use crate::RedisStore;
use crate::error::Fault;
use crate::find::{Listed, Stored};
use crate::keys::member;
use crate::script::{Commit, Life, Refused};
use crate::servers::Use;
use crate::sessions::{MARGIN, life, put};
use crate::store::contended;

/// So many logins in one browser at once are followed.
const LONGEST_CHAIN: usize = 100;

/// A user's list forgets sessions that expired so long ago, in seconds, with whatever is left of them.
const PRUNED_AFTER: u32 = 24 * 3_600;

impl<U: AuthUser> RedisStore<U> {
    /// The session that stands for this one: itself, or the last of its successors, unless that is
    /// `except` or has ended otherwise.
    async fn standing_for(
        &self,
        key: &SessionKey,
        except: &SessionKey,
        deadline: Instant,
    ) -> Result<Option<Stored>, Fault> {
        let mut key = *key;
        // Two logins that replace each other's sessions would lead around in a circle.
        for _ in 0..LONGEST_CHAIN {
            if key == *except {
                break;
            }
            let found = self.find(&key, None, Use::ReadLatest, deadline).await?;
            let Some(stored) = found else { return Ok(None) };
            match &stored.record.ended {
                None => return Ok(Some(stored)),
                Some(Ended { successor: Some(successor), .. }) => key = *successor,
                Some(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(crate) async fn created(&self, login: &NewLogin<'_>) -> Result<Creation, Fault> {
        let deadline = self.deadline();
        while Instant::now() < deadline {
            if let Some((creation, elsewhere)) = self.create_once(login, deadline).await? {
                let replaced = self.replace_elsewhere(login, &elsewhere, deadline).await;
                return replaced.map(|()| creation).map_err(Fault::after_writing);
            }
        }
        Err(contended())
    }

    /// Tries to; `None` if others were quicker with something that it depends on. Answers, too, which
    /// sessions of other users are still to be replaced.
    async fn create_once(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<Option<(Creation, Vec<SessionKey>)>, Fault> {
        let NewLogin { record, ended_until: until, limit, .. } = *login;
        let (user, now) = (&record.user, record.created);
        let keys = self.keys().of(user);
        // All at once; what each of them finds is a condition of the change.
        let (live, untold) = (keys.live(), keys.untold());
        // What has long expired; if that goes wrong, the next login sees to it.
        let mut prune = Commit::default();
        prune.prune(keys.live(), now.minus(PRUNED_AFTER).as_secs(), keys.sessions());
        let pruned = async {
            let _ = prune.run_unconfirmed(self.servers(), deadline).await;
            Ok::<_, Fault>(())
        };
        let (_, own, replaced, live, untold) = try_join5(
            pruned,
            self.own(record, deadline),
            self.replaced(login, deadline),
            async {
                match limit {
                    Some(_) => self.listed(user, &live, deadline).await,
                    None => Ok(Listed::new()),
                }
            },
            self.listed(user, &untold, deadline),
        )
        .await?;
        let taken = || Fault::new(StoreErrorKind::Conflict, "the session's key is taken");
        own.map_err(|_| taken())?;
        let (replaced, elsewhere): (Vec<_>, Vec<_>) =
            replaced.into_iter().partition(|stored| stored.record.user == *user);
        let elsewhere: Vec<_> = elsewhere.iter().map(|stored| stored.record.key).collect();
        let mut commit = Commit::default();
        put(&mut commit, &keys, None, record, now);
        let mut changes: Vec<(Stored, SessionRecord)> = Vec::new();
        let mut over_limit = Vec::new();
        if let Some(limit) = limit {
            let members: Vec<_> = live.iter().map(|(key, _)| member(key)).collect();
            commit.if_lists(keys.live(), members.clone());
            let is_replaced =
                |key: &SessionKey| replaced.iter().any(|known| known.record.key == *key);
            let mut others = Vec::new();
            for (key, stored) in live {
                match stored {
                    Some(stored) if stored.record.is_live(now) && !is_replaced(&key) => {
                        others.push(stored);
                    }
                    Some(_) => {}
                    None => commit.remove(keys.live(), member(&key)),
                }
            }
            let Some(oldest) = limit.surplus(others) else {
                let is_taken = self.find(&record.key, None, Use::ReadLatest, deadline).await?;
                if is_taken.is_some() {
                    return Err(taken());
                }
                let mut unchanged = Commit::default();
                unchanged.if_lists(keys.live(), members);
                if unchanged.run(self.servers(), deadline).await?.is_err() {
                    return Ok(None);
                }
                self.disown(record, deadline).await?;
                return Ok(Some((Creation::Full, Vec::new())));
            };
            let how = End { at: now, reason: EndReason::Limit, keep_until: until };
            for stored in oldest {
                let Some(after) = how.after(&stored.record, None) else { continue };
                over_limit.push(Arc::new(stored.record.clone()));
                changes.push((stored, after));
            }
        }
        let how = End { at: now, reason: EndReason::Replaced, keep_until: until };
        for stored in replaced {
            let after = how.after(&stored.record, Some(record.key));
            changes.extend(after.map(|after| (stored, after)));
        }
        let mut replays = Vec::new();
        for (key, stored) in untold {
            let told = stored.and_then(|stored| stored.record.told().map(|after| (stored, after)));
            let Some((stored, after)) = told else {
                commit.remove(keys.untold(), member(&key));
                continue;
            };
            replays.push(Arc::new(stored.record.clone()));
            changes.push((stored, after));
        }
        let ends = changes.iter().map(|(stored, after)| (&stored.record, after));
        self.keep_owners(ends, now, deadline).await?;
        for (stored, after) in &changes {
            put(&mut commit, &keys, Some(stored), after, now);
        }
        match commit.run(self.servers(), deadline).await? {
            Ok(()) => Ok(Some((Creation::Created { ended: over_limit, replays }, elsewhere))),
            Err(Refused(0)) => Err(taken()),
            Err(_) => Ok(None),
        }
    }

    /// Writes whose session this will be, unless it is somebody else's.
    async fn own(
        &self,
        record: &SessionRecord,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Fault> {
        let (name, user) = (self.keys().owner(&record.key), record.user.as_bytes());
        let millis = life(record.expires, record.created) + MARGIN;
        let mut owner = Commit::default();
        owner.if_absent_or_is(name.clone(), user);
        owner.set(name, user.to_vec(), Life::Millis(millis));
        owner.run(self.servers(), deadline).await
    }

    /// Takes that back.
    async fn disown(&self, record: &SessionRecord, deadline: Instant) -> Result<(), Fault> {
        let name = self.keys().owner(&record.key);
        let mut owner = Commit::default();
        owner.if_is(name.clone(), record.user.as_bytes());
        owner.delete(name);
        owner.run(self.servers(), deadline).await.map(drop)
    }

    /// The sessions that a new login takes the place of, whoever's they are.
    async fn replaced(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<Vec<Stored>, Fault> {
        let mut replaced: Vec<Stored> = Vec::new();
        for key in login.replacing {
            let standing = self.standing_for(key, &login.record.key, deadline).await?;
            let is_new = |stored: &Stored| {
                replaced.iter().all(|known| known.record.key != stored.record.key)
            };
            replaced.extend(standing.filter(is_new));
        }
        Ok(replaced)
    }

    /// Ends the sessions of other users that a new login takes the place of.
    async fn replace_elsewhere(
        &self,
        login: &NewLogin<'_>,
        elsewhere: &[SessionKey],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let record = login.record;
        let how =
            End { at: record.created, reason: EndReason::Replaced, keep_until: login.ended_until };
        for key in elsewhere {
            loop {
                let standing = self.standing_for(key, &record.key, deadline).await?;
                let Some(stored) = standing else { break };
                let Some(after) = how.after(&stored.record, Some(record.key)) else { break };
                let change = std::iter::once((&stored.record, &after));
                self.keep_owners(change, record.created, deadline).await?;
                let mut commit = Commit::default();
                let keys = self.keys().of(&stored.record.user);
                put(&mut commit, &keys, Some(&stored), &after, record.created);
                if commit.run(self.servers(), deadline).await?.is_ok() {
                    break;
                }
            }
        }
        Ok(())
    }
}
