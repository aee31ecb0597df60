//! Session records.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, NewLogin, Rotated, Rotation, Seen, SessionKey,
    SessionLimit, SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId, WhenFull,
    async_trait,
};

use crate::dialect::RowOf;
use crate::error::Fault;
use crate::lease::Lease;
use crate::row::{Columns, session_arguments};
use crate::statement::{Statement, Statements, end_some};
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
        let arguments = session_arguments::<D::Database>(record);
        lease.run(&self.statements().insert, arguments).await?;
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
        let Statements { standing_for, end, .. } = self.statements();
        let how = End {
            at: login.record.created,
            reason: EndReason::Replaced,
            keep_until: login.ended_until,
        };
        loop {
            let rows = lease.rows(standing_for, standing_for.arguments(&[key.into()])).await?;
            // Two keys of one browser can stand for one session, which the first has replaced.
            let Some(row) = rows.first() else { return Ok(()) };
            let standing = Columns::<D::Database>::of(row).key().map_err(Fault::of::<D>)?;
            if standing == login.record.key {
                return Ok(());
            }
            let successor = Some(&login.record.key);
            let changed = self.end(lease, end, &how, successor, &[(&standing).into()]).await?;
            // If another login was quicker, its session is the one to replace.
            if changed > 0 {
                return Ok(());
            }
        }
    }

    /// Ends as many of the oldest as it takes, or answers `None` if there is no room.
    async fn make_room(
        &self,
        lease: &mut Lease<D>,
        login: &NewLogin<'_>,
        limit: SessionLimit,
    ) -> Result<Option<Vec<Arc<SessionRecord>>>, Fault> {
        let record = login.record;
        // To refuse, it is enough to know that there are so many.
        let most = match limit.when_full {
            WhenFull::Refuse => limit.most,
            WhenFull::EndOldest => usize::MAX,
        };
        let oldest = &self.statements().oldest_others_of;
        let (user, key) = (record.user.as_str().into(), (&record.key).into());
        let values = [user, key, record.created.into(), most.into()];
        let mut rows = lease.rows(oldest, oldest.arguments(&values)).await?;
        let surplus = (rows.len() + 1).saturating_sub(limit.most);
        if surplus > 0 && limit.when_full == WhenFull::Refuse {
            return Ok(None);
        }
        rows.truncate(surplus);
        let oldest: Vec<_> = rows.into_iter().map(read::<D>).collect::<Result<_, _>>()?;
        let how =
            End { at: record.created, reason: EndReason::Limit, keep_until: login.ended_until };
        for some in oldest.chunks(ENDS_AT_ONCE) {
            let end = end_some::<D>(some.len(), &self.shared.names);
            let keys: Vec<Value<'_>> = some.iter().map(|old| (&old.key).into()).collect();
            self.end(lease, &end, &how, None, &keys).await?;
        }
        Ok(Some(oldest))
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
    ) -> Result<usize, StoreError> {
        if !D::takes(user.as_str()) {
            return Ok(0);
        }
        let statements = self.statements();
        let user = Value::from(user.as_str());
        match but {
            None => {
                let all = [&statements.end_live_of, &statements.end_all_of];
                self.end_all(all, end, &[&[user]]).await
            }
            Some(key) => {
                let others = [&statements.end_live_others_of, &statements.end_others_of];
                self.end_all(others, end, &[&[user, key.into()]]).await
            }
        }
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
        let purge = &self.statements().purge;
        let values = [before.into(), most.into()];
        // Within a transaction of our own, no gaps between rows are locked.
        let removed = self.write(self.deadline(), Write::Many, |mut lease| {
            let arguments = purge.arguments(&values);
            Box::pin(async move {
                let removed = lease.run(purge, arguments).await?;
                lease.finish().await.map(|()| removed)
            })
        });
        let removed = removed.await.answer::<D>()?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }
}
