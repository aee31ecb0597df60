//! Transactions. Each begins with a call of its own, and is rolled back on any failure. If the
//! service aborts a transaction in favour of another one, the aborted transaction is tried again.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::mutation::Operation;
use gcloud_sdk::google::datastore::v1::transaction_options::{Mode, ReadOnly, ReadWrite};
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Found, TransactionId, pause};
use crate::error::{Cause, Error};

/// A transaction is tried at most this many times, if the service aborts it each time.
const MAX_TRIES: u32 = 20;

/// One transaction ends or deletes at most this many sessions. A transaction is limited to 10 MiB.
/// Each session takes about 2 KB of it, including its index entries, and more with long details or
/// a long user id.
pub(crate) const MAX_ENDED: usize = 1_000;

/// The result of a transaction's body: the changes to write, and the value for the caller.
pub(crate) struct Change<T> {
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) output: T,
}

/// Returns the result of a transaction that writes nothing.
pub(crate) fn unchanged<T>(output: T) -> Result<Change<T>, Error> {
    Ok(Change { mutations: Vec::new(), output })
}

pub(crate) fn insert(entity: Entity) -> Mutation {
    mutation(Operation::Insert(entity))
}

pub(crate) fn upsert(entity: Entity) -> Mutation {
    mutation(Operation::Upsert(entity))
}

pub(crate) fn delete(key: Key) -> Mutation {
    mutation(Operation::Delete(key))
}

fn mutation(operation: Operation) -> Mutation {
    Mutation { operation: Some(operation), ..Mutation::default() }
}

/// A transaction that has begun. If it is dropped before it has ended, a task rolls it back.
/// Otherwise the entities that it has read could stay locked for a minute.
pub(crate) struct Transaction<'a> {
    client: &'a Arc<Client>,
    id: TransactionId,
    deadline: Instant,
    has_ended: bool,
}

impl<'a> Transaction<'a> {
    async fn begin(client: &'a Arc<Client>, mode: Mode, deadline: Instant) -> Result<Self, Error> {
        let id = client.begin(mode, deadline).await?;
        Ok(Transaction { client, id, deadline, has_ended: false })
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) async fn lookup(&self, keys: Vec<Key>) -> Result<Found, Error> {
        self.client.lookup(keys, Some(&self.id), self.deadline).await
    }

    pub(crate) async fn query(&self, query: Query) -> Result<Vec<Entity>, Error> {
        Ok(self.query_from(query).await?.0)
    }

    /// Returns the entities that a query finds, and the cursor at which a query for the following
    /// entities begins.
    pub(crate) async fn query_from(&self, query: Query) -> Result<(Vec<Entity>, Vec<u8>), Error> {
        let mut all = Vec::new();
        let end = self
            .client
            .run_query(query, Some(&self.id), self.deadline, collect_into(&mut all))
            .await?;
        Ok((all, end))
    }

    async fn commit(&mut self, mutations: Vec<Mutation>) -> Result<(), Error> {
        self.client.commit(mutations, self.id.clone(), self.deadline).await?;
        self.has_ended = true;
        Ok(())
    }

    async fn roll_back(&mut self) {
        // If the service no longer knows the transaction, it has ended. If the deadline passed, or
        // the call did not reach the service, `drop` tries again in a task.
        let rollback = self.client.rollback(self.id.clone());
        let reply = timeout_at(self.deadline, rollback).await;
        let may_be_open =
            |error: &Error| matches!(error.cause, Cause::Unavailable | Cause::OutcomeUnknown);
        self.has_ended = reply.is_ok_and(|reply| !reply.is_err_and(|error| may_be_open(&error)));
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.has_ended {
            return;
        }
        let (client, id) = (Arc::clone(self.client), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            let _ = client.rollback(id).await;
        });
    }
}

/// Returns a `for_each_page` closure that adds the entities of each page to `all`.
pub(crate) fn collect_into(all: &mut Vec<Entity>) -> impl FnMut(Vec<Entity>) -> Result<(), Error> {
    |found| {
        all.extend(found);
        Ok(())
    }
}

/// Passes all entities that a query finds to `for_each_page`, one page after the other. If there is
/// more than one page, all pages are read in one read-only transaction, which shows the data of one
/// moment.
pub(crate) async fn read_all(
    client: &Arc<Client>,
    query: Query,
    deadline: Instant,
    mut for_each_page: impl FnMut(Vec<Entity>) -> Result<(), Error>,
) -> Result<(), Error> {
    let first = client.run_query_once(query.clone(), None, deadline).await?;
    if first.is_last {
        return for_each_page(first.entities);
    }
    let mode = Mode::ReadOnly(ReadOnly::default());
    let mut snapshot = Transaction::begin(client, mode, deadline).await?;
    let read = client.run_query(query, Some(&snapshot.id), deadline, for_each_page).await;
    snapshot.roll_back().await;
    read.map(drop)
}

/// Tries a transaction again until it succeeds, fails permanently, or was tried too often.
pub(crate) struct Tries<'a> {
    client: &'a Arc<Client>,
    deadline: Instant,
    /// The transaction of the previous try, or empty. The service prefers a transaction that names
    /// its previous try to other transactions.
    previous: TransactionId,
    /// How many tries have begun.
    count: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, deadline: Instant) -> Self {
        Self { client, deadline, previous: TransactionId::new(), count: 0 }
    }

    pub(crate) async fn begin(&mut self) -> Result<Transaction<'a>, Error> {
        self.count += 1;
        let previous = std::mem::take(&mut self.previous);
        let mode = Mode::ReadWrite(ReadWrite { previous_transaction: previous });
        let begun = Transaction::begin(self.client, mode, self.deadline).await?;
        self.previous = begun.id.clone();
        Ok(begun)
    }

    /// Ends a try with the result of its body. Returns `None` if the transaction has to be tried
    /// again.
    pub(crate) async fn end<T>(
        &mut self,
        mut transaction: Transaction<'a>,
        change: Result<Change<T>, Error>,
    ) -> Option<Result<T, Error>> {
        let result = match change {
            Ok(Change { mutations, output }) if mutations.is_empty() => {
                transaction.roll_back().await;
                return Some(Ok(output));
            }
            Ok(Change { mutations, output }) => {
                transaction.commit(mutations).await.map(|()| output)
            }
            Err(error) => Err(error),
        };
        match result {
            Err(error) if matches!(error.cause, Cause::Aborted | Cause::TransactionGone) => {
                transaction.roll_back().await;
                if error.cause == Cause::TransactionGone {
                    self.previous.clear();
                }
                let is_last = self.count == MAX_TRIES || !pause(self.count, self.deadline).await;
                is_last.then(|| Err(Error::contended()))
            }
            other => Some(other),
        }
    }
}

/// Runs a body in a transaction: `transact!(client, deadline, transaction => { … })`.
///
/// The body reads through `transaction`, and returns a [`Change`]. It runs again if the transaction
/// has to be tried again. A `return` in the body returns from the body only.
///
/// This is not a function with an async closure, because the closure's future would have to be
/// `Send` for every lifetime.
macro_rules! transact {
    ($client:expr, $deadline:expr, $transaction:ident => $body:expr) => {
        async {
            let mut tries = $crate::transaction::Tries::new($client, $deadline);
            loop {
                let begun = match tries.begin().await {
                    Ok(begun) => begun,
                    Err(error) => break Err(error),
                };
                let change = async {
                    let $transaction = &begun;
                    $body
                };
                let change = change.await;
                if let Some(result) = tries.end(begun, change).await {
                    break result;
                }
            }
        }
    };
}

pub(crate) use transact;
