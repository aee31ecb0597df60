//! What a login writes: its record, and the ends of the sessions that it replaces.

use std::sync::Arc;

use futures_util::future::{join, try_join3};
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Ended, MOST_AT_ONCE, NewLogin, Room, SessionKey,
    SessionLimit, SessionRecord, StoreErrorKind,
};

use crate::RedisStore;
use crate::epoch::{OfUser, raise};
use crate::error::Error;
use crate::find::{Order, Slice, Stored};
use crate::keys::member;
use crate::script::{Commit, Life, Refused};
use crate::servers::Use;
use crate::sessions::{MARGIN, life, put};
use crate::store::contended;

/// How many successors of a session are followed, at most.
const LONGEST_CHAIN: usize = 10_000;

/// How many of a user's sessions one command reads.
const READ_AT_ONCE: usize = 1_000;

/// How many of a user's newest logins are searched for those that have not expired.
const MOST_LOOKED_AT: usize = 2_000;

/// A user's lists drop a session this many seconds after it expired. What is left of its record is
/// deleted with it.
const PRUNED_AFTER: u32 = 24 * 3_600;

/// What a login changes about the sessions that its browser presented.
#[derive(Default)]
struct Shown {
    /// The sessions that it replaces.
    standing: Vec<Stored>,
    /// Sessions that an earlier login replaced. This login becomes their successor.
    earlier: Vec<Stored>,
}

/// The highest-ranked sessions of one of a user's lists, as a limit needs them.
struct Highest {
    of_user: OfUser,
    /// The live sessions that are not being replaced.
    live: Vec<Stored>,
    /// All members that were read. If `is_all` is set, there are no others.
    members: Vec<String>,
    is_all: bool,
    index: String,
    order: Order,
}

impl Highest {
    /// Adds to a commit the condition that these members are unchanged.
    fn hold(&self, commit: &mut Commit) {
        let count = self.members.len() + usize::from(self.is_all);
        let above = match self.order {
            Order::LastToExpire(by) => Some(by.as_secs()),
            Order::Lowest | Order::Highest => None,
        };
        commit.if_highest(self.index.clone(), count, above, &self.members);
    }
}

impl<U: AuthUser> RedisStore<U> {
    /// Follows the successors of this session to the first one that has not ended, which may be the
    /// session itself. Returns that one, or `None` if the chain leads to `except` or to a session
    /// that has ended without a successor. Also returns the session itself, if it has a successor.
    async fn standing_for(
        &self,
        key: &SessionKey,
        except: &SessionKey,
        deadline: Instant,
    ) -> Result<(Option<Stored>, Option<Stored>), Error> {
        let (mut key, mut shown) = (*key, None);
        // There is a limit because two logins that replace each other's sessions form a circle.
        for _ in 0..LONGEST_CHAIN {
            if key == *except {
                break;
            }
            let found = self.find(&key, None, Use::ReadLatest, deadline).await?;
            let Some((stored, _)) = found else { break };
            match &stored.record.ended {
                None => return Ok((Some(stored), shown)),
                Some(Ended { successor: Some(successor), .. }) => {
                    key = *successor;
                    shown = shown.or(Some(stored));
                }
                Some(_) => break,
            }
        }
        Ok((None, shown))
    }

    pub(crate) async fn created(&self, login: &NewLogin<'_>) -> Result<Creation, Error> {
        let deadline = self.deadline();
        let mut prune = Some(self.prune(login.record, deadline));
        while Instant::now() < deadline {
            let creating = self.create_once(login, deadline);
            let created = match prune.take() {
                Some(prune) => join(prune, creating).await.1?,
                None => creating.await?,
            };
            if let Some((creation, elsewhere)) = created {
                let replaced = self.replace_elsewhere(login, &elsewhere, deadline).await;
                return replaced.map(|()| creation).map_err(Error::after_writing);
            }
        }
        Err(contended())
    }

    /// Removes sessions that expired long ago. If that fails, the next login does it.
    async fn prune(&self, record: &SessionRecord, deadline: Instant) {
        let keys = self.keys().of(&record.user);
        let before = record.created.minus(PRUNED_AFTER).as_secs();
        let mut prune = Commit::default();
        prune.prune(keys.live(), keys.begun(), before, &keys.sessions());
        let _ = prune.run_unconfirmed(self.servers(), deadline).await;
    }

    /// Returns the newest live sessions except those that are being replaced, as many as the limit
    /// needs.
    ///
    /// The list by expiry is read first, because it skips expired sessions. If it shows that there
    /// are few sessions, they are the result. If there are more, the list by time of login decides.
    /// If too few of the newest logins are live, although very many were read, the result is the
    /// sessions that expire last.
    async fn newest(
        &self,
        record: &SessionRecord,
        limit: SessionLimit,
        replaced: &[Stored],
        deadline: Instant,
    ) -> Result<Highest, Error> {
        let (keys, now) = (self.keys().of(&record.user), record.created);
        let enough = limit.reads().saturating_add(replaced.len());
        let highest = async |index: String, order: Order, most: usize| {
            let mut highest = Highest {
                of_user: OfUser::default(),
                live: Vec::new(),
                members: Vec::new(),
                is_all: false,
                index,
                order,
            };
            while !highest.is_all
                && highest.live.len() < limit.reads()
                && highest.members.len() < most
            {
                let (index, first) = (&highest.index, highest.members.len());
                let count = (most - first).min(READ_AT_ONCE);
                let slice = Slice { index, order, first, count };
                let (listed, of_user) = self.listed(&record.user, slice, deadline).await?;
                highest.of_user = of_user;
                highest.is_all = listed.len() < count;
                highest.members.extend(listed.iter().map(|(key, _)| member(key)));
                let counts = |stored: &Stored| {
                    let is_own = |known: &Stored| known.record.key == stored.record.key;
                    stored.record.is_live(now) && !replaced.iter().any(is_own)
                };
                let listed = listed.into_iter().filter_map(|(_, stored)| stored);
                highest.live.extend(listed.filter(counts));
            }
            highest.live.truncate(limit.reads());
            Ok::<_, Error>(highest)
        };
        let last_to_expire = highest(keys.live(), Order::LastToExpire(now), enough).await?;
        if last_to_expire.is_all {
            return Ok(last_to_expire);
        }
        let newest = highest(keys.begun(), Order::Highest, enough.max(MOST_LOOKED_AT)).await?;
        let is_enough = newest.is_all || newest.live.len() >= limit.reads();
        Ok(if is_enough { newest } else { last_to_expire })
    }

    /// Tries once to create the session. Returns `None` if another call has changed something that
    /// this one depends on. Otherwise it also returns the sessions of other users that are still to
    /// be replaced.
    async fn create_once(
        &self,
        login: &NewLogin<'_>,
        deadline: Instant,
    ) -> Result<Option<(Creation, Vec<SessionKey>)>, Error> {
        let NewLogin { record, ended_until: until, limit, .. } = *login;
        let (user, now) = (&record.user, record.created);
        let keys = self.keys().of(user);
        let to_notify = keys.to_notify();
        // These reads run concurrently. What each of them finds is a condition of the change.
        let to_notify =
            Slice { index: &to_notify, order: Order::Lowest, first: 0, count: MOST_AT_ONCE };
        let (own, shown, (to_notify, of_user)) = try_join3(
            self.own(record, deadline),
            self.shown(login, deadline),
            self.listed(user, to_notify, deadline),
        )
        .await?;
        let taken = || Error::new(StoreErrorKind::Conflict, "the session's key is taken");
        own.map_err(|_| taken())?;
        let is_own = |stored: &Stored| stored.record.user == *user;
        let (replaced, elsewhere): (Vec<_>, Vec<_>) = shown.standing.into_iter().partition(is_own);
        let (earlier, earlier_elsewhere): (Vec<_>, Vec<_>) =
            shown.earlier.into_iter().partition(is_own);
        let elsewhere = elsewhere.iter().chain(&earlier_elsewhere);
        let elsewhere: Vec<_> = elsewhere.map(|stored| stored.record.key).collect();
        let mut commit = Commit::default();
        // This condition is the first, so that a key that is taken is told apart from all other
        // conflicts.
        commit.if_absent(keys.session(&record.key));
        of_user.hold(&mut commit, &keys);
        let mut created_in = of_user.epoch.number;
        let mut changes: Vec<(Stored, SessionRecord)> = Vec::new();
        let mut over_limit = Vec::new();
        let mut is_raised = false;
        if let Some(limit) = limit {
            let newest = self.newest(record, limit, &replaced, deadline).await?;
            if newest.of_user.epoch != of_user.epoch {
                return Ok(None);
            }
            newest.hold(&mut commit);
            let how = End { at: now, reason: EndReason::Limit, keep_until: until };
            match limit.room(newest.live) {
                Room::None => {
                    let is_taken = self.find(&record.key, None, Use::ReadLatest, deadline).await?;
                    if is_taken.is_some() {
                        return Err(taken());
                    }
                    if commit.run(self.servers(), deadline).await?.is_err() {
                        return Ok(None);
                    }
                    self.disown(record, deadline).await?;
                    return Ok(Some((Creation::Full, Vec::new())));
                }
                Room::After(ends) => {
                    for stored in ends {
                        let Some(after) = how.after(&stored.record, None) else { continue };
                        over_limit.push(Arc::new(stored.record.clone()));
                        changes.push((stored, after));
                    }
                }
                Room::AfterAllBut { stay, ended } => {
                    over_limit = ended.into_iter().map(|old| Arc::new(old.record)).collect();
                    created_in = raise(&mut commit, &keys, &of_user, &how, stay.iter());
                    is_raised = true;
                }
            }
        }
        put(&mut commit, &keys, None, record, created_in, now);
        let how = End { at: now, reason: EndReason::Replaced, keep_until: until };
        for stored in replaced {
            if is_raised {
                commit.remove(keys.past(created_in), member(&stored.record.key));
            }
            let after = how.after(&stored.record, Some(record.key));
            changes.extend(after.map(|after| (stored, after)));
        }
        for stored in earlier {
            let after = stored.record.followed_by(record.key, until);
            changes.extend(after.map(|after| (stored, after)));
        }
        let mut replays = Vec::new();
        for (key, stored) in to_notify {
            let change =
                stored.and_then(|stored| stored.record.notified().map(|after| (stored, after)));
            let Some((stored, after)) = change else {
                commit.remove(keys.to_notify(), member(&key));
                continue;
            };
            replays.push(Arc::new(stored.record.clone()));
            changes.push((stored, after));
        }
        let ends = changes.iter().map(|(stored, after)| (&stored.record, after));
        self.keep_owners(ends, now, deadline).await?;
        for (stored, after) in &changes {
            put(&mut commit, &keys, Some(stored), after, stored.created_in, now);
        }
        match commit.run(self.servers(), deadline).await? {
            Ok(()) => {
                if is_raised {
                    self.note_past(user, created_in, until, deadline).await;
                }
                Ok(Some((Creation::Created { ended: over_limit, replays }, elsewhere)))
            }
            Err(Refused(0)) => Err(taken()),
            Err(_) => Ok(None),
        }
    }

    /// Writes which user this session will belong to, unless it belongs to another user.
    async fn own(
        &self,
        record: &SessionRecord,
        deadline: Instant,
    ) -> Result<Result<(), Refused>, Error> {
        let (name, user) = (self.keys().owner(&record.key), record.user.as_bytes());
        let millis = life(record.expires, record.created) + MARGIN;
        let mut owner = Commit::default();
        owner.if_absent_or_is(name.clone(), user);
        owner.set(name, user.to_vec(), Life::Millis(millis));
        owner.run(self.servers(), deadline).await
    }

    /// Deletes what `own` has written.
    async fn disown(&self, record: &SessionRecord, deadline: Instant) -> Result<(), Error> {
        let name = self.keys().owner(&record.key);
        let mut owner = Commit::default();
        owner.if_is(name.clone(), record.user.as_bytes());
        owner.delete(name);
        owner.run(self.servers(), deadline).await.map(drop)
    }

    /// Returns the sessions that a login replaces, from those that its browser presented. They may
    /// belong to several users.
    async fn shown(&self, login: &NewLogin<'_>, deadline: Instant) -> Result<Shown, Error> {
        let mut all = Shown::default();
        for key in login.replacing {
            let (standing, shown) = self.standing_for(key, &login.record.key, deadline).await?;
            for (stored, known) in [(standing, &mut all.standing), (shown, &mut all.earlier)] {
                let is_new = |stored: &Stored| {
                    known.iter().all(|known: &Stored| known.record.key != stored.record.key)
                };
                let stored = stored.filter(is_new);
                known.extend(stored);
            }
        }
        Ok(all)
    }

    /// Ends the sessions of other users that a new login replaces.
    async fn replace_elsewhere(
        &self,
        login: &NewLogin<'_>,
        elsewhere: &[SessionKey],
        deadline: Instant,
    ) -> Result<(), Error> {
        let record = login.record;
        let how =
            End { at: record.created, reason: EndReason::Replaced, keep_until: login.ended_until };
        for key in elsewhere {
            loop {
                let (standing, shown) = self.standing_for(key, &record.key, deadline).await?;
                let ended = standing.and_then(|stored| {
                    let after = how.after(&stored.record, Some(record.key))?;
                    Some((stored, after))
                });
                let follows = shown.and_then(|stored| {
                    let after = stored.record.followed_by(record.key, login.ended_until)?;
                    Some((stored, after))
                });
                let mut is_done = true;
                for (stored, after) in ended.into_iter().chain(follows) {
                    let change = std::iter::once((&stored.record, &after));
                    self.keep_owners(change, record.created, deadline).await?;
                    let (mut commit, keys) = (Commit::default(), self.keys().of(&after.user));
                    let (of, created_in) = (Some(&stored), stored.created_in);
                    put(&mut commit, &keys, of, &after, created_in, record.created);
                    is_done &= commit.run(self.servers(), deadline).await?.is_ok();
                }
                if is_done {
                    break;
                }
            }
        }
        Ok(())
    }
}
