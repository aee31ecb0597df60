//! Session records.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Epoch, NewLogin, Room, Rotated, Rotation, Seen, SessionKey,
    SessionLimit, SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, async_trait,
};

use crate::dialect::RowOf;
use crate::error::Fault;
use crate::lease::Lease;
use crate::row::{Columns, session_arguments};
use crate::statement::{Statement, Statements, carry, end_some};
use crate::store::{Answer, Write, refused};
use crate::{Dialect, SqlStore, Value};

/// How many notes are written in one transaction: the sessions stay locked until it ends.
const NOTES_AT_ONCE: usize = 100;

/// How many sessions are ended by one statement.
const ENDS_AT_ONCE: usize = 500;

/// The record of a row.
fn read<D: Dialect>(row: RowOf<D>) -> Result<Arc<SessionRecord>, Fault> {
    Columns::<D::Database>::of(&row).session().map(Arc::new).map_err(Fault::of::<D>)
}

/// How a session ends: the first parameters of every statement that ends any.
fn ended<'a>(end: &End, successor: Option<&'a SessionKey>) -> [Value<'a>; 4] {
    let successor = Value::Bytes(successor.map(|key| &key.as_bytes()[..]));
    [end.at.into(), end.reason.as_str().into(), end.keep_until.into(), successor]
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    async fn end(
        &self,
        lease: &mut Lease<D>,
        statement: &Statement<D>,
        end: &End,
        successor: Option<&SessionKey>,
        whose: &[Value<'_>],
    ) -> Result<u64, Fault> {
        let values = [&ended(end, successor)[..], whose].concat();
        lease.run(statement, statement.arguments(&values)).await
    }

    async fn create_once(
        &self,
        mut lease: Lease<D>,
        login: &NewLogin<'_>,
    ) -> Result<Creation, Fault> {
        let record = login.record;
        let insert = &self.statements().insert;
        lease.run(insert, session_arguments(insert, record)).await?;
        for key in login.replacing {
            self.replace(&mut lease, key, login).await?;
        }
        let ended = match login.limit {
            None => Vec::new(),
            Some(limit) => match self.make_room(&mut lease, login, limit).await? {
                Some(ended) => ended,
                // Dropped, the transaction is undone.
                None => return Ok(Creation::Full),
            },
        };
        let replays = self.tell(&mut lease, &record.user).await?;
        lease.finish().await?;
        Ok(Creation::Created { ended, replays })
    }

    /// Ends the session that stands for this one: itself, or the last of its successors.
    async fn replace(
        &self,
        lease: &mut Lease<D>,
        key: &SessionKey,
        login: &NewLogin<'_>,
    ) -> Result<(), Fault> {
        let Statements { standing_for, end, follow, .. } = self.statements();
        let (own, until) = (&login.record.key, login.ended_until);
        let how = End { at: login.record.created, reason: EndReason::Replaced, keep_until: until };
        let (mut standing, mut tried) = (*key, None);
        loop {
            let rows =
                lease.rows(standing_for, standing_for.arguments(&[(&standing).into()])).await?;
            let Some(row) = rows.first() else { break };
            let mut row = Columns::<D::Database>::of(row);
            let read = (|| Ok((row.key()?, row.some_key()?, row.int()?.is_some())))();
            let (last, successor, is_ended) = read.map_err(Fault::of::<D>)?;
            // Two keys of one browser can stand for one session, which the first has replaced.
            if last == *own || successor == Some(*own) {
                break;
            }
            match successor {
                Some(successor) => standing = successor,
                None if is_ended || tried == Some(last) => break,
                None => {
                    let changed = self.end(lease, end, &how, Some(own), &[(&last).into()]).await?;
                    if changed > 0 {
                        break;
                    }
                    // Another login was quicker, whose session is the one to replace; or it has ended
                    // with its epoch.
                    (standing, tried) = (last, Some(last));
                }
            }
        }
        // The next time this key is shown, the way is short.
        lease.run(follow, follow.arguments(&[own.into(), until.into(), key.into()])).await?;
        Ok(())
    }

    /// Ends the sessions that have to make room, and returns them, or `None` if there is no room.
    async fn make_room(
        &self,
        lease: &mut Lease<D>,
        login: &NewLogin<'_>,
        limit: SessionLimit,
    ) -> Result<Option<Vec<Arc<SessionRecord>>>, Fault> {
        let record = login.record;
        let newest = &self.statements().newest_others_of;
        let (user, key) = (record.user.as_str().into(), (&record.key).into());
        let values = [user, key, record.created.into(), limit.reads().into()];
        let rows = lease.rows(newest, newest.arguments(&values)).await?;
        let newest: Vec<_> = rows.into_iter().map(read::<D>).collect::<Result<_, _>>()?;
        let how =
            End { at: record.created, reason: EndReason::Limit, keep_until: login.ended_until };
        match limit.room(newest) {
            Room::None => Ok(None),
            Room::After(ends) => {
                if !ends.is_empty() {
                    let end = end_some::<D>(ends.len(), &self.shared.names);
                    let keys: Vec<Value<'_>> = ends.iter().map(|old| (&old.key).into()).collect();
                    self.end(lease, &end, &how, None, &keys).await?;
                }
                Ok(Some(ends))
            }
            Room::AfterAllBut { stay, ended } => {
                let stay: Vec<_> =
                    stay.iter().map(|other| &other.key).chain([&record.key]).collect();
                self.raise(lease, &record.user, &stay, &how).await?;
                Ok(Some(ended))
            }
        }
    }

    /// Ends all of a user's sessions but these, by the next epoch.
    async fn raise(
        &self,
        lease: &mut Lease<D>,
        user: &UserId,
        stay: &[&SessionKey],
        end: &End,
    ) -> Result<(), Fault> {
        let Statements { epoch, raise, any_open_of, first_epoch, .. } = self.statements();
        let user = Value::from(user.as_str());
        // Nobody else changes it: transactions of this kind wait for each other.
        let rows = lease.rows(epoch, epoch.arguments(&[user])).await?;
        let number = |row| Columns::<D::Database>::of(row).int().map_err(Fault::of::<D>);
        let before = rows.first().map(number).transpose()?.flatten();
        let write = if before.is_some() { raise } else { first_epoch };
        if before.is_none()
            && lease.rows(any_open_of, any_open_of.arguments(&[user])).await?.is_empty()
        {
            return Ok(());
        }
        let before = u64::try_from(before.unwrap_or(0)).unwrap_or(0);
        let next = Epoch { number: before, end: None }.raised(end).number;
        let [before, next] = [before, next].map(|number| Value::Int(i64::try_from(number).ok()));
        let (reason, until) = (end.reason.as_str().into(), end.keep_until.into());
        let values = [end.at.into(), reason, until, user, next];
        lease.run(write, write.arguments(&values)).await?;
        for some in stay.chunks(ENDS_AT_ONCE) {
            let carry = carry::<D>(some.len(), &self.shared.names);
            let keys = some.iter().map(|key| Value::from(*key));
            let values: Vec<_> = [user, before, next].into_iter().chain(keys).collect();
            lease.run(&carry, carry.arguments(&values)).await?;
        }
        Ok(())
    }

    /// The user's replays that were not told yet, which are told by this.
    async fn tell(
        &self,
        lease: &mut Lease<D>,
        user: &UserId,
    ) -> Result<Vec<Arc<SessionRecord>>, Fault> {
        let Statements { untold, tell, .. } = self.statements();
        let rows = lease.rows(untold, untold.arguments(&[user.as_str().into()])).await?;
        let replays: Vec<_> = rows.into_iter().map(read::<D>).collect::<Result<_, _>>()?;
        // These and no others: a session may end for a replay in this moment.
        for replay in &replays {
            lease.run(tell, tell.arguments(&[(&replay.key).into()])).await?;
        }
        Ok(replays)
    }

    pub(crate) async fn find(
        &self,
        deadline: Instant,
        key: &SessionKey,
    ) -> Result<Option<Arc<SessionRecord>>, Fault> {
        let load = &self.statements().load;
        let row = self.row(deadline, load, || load.arguments(&[key.into()])).await?;
        row.map(read::<D>).transpose()
    }

    async fn rotated(&self, rotation: &Rotation) -> Result<Option<Rotated>, Fault> {
        let deadline = self.deadline();
        let rotate = &self.statements().rotate;
        let values = [
            rotation.at.into(),
            rotation.remember_expires.into(),
            rotation.expires.into(),
            (&rotation.key).into(),
            rotation.from.into(),
        ];
        let won = if D::RETURNING {
            self.changed_row(deadline, rotate, || rotate.arguments(&values)).await?
        } else {
            let values = &values;
            self.write(deadline, Write::Many, |lease| {
                Box::pin(self.rotate_once(lease, &rotation.key, values))
            })
            .await?
        };
        match won {
            Some(row) => read::<D>(row).map(Rotated::Won).map(Some),
            None => Ok(self.find(deadline, &rotation.key).await?.map(Rotated::Lost)),
        }
    }

    /// Where an update can't answer its row, the row is read before others can change it.
    async fn rotate_once(
        &self,
        mut lease: Lease<D>,
        key: &SessionKey,
        values: &[Value<'_>],
    ) -> Result<Option<RowOf<D>>, Fault> {
        let Statements { rotate, load, .. } = self.statements();
        if lease.run(rotate, rotate.arguments(values)).await? == 0 {
            return Ok(None);
        }
        let rows = lease.rows(load, load.arguments(&[key.into()])).await?;
        lease.finish().await?;
        Ok(rows.into_iter().next())
    }

    /// Writes notes, each to a session of its own.
    async fn note(
        &self,
        mut lease: Lease<D>,
        statement: &Statement<D>,
        notes: &[Vec<Value<'_>>],
    ) -> Result<(), Fault> {
        for values in notes {
            lease.run(statement, statement.arguments(values)).await?;
        }
        lease.finish().await
    }

    async fn notes(
        &self,
        statement: &Statement<D>,
        notes: Vec<(&SessionKey, Vec<Value<'_>>)>,
    ) -> Result<(), StoreError> {
        let mut notes = notes;
        // Two nodes that note the same sessions then wait for each other in one order.
        notes.sort_by_key(|(key, _)| *key.as_bytes());
        let notes: Vec<_> = notes.into_iter().map(|(_, values)| values).collect();
        let deadline = self.deadline();
        for some in notes.chunks(NOTES_AT_ONCE) {
            let write = self
                .write(deadline, Write::Many, |lease| Box::pin(self.note(lease, statement, some)));
            write.await.answer::<D>()?;
        }
        Ok(())
    }

    /// Ends those that live, which are counted, and then those that have expired.
    async fn end_both(
        &self,
        mut lease: Lease<D>,
        [live, expired]: [&Statement<D>; 2],
        end: &End,
        whose: &[&[Value<'_>]],
    ) -> Result<u64, Fault> {
        let mut lived = 0;
        for whose in whose {
            lived += self.end(&mut lease, live, end, None, whose).await?;
            self.end(&mut lease, expired, end, None, whose).await?;
        }
        lease.finish().await?;
        Ok(lived)
    }

    async fn raise_once(
        &self,
        mut lease: Lease<D>,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), Fault> {
        self.raise(&mut lease, user, but.as_slice(), end).await?;
        lease.finish().await
    }

    async fn end_all(
        &self,
        statements: [&Statement<D>; 2],
        end: &End,
        whose: &[&[Value<'_>]],
    ) -> Result<usize, StoreError> {
        let ended = self.write(self.deadline(), Write::Many, |lease| {
            Box::pin(self.end_both(lease, statements, end, whose))
        });
        let lived = ended.await.answer::<D>()?;
        Ok(usize::try_from(lived).unwrap_or(usize::MAX))
    }
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    /// Removes rows, and returns how many.
    async fn purged(
        &self,
        purge: &Statement<D>,
        values: &[Value<'_>],
    ) -> Result<usize, StoreError> {
        // Within a transaction of our own, no gaps between rows are locked.
        let removed = self.write(self.deadline(), Write::Many, |mut lease| {
            let arguments = purge.arguments(values);
            Box::pin(async move {
                let removed = lease.run(purge, arguments).await?;
                lease.finish().await.map(|()| removed)
            })
        });
        let removed = removed.await.answer::<D>()?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// Removes sessions that ended together, of one user after the other.
    async fn tidied(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let Statements { untidy, tidy, tidied, .. } = self.statements();
        let mut removed = 0;
        while removed < most {
            let none = || untidy.arguments(&[before.into()]);
            let row = self.row(self.deadline(), untidy, none).await.answer::<D>()?;
            let Some(row) = row else { break };
            let mut row = Columns::<D::Database>::of(&row);
            let read = (|| Ok((row.text()?, row.int()?)))();
            let (user, epoch) = read.map_err(Fault::of::<D>).answer::<D>()?;
            let (user, epoch) = (Value::from(user.as_str()), Value::Int(epoch));
            let some = self.purged(tidy, &[user, epoch, (most - removed).into()]).await?;
            if removed + some < most {
                let values = [user, epoch];
                let done = self.run(self.deadline(), tidied, || tidied.arguments(&values));
                done.await.answer::<D>()?;
            }
            removed += some;
        }
        Ok(removed)
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> SessionStore for SqlStore<D, U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        let user = &login.record.user;
        if !D::takes(user.as_str()) {
            return Err(refused("user id").into_store_error::<D>());
        }
        let create = self.write(self.deadline(), Write::ForUser(user), |lease| {
            Box::pin(self.create_once(lease, login))
        });
        create.await.answer::<D>()
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        self.find(self.deadline(), key).await.answer::<D>()
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        self.rotated(rotation).await.answer::<D>()
    }

    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
        let notes = marks.iter().map(|mark| {
            let Seen { key, generation, at } = mark;
            (key, vec![(*at).into(), key.into(), (*generation).into()])
        });
        self.notes(&self.statements().seen, notes.collect()).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let notes = touches.iter().map(|touch| {
            let times = [touch.at.into(), touch.remember_expires.into(), touch.expires.into()];
            (&touch.key, [&times[..], &[(&touch.key).into()]].concat())
        });
        self.notes(&self.statements().touch, notes.collect()).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_by_key(|key| *key.as_bytes());
        let values: Vec<[Value<'_>; 1]> = keys.into_iter().map(|key| [key.into()]).collect();
        let whose: Vec<&[Value<'_>]> = values.iter().map(|values| &values[..]).collect();
        let statements = self.statements();
        self.end_all([&statements.end_live, &statements.end], end, &whose).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        if !D::takes(user.as_str()) {
            return Ok(());
        }
        let ended = self.write(self.deadline(), Write::ForUser(user), |lease| {
            Box::pin(self.raise_once(lease, user, but, end))
        });
        ended.await.answer::<D>()
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        if !D::takes(user.as_str()) {
            return Ok(Vec::new());
        }
        let list = &self.statements().list;
        let values = [user.as_str().into(), now.into(), most.into()];
        let rows =
            self.rows(self.deadline(), list, || list.arguments(&values)).await.answer::<D>()?;
        rows.into_iter().map(read::<D>).collect::<Result<_, _>>().answer::<D>()
    }

    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let purged = self.purged(&self.statements().purge, &[before.into(), most.into()]).await?;
        if purged == most {
            return Ok(purged);
        }
        Ok(purged + self.tidied(before, most - purged).await?)
    }
}
