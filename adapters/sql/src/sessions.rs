//! Stores session records, with the SQL in `statements.rs`.

use std::sync::Arc;

use tokio::time::Instant;
use tower_keep_core::{
    AuthUser, Creation, End, EndReason, Epoch, NewLogin, Room, Rotated, Rotation, SeenMark,
    SessionKey, SessionLimit, SessionRecord, SessionStore, StoreError, Timestamp, Touch, UserId,
    async_trait,
};

use crate::dialect::{Dialect, RowOf};
use crate::error::{Error, IntoStoreResult};
use crate::lease::Lease;
use crate::row::{Columns, session_values};
use crate::statements::{Statement, Statements, carry_over, end_sessions};
use crate::store::{SqlStore, Write};
use crate::value::Value;

/// The maximum number of rows that a call, such as `touch`, updates in one transaction. It is
/// small, because the rows stay locked until the transaction ends.
const UPDATES_AT_ONCE: usize = 100;

/// The maximum number of sessions that one statement carries over into a new epoch.
const CARRIED_AT_ONCE: usize = 500;

/// Reads the session record in a row.
fn read_session<D: Dialect>(row: RowOf<D>) -> Result<Arc<SessionRecord>, Error> {
    Columns::<D::Database>::of(&row).session().map(Arc::new).map_err(Error::of::<D>)
}

/// Returns the first parameters of every statement that ends sessions: the time and the reason of
/// the end, the time until which the rows are kept, and the successor.
fn end_values<'a>(end: &'a End, successor: Option<&'a SessionKey>) -> [Value<'a>; 4] {
    let successor = Value::Bytes(successor.map(|key| &key.as_bytes()[..]));
    [end.at.into(), end.reason.as_str().into(), end.keep_until.into(), successor]
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    /// Runs a statement that ends sessions. `selection` has the parameters that select the
    /// sessions. Returns the number of sessions that this call ended.
    async fn run_end(
        &self,
        lease: &mut Lease<D>,
        statement: &Statement<D>,
        end: &End,
        successor: Option<&SessionKey>,
        selection: &[Value<'_>],
    ) -> Result<u64, Error> {
        let values = [&end_values(end, successor)[..], selection].concat();
        lease.run(statement, statement.arguments(&values)).await
    }

    async fn create_in_transaction(
        &self,
        mut lease: Lease<D>,
        login: &NewLogin<'_>,
    ) -> Result<Creation, Error> {
        let record = login.record;
        let insert = &self.statements().insert;
        lease.run(insert, insert.arguments(&session_values(record))).await?;
        for key in login.replacing {
            self.end_replaced(&mut lease, key, login).await?;
        }
        let ended = match login.limit {
            None => Vec::new(),
            Some(limit) => match self.make_room(&mut lease, login, limit).await? {
                Some(ended) => ended,
                // Dropping the lease rolls back the transaction.
                None => return Ok(Creation::Full),
            },
        };
        let replays = match login.notifies_user {
            true => self.take_replays(&mut lease, &record.user).await?,
            false => Vec::new(),
        };
        lease.finish().await?;
        Ok(Creation::created(ended, replays))
    }

    /// Ends the session with this key. If it has been replaced already, ends the last of its
    /// successors instead.
    async fn end_replaced(
        &self,
        lease: &mut Lease<D>,
        key: &SessionKey,
        login: &NewLogin<'_>,
    ) -> Result<(), Error> {
        let Statements { last_successor_of, end_session, set_successor, .. } = self.statements();
        let (new_key, keep_until) = (&login.record.key, login.keep_ended_until);
        let end = End::new(login.record.created, EndReason::Replaced, keep_until);
        let (mut current, mut last_tried) = (*key, None);
        loop {
            let rows = lease
                .rows(last_successor_of, last_successor_of.arguments(&[(&current).into()]))
                .await?;
            let Some(row) = rows.first() else { break };
            let mut row = Columns::<D::Database>::of(row);
            let read = (|| Ok((row.key()?, row.optional_key()?, row.int()?.is_some())))();
            let (last, successor, is_ended) = read.map_err(Error::of::<D>)?;
            // If two keys of one browser lead to the same session, this login has already replaced
            // the session because of the first key.
            if last == *new_key || successor == Some(*new_key) {
                break;
            }
            match successor {
                Some(successor) => current = successor,
                None if is_ended || last_tried == Some(last) => break,
                None => {
                    let last_key = [(&last).into()];
                    let ended =
                        self.run_end(lease, end_session, &end, Some(new_key), &last_key).await?;
                    if ended > 0 {
                        break;
                    }
                    // Nothing was changed. If another login was faster, the next iteration finds
                    // the session of that login. If the last session has ended with its epoch, the
                    // next iteration stops.
                    (current, last_tried) = (last, Some(last));
                }
            }
        }
        // Points a replaced session directly to the new one, so the chain of successors is short
        // when a client sends its key again.
        let values = [new_key.into(), keep_until.into(), key.into()];
        lease.run(set_successor, set_successor.arguments(&values)).await?;
        Ok(())
    }

    /// Ends the sessions that the limit does not allow besides the new one, and returns the ended
    /// sessions. Returns `None` if the limit does not allow the new session.
    async fn make_room(
        &self,
        lease: &mut Lease<D>,
        login: &NewLogin<'_>,
        limit: SessionLimit,
    ) -> Result<Option<Vec<Arc<SessionRecord>>>, Error> {
        let record = login.record;
        let select = &self.statements().newest_others_of;
        let (user, key) = (record.user.as_str().into(), (&record.key).into());
        let values = [user, key, record.created.into(), limit.records_to_read().into()];
        let rows = lease.rows(select, select.arguments(&values)).await?;
        let newest: Vec<_> = rows.into_iter().map(read_session::<D>).collect::<Result<_, _>>()?;
        let end = End::new(record.created, EndReason::Limit, login.keep_ended_until);
        match limit.room(newest) {
            Room::None => Ok(None),
            Room::EndEach(ended) => {
                if !ended.is_empty() {
                    let statement = end_sessions::<D>(ended.len(), &self.shared.names);
                    let keys: Vec<Value<'_>> = ended.iter().map(|old| (&old.key).into()).collect();
                    self.run_end(lease, &statement, &end, None, &keys).await?;
                }
                Ok(Some(ended))
            }
            Room::EndAllExcept { stay, ended } => {
                let stay: Vec<_> =
                    stay.iter().map(|other| &other.key).chain([&record.key]).collect();
                self.raise_epoch(lease, &record.user, &stay, &end).await?;
                Ok(Some(ended))
            }
        }
    }

    /// Ends all of a user's sessions except those in `stay`, by raising the user's epoch.
    async fn raise_epoch(
        &self,
        lease: &mut Lease<D>,
        user: &UserId,
        stay: &[&SessionKey],
        end: &End,
    ) -> Result<(), Error> {
        let Statements { epoch, raise_epoch, any_session_of, insert_epoch, .. } = self.statements();
        let user = Value::from(user.as_str());
        // No other transaction can change the epoch in the meantime, because transactions for one
        // user wait for each other.
        let rows = lease.rows(epoch, epoch.arguments(&[user])).await?;
        let read_number = |row| Columns::<D::Database>::of(row).int().map_err(Error::of::<D>);
        let before = rows.first().map(read_number).transpose()?.flatten();
        let write_epoch = if before.is_some() { raise_epoch } else { insert_epoch };
        if before.is_none()
            && lease.rows(any_session_of, any_session_of.arguments(&[user])).await?.is_empty()
        {
            return Ok(());
        }
        let before = u64::try_from(before.unwrap_or(0)).unwrap_or(0);
        let next = Epoch::new(before, None).raised(end).number;
        let [before, next] = [before, next].map(|number| Value::Int(i64::try_from(number).ok()));
        let reason = end.reason.as_str().into();
        let values = [end.at.into(), reason, end.keep_until.into(), user, next];
        lease.run(write_epoch, write_epoch.arguments(&values)).await?;
        for chunk in stay.chunks(CARRIED_AT_ONCE) {
            let carry_over = carry_over::<D>(chunk.len(), &self.shared.names);
            let keys = chunk.iter().map(|key| Value::from(*key));
            let values: Vec<_> = [user, before, next].into_iter().chain(keys).collect();
            lease.run(&carry_over, carry_over.arguments(&values)).await?;
        }
        Ok(())
    }

    /// Returns the user's sessions that ended because of a replay (a late use of an old remember
    /// cookie), except those that are marked as notified. Marks the returned sessions as notified.
    async fn take_replays(
        &self,
        lease: &mut Lease<D>,
        user: &UserId,
    ) -> Result<Vec<Arc<SessionRecord>>, Error> {
        let Statements { to_notify, mark_notified, .. } = self.statements();
        let rows = lease.rows(to_notify, to_notify.arguments(&[user.as_str().into()])).await?;
        let replays: Vec<_> = rows.into_iter().map(read_session::<D>).collect::<Result<_, _>>()?;
        // Marks each returned session by its key, because another session may have ended because of
        // a replay since the `SELECT`.
        for replay in &replays {
            lease.run(mark_notified, mark_notified.arguments(&[(&replay.key).into()])).await?;
        }
        Ok(replays)
    }

    pub(crate) async fn find_session(
        &self,
        deadline: Instant,
        key: &SessionKey,
    ) -> Result<Option<Arc<SessionRecord>>, Error> {
        let load = &self.statements().load;
        let row = self.row(deadline, load, || load.arguments(&[key.into()])).await?;
        row.map(read_session::<D>).transpose()
    }

    async fn rotate_session(&self, rotation: &Rotation) -> Result<Option<Rotated>, Error> {
        let deadline = self.deadline();
        let values = [
            rotation.at.into(),
            rotation.remember_expires.into(),
            rotation.expires.into(),
            (&rotation.key).into(),
            rotation.from_generation.into(),
        ];
        let write = if D::RETURNING { Write::Statement } else { Write::Transaction };
        let rotated_row = self.write(deadline, write, |lease| {
            Box::pin(self.rotate_on_lease(lease, &rotation.key, &values))
        });
        match rotated_row.await? {
            Some(row) => read_session::<D>(row).map(Rotated::Won).map(Some),
            None => Ok(self.find_session(deadline, &rotation.key).await?.map(Rotated::Lost)),
        }
    }

    /// Rotates a session and returns its row. If an `UPDATE` can't return rows, reads the row in
    /// the same transaction, before other transactions can change it.
    async fn rotate_on_lease(
        &self,
        mut lease: Lease<D>,
        key: &SessionKey,
        values: &[Value<'_>],
    ) -> Result<Option<RowOf<D>>, Error> {
        let Statements { rotate, load, .. } = self.statements();
        let rows = if D::RETURNING {
            lease.rows(rotate, rotate.arguments(values)).await?
        } else if lease.run(rotate, rotate.arguments(values)).await? > 0 {
            lease.rows(load, load.arguments(&[key.into()])).await?
        } else {
            return Ok(None);
        };
        lease.finish().await?;
        Ok(rows.into_iter().next())
    }

    /// Runs the statement once for each row to update, in one transaction.
    async fn update_each_in_transaction(
        &self,
        mut lease: Lease<D>,
        statement: &Statement<D>,
        updates: &[Vec<Value<'_>>],
    ) -> Result<(), Error> {
        for values in updates {
            lease.run(statement, statement.arguments(values)).await?;
        }
        lease.finish().await
    }

    /// Runs the statement once for each row to update, with at most [`UPDATES_AT_ONCE`] rows in one
    /// transaction. Each update has the row's key, and the statement's parameters for this row.
    pub(crate) async fn update_in_chunks(
        &self,
        statement: &Statement<D>,
        mut updates: Vec<([u8; 32], Vec<Value<'_>>)>,
    ) -> Result<(), StoreError> {
        // All nodes update rows in the same order. So two nodes that update the same rows wait for
        // each other instead of deadlocking.
        updates.sort_by_key(|(key, _)| *key);
        let updates: Vec<_> = updates.into_iter().map(|(_, values)| values).collect();
        let deadline = self.deadline();
        for chunk in updates.chunks(UPDATES_AT_ONCE) {
            let write = self.write(deadline, Write::Transaction, |lease| {
                Box::pin(self.update_each_in_transaction(lease, statement, chunk))
            });
            write.await.into_store_result::<D>()?;
        }
        Ok(())
    }

    /// Ends the sessions with these keys, and returns how many of them were live.
    async fn revoke_in_transaction(
        &self,
        mut lease: Lease<D>,
        keys: &[&SessionKey],
        end: &End,
    ) -> Result<u64, Error> {
        let Statements { end_live_session, end_session, .. } = self.statements();
        let mut live = 0;
        for key in keys {
            let key = [Value::from(*key)];
            // The second statement ends an expired session, which is not counted.
            live += self.run_end(&mut lease, end_live_session, end, None, &key).await?;
            self.run_end(&mut lease, end_session, end, None, &key).await?;
        }
        lease.finish().await?;
        Ok(live)
    }

    async fn revoke_all_in_transaction(
        &self,
        mut lease: Lease<D>,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), Error> {
        self.raise_epoch(&mut lease, user, except.as_slice(), end).await?;
        lease.finish().await
    }
}

impl<D: Dialect, U: AuthUser> SqlStore<D, U> {
    /// Runs a statement that deletes rows, and returns their number.
    pub(crate) async fn delete_rows(
        &self,
        delete: &Statement<D>,
        values: &[Value<'_>],
    ) -> Result<usize, StoreError> {
        // Even this single statement needs a transaction, because the isolation level of
        // `Dialect::begin` locks no gaps between rows. The database's default level may lock gaps.
        let arguments = || delete.arguments(values);
        let removed = self.run_as(Write::Transaction, self.deadline(), delete, arguments);
        let removed = removed.await.into_store_result::<D>()?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// Removes sessions that ended with their epoch, one user after the other. Returns the number
    /// of removed sessions.
    async fn purge_earlier_epochs(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let Statements { epoch_to_purge, purge_earlier_epochs, mark_purged, .. } =
            self.statements();
        let mut removed = 0;
        while removed < limit {
            let arguments = || epoch_to_purge.arguments(&[before.into()]);
            let row = self.row(self.deadline(), epoch_to_purge, arguments).await;
            let Some(row) = row.into_store_result::<D>()? else { break };
            let mut row = Columns::<D::Database>::of(&row);
            let read = (|| Ok((row.text()?, row.int()?)))();
            let (user, epoch) = read.map_err(Error::of::<D>).into_store_result::<D>()?;
            let (user, epoch) = (Value::from(user.as_str()), Value::Int(epoch));
            let values = [user, epoch, (limit - removed).into()];
            removed += self.delete_rows(purge_earlier_epochs, &values).await?;
            if removed < limit {
                let values = [user, epoch];
                let done =
                    self.run(self.deadline(), mark_purged, || mark_purged.arguments(&values));
                done.await.into_store_result::<D>()?;
            }
        }
        Ok(removed)
    }
}

#[async_trait]
impl<D: Dialect, U: AuthUser> SessionStore for SqlStore<D, U> {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
        let user = &login.record.user;
        for id in [Some(user), login.record.acting_user.as_ref()].into_iter().flatten() {
            if !D::can_store(id.as_str()) {
                return Err(Error::unstorable("user id").into_store_error::<D>());
            }
        }
        let create = self.write(self.deadline(), Write::UserTransaction(user), |lease| {
            Box::pin(self.create_in_transaction(lease, login))
        });
        create.await.into_store_result::<D>()
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError> {
        self.find_session(self.deadline(), key).await.into_store_result::<D>()
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
        self.rotate_session(rotation).await.into_store_result::<D>()
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
        let updates = marks.iter().map(|mark| {
            let SeenMark { key, generation, at, .. } = mark;
            (*key.as_bytes(), vec![(*at).into(), key.into(), (*generation).into()])
        });
        self.update_in_chunks(&self.statements().mark_seen, updates.collect()).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let updates = touches.iter().map(|touch| {
            let times = [touch.at.into(), touch.remember_expires.into(), touch.expires.into()];
            (*touch.key.as_bytes(), [&times[..], &[(&touch.key).into()]].concat())
        });
        self.update_in_chunks(&self.statements().touch, updates.collect()).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_by_key(|key| *key.as_bytes());
        let revoke = self.write(self.deadline(), Write::Transaction, |lease| {
            Box::pin(self.revoke_in_transaction(lease, &keys, end))
        });
        let live = revoke.await.into_store_result::<D>()?;
        Ok(usize::try_from(live).unwrap_or(usize::MAX))
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError> {
        if !D::can_store(user.as_str()) {
            return Ok(());
        }
        let revoke = self.write(self.deadline(), Write::UserTransaction(user), |lease| {
            Box::pin(self.revoke_all_in_transaction(lease, user, except, end))
        });
        revoke.await.into_store_result::<D>()
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
        if !D::can_store(user.as_str()) {
            return Ok(Vec::new());
        }
        let list = &self.statements().list;
        let values = [user.as_str().into(), now.into(), limit.into()];
        let rows = self
            .rows(self.deadline(), list, || list.arguments(&values))
            .await
            .into_store_result::<D>()?;
        rows.into_iter().map(read_session::<D>).collect::<Result<_, _>>().into_store_result::<D>()
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let removed =
            self.delete_rows(&self.statements().purge, &[before.into(), limit.into()]).await?;
        if removed == limit {
            return Ok(removed);
        }
        Ok(removed + self.purge_earlier_epochs(before, limit - removed).await?)
    }
}
