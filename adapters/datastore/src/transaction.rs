//! Transactions: begun explicitly, rolled back on any failure, and tried again where another was faster.

use std::sync::Arc;

use gcloud_sdk::google::datastore::v1::mutation::Operation;
use gcloud_sdk::google::datastore::v1::transaction_options::{Mode, ReadOnly, ReadWrite};
use gcloud_sdk::google::datastore::v1::{Entity, Key, Mutation, Query};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Found, TransactionId, pause};
use crate::error::{Cause, Fault};

/// A transaction is tried so often, if others are always faster.
const TRIES: u32 = 20;

/// What a transaction changes, and what its caller is told then.
pub(crate) struct Change<T> {
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) answer: T,
}

/// Nothing is changed.
pub(crate) fn unchanged<T>(answer: T) -> Result<Change<T>, Fault> {
    Ok(Change { mutations: Vec::new(), answer })
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

/// A transaction that may read. If it is dropped before it has ended, it is rolled back: what it has read
/// may be locked for a minute otherwise.
pub(crate) struct Transaction<'a> {
    client: &'a Arc<Client>,
    id: TransactionId,
    deadline: Instant,
    has_ended: bool,
}

impl<'a> Transaction<'a> {
    async fn begin(client: &'a Arc<Client>, mode: Mode, deadline: Instant) -> Result<Self, Fault> {
        let id = client.begin(mode, deadline).await?;
        Ok(Transaction { client, id, deadline, has_ended: false })
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) async fn lookup(&self, keys: Vec<Key>) -> Result<Found, Fault> {
        self.client.lookup(keys, Some(&self.id), self.deadline).await
    }

    pub(crate) async fn query(&self, query: Query) -> Result<Vec<Entity>, Fault> {
        Ok(self.query_from(query).await?.0)
    }

    /// What a query finds, and where the next would begin.
    pub(crate) async fn query_from(&self, query: Query) -> Result<(Vec<Entity>, Vec<u8>), Fault> {
        let mut all = Vec::new();
        let end = self.client.pages(query, Some(&self.id), self.deadline, into(&mut all)).await?;
        Ok((all, end))
    }

    async fn commit(&mut self, mutations: Vec<Mutation>) -> Result<(), Fault> {
        self.client.commit(mutations, self.id.clone(), self.deadline).await?;
        self.has_ended = true;
        Ok(())
    }

    async fn roll_back(&mut self) {
        // If it is gone already, so much the better; if there is no time left, or the call did not get there, it
        // goes on behind.
        let rollback = self.client.rollback(self.id.clone());
        let answer = timeout_at(self.deadline, rollback).await;
        let is_lost = |fault: &Fault| matches!(fault.cause, Cause::Refused | Cause::Lost);
        self.has_ended = answer.is_ok_and(|answer| !answer.is_err_and(|fault| is_lost(&fault)));
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

/// Takes found entities into this list.
pub(crate) fn into(all: &mut Vec<Entity>) -> impl FnMut(Vec<Entity>) -> Result<(), Fault> {
    |found| {
        all.extend(found);
        Ok(())
    }
}

/// Takes all entities that a query finds; if that takes more than one answer, as they are at one moment.
pub(crate) async fn read_all(
    client: &Arc<Client>,
    query: Query,
    deadline: Instant,
    mut take: impl FnMut(Vec<Entity>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let first = client.page(query.clone(), None, deadline).await?;
    if first.is_last {
        return take(first.entities);
    }
    let mode = Mode::ReadOnly(ReadOnly::default());
    let mut snapshot = Transaction::begin(client, mode, deadline).await?;
    let read = client.pages(query, Some(&snapshot.id), deadline, take).await;
    snapshot.roll_back().await;
    read.map(drop)
}

/// A transaction, tried until it succeeds or fails for good.
pub(crate) struct Tries<'a> {
    client: &'a Arc<Client>,
    deadline: Instant,
    /// The one before, which the service lets go first where transactions wait for each other.
    earlier: TransactionId,
    count: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, deadline: Instant) -> Self {
        Self { client, deadline, earlier: TransactionId::new(), count: 0 }
    }

    pub(crate) async fn begin(&mut self) -> Result<Transaction<'a>, Fault> {
        self.count += 1;
        let earlier = std::mem::take(&mut self.earlier);
        let mode = Mode::ReadWrite(ReadWrite { previous_transaction: earlier });
        let begun = Transaction::begin(self.client, mode, self.deadline).await?;
        self.earlier = begun.id.clone();
        Ok(begun)
    }

    /// Ends a transaction with this change; `None` if it is to be tried again.
    pub(crate) async fn end<T>(
        &mut self,
        mut transaction: Transaction<'a>,
        change: Result<Change<T>, Fault>,
    ) -> Option<Result<T, Fault>> {
        let done = match change {
            Ok(Change { mutations, answer }) if mutations.is_empty() => {
                transaction.roll_back().await;
                return Some(Ok(answer));
            }
            Ok(Change { mutations, answer }) => {
                transaction.commit(mutations).await.map(|()| answer)
            }
            Err(fault) => Err(fault),
        };
        match done {
            Err(fault) if matches!(fault.cause, Cause::Aborted | Cause::Gone) => {
                transaction.roll_back().await;
                if fault.cause == Cause::Gone {
                    self.earlier.clear();
                }
                let is_last = self.count == TRIES || !pause(self.count, self.deadline).await;
                is_last.then(|| Err(Fault::contended()))
            }
            other => Some(other),
        }
    }
}

/// Reads, decides and writes in one transaction: `transact!(client, deadline, transaction => { … })`, whose
/// body answers a [`Change`], and is run again where another transaction was faster; `return` leaves the body
/// alone. (No function that takes an async closure: its future would have to be `Send` for every lifetime.)
macro_rules! transact {
    ($client:expr, $deadline:expr, $transaction:ident => $body:expr) => {
        async {
            let mut tries = $crate::transaction::Tries::new($client, $deadline);
            loop {
                let begun = match tries.begin().await {
                    Ok(begun) => begun,
                    Err(fault) => break Err(fault),
                };
                let change = async {
                    let $transaction = &begun;
                    $body
                };
                let change = change.await;
                if let Some(done) = tries.end(begun, change).await {
                    break done;
                }
            }
        }
    };
}

pub(crate) use transact;
