//! Session records.
//!
//! A record is beside its user, where it is read and written with all that is the user's at one moment.
//! Its key alone does not say where that is; so another key, which is written before the record and
//! lives longer, says whose the session is.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join5;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, CLOCK_SKEW, Creation, End, EndReason, Ended, NewLogin, Rotated, Rotation, Seen,
    SessionKey, SessionLimit, SessionRecord, SessionStore, StoreError, StoreErrorKind, Timestamp,
    Touch, UserId, WhenFull, async_trait,
};

use crate::RedisStore;
use crate::error::{Cause, Fault};
use crate::keys::{UserKeys, member, read_member};
use crate::record::{read, write};
use crate::script::{Commit, Life, OWNER, RECORDS, Refused};
use crate::servers::Use;
use crate::store::{bytes, contended};

/// How many sessions are asked for or written at once, each by a command of its own.
const AT_ONCE: usize = 64;

/// Whose a session is, is known so much longer than the session, in milliseconds.
const MARGIN: u64 = 60_000;

/// So many logins in one browser at once are followed.
const LONGEST_CHAIN: usize = 100;

/// A user's list forgets sessions that expired so long ago, in seconds, with whatever is left of them.
const PRUNED_AFTER: u32 = 24 * 3_600;

/// A record, and the value that it was read from.
pub(crate) struct Stored {
    pub(crate) record: SessionRecord,
    value: Vec<u8>,
}

/// The records of an index, or nothing where there is none any more.
type Listed = Vec<(SessionKey, Option<Stored>)>;

/// How long a record that expires then is kept from now on, in milliseconds; 0 if not at all.
fn life(expires: Timestamp, now: Timestamp) -> u64 {
    u64::from(expires.plus(CLOCK_SKEW).since(now)) * 1_000
}

fn is_untold(record: &SessionRecord) -> bool {
    let is_untold = |ended: &Ended| ended.reason == EndReason::Replay && !ended.told;
    record.ended.as_ref().is_some_and(is_untold)
}

/// The record, ended.
fn ended(record: &SessionRecord, end: &End, successor: Option<SessionKey>) -> SessionRecord {
    let ended = Ended { at: end.at, reason: end.reason, successor, told: false };
    SessionRecord { expires: end.keep_until, ended: Some(ended), ..record.clone() }
}

/// Writes a record in place of another or of none, and keeps the user's lists in step with it.
fn put(
    commit: &mut Commit,
    keys: &UserKeys,
    before: Option<&Stored>,
    record: &SessionRecord,
    now: Timestamp,
) {
    let (name, member, millis) =
        (keys.session(&record.key), member(&record.key), life(record.expires, now));
    match before {
        None => commit.if_absent(name.clone()),
        Some(before) => commit.if_is(name.clone(), before.value.clone()),
    }
    let before = before.map(|before| &before.record);
    let was_live = before.is_some_and(|before| before.ended.is_none());
    let was_untold = before.is_some_and(is_untold);
    let is_kept = millis > 0;
    let expires = record.expires.as_secs();
    for (index, was_in, is_in) in [
        (keys.live(), was_live, is_kept && record.ended.is_none()),
        (keys.untold(), was_untold, is_kept && is_untold(record)),
    ] {
        match (was_in, is_in) {
            (_, true) => commit.add(index, member.clone(), expires, millis),
            (true, false) => commit.remove(index, member.clone()),
            (false, false) => {}
        }
    }
    if is_kept {
        let is_as_long = before.is_some_and(|before| before.expires == record.expires);
        let life = if is_as_long { Life::AsBefore } else { Life::Millis(millis) };
        commit.set(name, write(record), life);
    } else {
        commit.delete(name);
    }
}

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
    async fn listed(&self, user: &UserId, index: &str, deadline: Instant) -> Result<Listed, Fault> {
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
    async fn named(
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

    /// Lets it be known whose these sessions are, for as long as their next records are kept.
    async fn keep_owners(
        &self,
        records: impl Iterator<Item = (&SessionRecord, &SessionRecord)>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let longer = records.filter(|(before, after)| before.expires < after.expires);
        let keys: Vec<_> = longer.map(|(_, after)| (after.key, life(after.expires, now))).collect();
        stream::iter(keys)
            .map(|(key, millis)| async move {
                self.owner(&key, Some(millis), Use::Write, deadline).await.map(drop)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

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

    async fn created(&self, login: &NewLogin<'_>) -> Result<Creation, Fault> {
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
            let Some(oldest) = surplus(others, limit) else {
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
                let after = ended(&stored.record, &how, None);
                over_limit.push(Arc::new(stored.record.clone()));
                changes.push((stored, after));
            }
        }
        let how = End { at: now, reason: EndReason::Replaced, keep_until: until };
        for stored in replaced {
            let after = ended(&stored.record, &how, Some(record.key));
            changes.push((stored, after));
        }
        let mut replays = Vec::new();
        for (key, stored) in untold {
            let Some(stored) = stored.filter(|stored| is_untold(&stored.record)) else {
                commit.remove(keys.untold(), member(&key));
                continue;
            };
            let mut after = stored.record.clone();
            if let Some(ended) = &mut after.ended {
                ended.told = true;
            }
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
                let after = ended(&stored.record, &how, Some(record.key));
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

    /// Changes a record, if there is one and there is something to change. Answers it as it is then, and
    /// whether this changed it.
    async fn changed(
        &self,
        key: &SessionKey,
        now: Timestamp,
        expires: Option<Timestamp>,
        deadline: Instant,
        next: impl Fn(&SessionRecord) -> Option<SessionRecord>,
    ) -> Result<Option<(SessionRecord, bool)>, Fault> {
        let at_least = expires.map(|expires| life(expires, now));
        while Instant::now() < deadline {
            let found = self.find(key, at_least, Use::ReadLatest, deadline).await?;
            let Some(stored) = found else { return Ok(None) };
            let Some(after) = next(&stored.record) else {
                return Ok(Some((stored.record, false)));
            };
            let mut commit = Commit::default();
            put(&mut commit, &self.keys().of(&after.user), Some(&stored), &after, now);
            if commit.run(self.servers(), deadline).await?.is_ok() {
                return Ok(Some((after, true)));
            }
        }
        Err(contended())
    }

    /// Ends these sessions of a user, or all but one, and answers how many lived until now.
    async fn end(
        &self,
        user: &UserId,
        these: Option<&[SessionKey]>,
        but: Option<&SessionKey>,
        end: &End,
        deadline: Instant,
    ) -> Result<usize, Fault> {
        let keys = self.keys().of(user);
        while Instant::now() < deadline {
            let mut commit = Commit::default();
            let listed = match these {
                Some(these) => self.named(user, these, deadline).await?,
                None => {
                    let listed = self.listed(user, &keys.live(), deadline).await?;
                    // A session that has begun since has to end, too.
                    let members = listed.iter().map(|(key, _)| member(key)).collect();
                    commit.if_lists(keys.live(), members);
                    listed
                }
            };
            let stored = listed.into_iter().filter_map(|(_, stored)| stored);
            let changes: Vec<_> = stored
                .filter(|stored| stored.record.ended.is_none() && Some(&stored.record.key) != but)
                .map(|stored| {
                    let after = ended(&stored.record, end, None);
                    (stored, after)
                })
                .collect();
            let records = changes.iter().map(|(stored, after)| (&stored.record, after));
            self.keep_owners(records, end.at, deadline).await?;
            for (stored, after) in &changes {
                put(&mut commit, &keys, Some(stored), after, end.at);
            }
            if commit.run(self.servers(), deadline).await?.is_ok() {
                let lived = changes.iter().filter(|(stored, _)| stored.record.is_live(end.at));
                return Ok(lived.count());
            }
        }
        Err(contended())
    }

    async fn revoked(&self, keys: &[SessionKey], end: &End) -> Result<usize, Fault> {
        let deadline = self.deadline();
        let owners = stream::iter(keys.to_vec()).map(|key| async move {
            let owner = self.owner(&key, None, Use::ReadLatest, deadline).await?;
            Ok::<_, Fault>(owner.map(|owner| (owner, key)))
        });
        let owners: Vec<_> = owners.buffered(AT_ONCE).try_collect().await?;
        let mut of_users: HashMap<UserId, Vec<SessionKey>> = HashMap::new();
        for (owner, key) in owners.into_iter().flatten() {
            let of_user = of_users.entry(owner).or_default();
            if !of_user.contains(&key) {
                of_user.push(key);
            }
        }
        let ended = stream::iter(of_users).map(|(user, keys)| async move {
            self.end(&user, Some(&keys), None, end, deadline).await
        });
        let ended: Vec<usize> = ended.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(ended.into_iter().sum())
    }

    async fn live(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, Fault> {
        let index = self.keys().of(user).live();
        let listed = self.listed(user, &index, self.deadline()).await?;
        let stored = listed.into_iter().filter_map(|(_, stored)| stored);
        let mut live: Vec<_> =
            stored.map(|stored| stored.record).filter(|record| record.is_live(now)).collect();
        live.sort_by_key(|record| std::cmp::Reverse((record.last_seen, record.created)));
        live.truncate(most);
        Ok(live.into_iter().map(Arc::new).collect())
    }
}

/// The oldest that must end so that there is room for one more; `None` if they must not.
fn surplus(mut live: Vec<Stored>, limit: SessionLimit) -> Option<Vec<Stored>> {
    let surplus = (live.len() + 1).saturating_sub(limit.most);
    if surplus > 0 && limit.when_full == WhenFull::Refuse {
        return None;
    }
    live.sort_by_key(|stored| stored.record.created);
    live.truncate(surplus);
    Some(live)
}

/// The later of two times until which the remember cookie counts, if the login is remembered.
fn later(own: Option<Timestamp>, given: Option<Timestamp>) -> Option<Timestamp> {
    own.map(|own| given.map_or(own, |given| own.max(given)))
}

#[async_trait]
impl<U: AuthUser> SessionStore for RedisStore<U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        Ok(self.created(login).await?)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        let found = self.find(key, None, Use::Read, self.deadline()).await?;
        Ok(found.map(|stored| Arc::new(stored.record)))
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        let Rotation { key, from, at, remember_expires, expires } = *rotation;
        let next = |record: &SessionRecord| {
            let is_due = record.generation == from && record.ended.is_none();
            is_due.then(|| SessionRecord {
                generation: from.saturating_add(1),
                rotated_at: Some(at),
                seen_at: None,
                session_started: at,
                last_seen: at,
                remember_expires: later(record.remember_expires, remember_expires),
                expires: record.expires.max(expires),
                ..record.clone()
            })
        };
        let changed = self.changed(&key, at, Some(expires), self.deadline(), next).await?;
        Ok(changed.map(|(record, is_ours)| match is_ours {
            true => Rotated::Won(Arc::new(record)),
            false => Rotated::Lost(Arc::new(record)),
        }))
    }

    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let marked = stream::iter(marks.to_vec()).map(|Seen { key, generation, at }| async move {
            let next = |record: &SessionRecord| {
                let is_due = record.generation == generation
                    && record.ended.is_none()
                    && record.seen_at.is_none();
                is_due.then(|| SessionRecord { seen_at: Some(at), ..record.clone() })
            };
            self.changed(&key, at, None, deadline, next).await.map(drop)
        });
        Ok(marked.buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let touched = stream::iter(touches.to_vec()).map(|touch| async move {
            let Touch { key, at, remember_expires, expires } = touch;
            let next = |record: &SessionRecord| {
                let after = SessionRecord {
                    last_seen: record.last_seen.max(at),
                    remember_expires: later(record.remember_expires, remember_expires),
                    expires: record.expires.max(expires),
                    ..record.clone()
                };
                (record.ended.is_none() && after != *record).then_some(after)
            };
            self.changed(&key, at, Some(expires), deadline, next).await.map(drop)
        });
        Ok(touched.buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        Ok(self.revoked(keys, end).await?)
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<usize, StoreError> {
        Ok(self.end(user, None, but, end, self.deadline()).await?)
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        Ok(self.live(user, now, most).await?)
    }

    /// Redis drops by itself what has expired.
    async fn purge(&self, _before: Timestamp, _most: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
}
