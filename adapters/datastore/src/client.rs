//! The calls of `google.datastore.v1`. Each call has a deadline, and the number of calls in
//! progress is limited. A call that changes no entity is tried again if the service was
//! unavailable, which `status_codes.rs` decides.

use std::collections::HashMap;
use std::time::Duration;

use gcloud_sdk::GoogleAuthMiddleware;
use gcloud_sdk::google::datastore::v1::commit_request::{Mode, TransactionSelector};
use gcloud_sdk::google::datastore::v1::datastore_client::DatastoreClient;
use gcloud_sdk::google::datastore::v1::key::PathElement;
use gcloud_sdk::google::datastore::v1::query_result_batch::MoreResultsType;
use gcloud_sdk::google::datastore::v1::read_options::ConsistencyType;
use gcloud_sdk::google::datastore::v1::run_query_request::QueryType;
use gcloud_sdk::google::datastore::v1::transaction_options;
use gcloud_sdk::google::datastore::v1::{
    AllocateIdsRequest, BeginTransactionRequest, CommitRequest, Entity, Key, LookupRequest,
    Mutation, PartitionId, Query, ReadOptions, RollbackRequest, RunQueryRequest,
    TransactionOptions,
};
use gcloud_sdk::tonic::metadata::{Ascii, MetadataValue};
use gcloud_sdk::tonic::{Code, Request, Response, Status};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::{Cause, Error};

/// If the service is unavailable, a call that changes no entity is tried this many times in total.
const MAX_TRIES: u32 = 3;
/// A pause is random. Its maximum is twice this after the first try, and doubles with each further
/// try, up to [`MAX_PAUSE`].
const BASE_PAUSE: Duration = Duration::from_millis(20);
/// The maximum of the longest pauses.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The deadline that the service gets is later than the caller's by this much.
const EXTRA_SERVICE_TIME: Duration = Duration::from_millis(500);
/// The time-out of a rollback. It does not depend on the caller's deadline, which may have passed.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of keys in one `Lookup` request.
const MAX_KEYS: usize = 1_000;
/// The maximum number of requests that one lookup or query makes.
const MAX_REQUESTS: usize = 10_000;

/// The id that the service gave to a transaction.
pub(crate) type TransactionId = Vec<u8>;

/// The entities that were found, by the paths of their keys. The partition of a key is ignored,
/// because responses contain parts of it that requests leave out.
pub(crate) struct Found(HashMap<Vec<PathElement>, Entity>);

impl Found {
    /// Returns the entity with this key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Entity> {
        self.0.get(&key.path)
    }

    /// Removes and returns the entity with this key.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Entity> {
        self.0.remove(&key.path)
    }

    /// Returns all entities, in any order.
    pub(crate) fn into_entities(self) -> impl Iterator<Item = Entity> {
        self.0.into_values()
    }
}

/// One response to a query, which may hold only some of the entities.
pub(crate) struct Page {
    pub(crate) entities: Vec<Entity>,
    /// The cursor at which the next page begins.
    pub(crate) end_cursor: Vec<u8>,
    /// Whether there are no more entities, or no more were requested.
    pub(crate) is_last: bool,
}

/// Returns the options for reading in this transaction.
fn reading_in(transaction: &TransactionId) -> ReadOptions {
    ReadOptions { consistency_type: Some(ConsistencyType::Transaction(transaction.clone())) }
}

/// The header that tells Google's front end the project and the database of a call. Calls to named
/// databases fail without it.
const ROUTING: &str = "x-goog-request-params";

/// Makes calls to the service for one project, database and namespace.
pub(crate) struct Client {
    service: DatastoreClient<GoogleAuthMiddleware>,
    partition: PartitionId,
    routing: MetadataValue<Ascii>,
    /// Each call holds one permit until its response, also while it waits for its turn on the
    /// connection. Without a permit, a call fails immediately.
    permits: Semaphore,
}

/// Makes a call once.
macro_rules! call {
    ($self:ident, $deadline:expr, $method:ident, $request:expr) => {
        call!($self, $deadline, $method, $request, with_permit)
    };
    ($self:ident, $deadline:expr, $method:ident, $request:expr, $how:ident) => {{
        let mut service = $self.service.clone();
        $self.$how($deadline, |timeout| {
            let mut request = Request::new($request);
            request.set_timeout(timeout);
            request.metadata_mut().insert(ROUTING, $self.routing.clone());
            async move { service.$method(request).await }
        })
    }};
}

/// Makes a call that changes no entity, so it may be repeated. The call is tried again if the
/// service was unavailable.
macro_rules! repeatable {
    ($self:ident, $deadline:expr, $method:ident, $request:expr) => {
        repeatable!($self, $deadline, $method, $request, with_permit)
    };
    ($self:ident, $deadline:expr, $method:ident, $request:expr, $how:ident) => {{
        let request = $request;
        let mut tries = 0;
        loop {
            tries += 1;
            match call!($self, $deadline, $method, request.clone(), $how).await {
                Ok(reply) => break Ok(reply),
                Err(status) => {
                    let error = Error::from_read_status(&status);
                    let is_full = status.code() == Code::ResourceExhausted;
                    if is_full || error.cause != Cause::Unavailable || tries == MAX_TRIES {
                        break Err(error);
                    }
                    if !pause(tries, $deadline).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}

/// Waits before the next try, for a random time, so that competing calls don't try again at the
/// same moment. The maximum doubles with each try. Returns `false` if the deadline comes first.
pub(crate) async fn pause(tries: u32, deadline: Instant) -> bool {
    let longest = BASE_PAUSE.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE);
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let until = Instant::now() + longest.mul_f64(f64::from(random) / f64::from(u32::MAX));
    sleep_until(until.min(deadline)).await;
    until < deadline
}

impl Client {
    /// Creates a client for this partition: a project, a database and a namespace. At most
    /// `max_waiting` calls are in progress or wait.
    pub(crate) fn new(
        service: DatastoreClient<GoogleAuthMiddleware>,
        partition: PartitionId,
        max_waiting: usize,
    ) -> Result<Self, Error> {
        let encoded = |id| utf8_percent_encode(id, NON_ALPHANUMERIC);
        let mut routing = format!("project_id={}", encoded(&partition.project_id));
        if !partition.database_id.is_empty() {
            routing += &format!("&database_id={}", encoded(&partition.database_id));
        }
        let routing = routing.parse().map_err(|_| {
            Error::unsupported("the project's id has characters that are not ASCII: check it")
        })?;
        Ok(Self { service, partition, routing, permits: Semaphore::new(max_waiting) })
    }

    /// Returns the ids of the project and the database.
    fn project_and_database(&self) -> (String, String) {
        (self.partition.project_id.clone(), self.partition.database_id.clone())
    }

    /// Makes a call, or returns an error immediately if too many calls are in progress.
    async fn with_permit<T, F>(
        &self,
        deadline: Instant,
        call: impl FnOnce(Duration) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Ok(_permit) = self.permits.try_acquire() else {
            let message =
                "too many calls are in progress; try again later, or see with_max_waiting";
            return Err(Status::resource_exhausted(message));
        };
        self.within_deadline(deadline, call).await
    }

    /// Makes a call, or returns an error when the deadline passes.
    async fn within_deadline<T, F>(
        &self,
        deadline: Instant,
        call: impl FnOnce(Duration) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // The service gets more time than the caller, so that the time-out is normally noticed
        // here.
        let service_timeout =
            deadline.saturating_duration_since(Instant::now()) + EXTRA_SERVICE_TIME;
        let timed_out = || {
            Status::deadline_exceeded("no response in time; try again later, or see with_timeout")
        };
        match timeout_at(deadline, call(service_timeout)).await {
            // On a busy machine the connection may notice its own time-out first. It then cancels
            // the call.
            Ok(Err(status)) if status.code() == Code::Cancelled && deadline <= Instant::now() => {
                Err(timed_out())
            }
            Ok(reply) => reply.map(Response::into_inner),
            Err(_) => Err(timed_out()),
        }
    }

    /// Returns the entities with these keys. All of them are read as of the same moment, if the
    /// call is in a transaction or has at most 1,000 keys.
    pub(crate) async fn lookup(
        &self,
        mut keys: Vec<Key>,
        transaction: Option<&TransactionId>,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let (project_id, database_id) = self.project_and_database();
        let mut found = HashMap::new();
        for _ in 0..MAX_REQUESTS {
            if keys.is_empty() {
                return Ok(Found(found));
            }
            let later = keys.split_off(keys.len().min(MAX_KEYS));
            let request = LookupRequest {
                project_id: project_id.clone(),
                database_id: database_id.clone(),
                read_options: transaction.map(reading_in),
                keys,
                ..LookupRequest::default()
            };
            let reply = repeatable!(self, deadline, lookup, request)?;
            let entities = reply.found.into_iter().filter_map(|result| result.entity);
            found.extend(
                entities.filter_map(|entity| Some((entity.key.as_ref()?.path.clone(), entity))),
            );
            keys = reply.deferred;
            keys.extend(later);
        }
        Err(Error::unexpected_reply())
    }

    /// Passes the entities that a query finds to `for_each_page`, one page after the other. Returns
    /// the cursor at which a query for the following entities begins.
    pub(crate) async fn run_query(
        &self,
        mut query: Query,
        transaction: Option<&TransactionId>,
        deadline: Instant,
        mut for_each_page: impl FnMut(Vec<Entity>) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        for _ in 0..MAX_REQUESTS {
            let page = self.run_query_once(query.clone(), transaction, deadline).await?;
            if let Some(limit) = &mut query.limit {
                *limit = limit.saturating_sub(page.entities.len() as i32);
            }
            for_each_page(page.entities)?;
            if page.is_last || query.limit == Some(0) {
                return Ok(page.end_cursor);
            }
            query.start_cursor = page.end_cursor;
        }
        Err(Error::unexpected_reply())
    }

    /// Returns the first page of the entities that a query finds.
    pub(crate) async fn run_query_once(
        &self,
        query: Query,
        transaction: Option<&TransactionId>,
        deadline: Instant,
    ) -> Result<Page, Error> {
        let (project_id, database_id) = self.project_and_database();
        let request = RunQueryRequest {
            project_id,
            database_id,
            partition_id: Some(self.partition.clone()),
            read_options: transaction.map(reading_in),
            query_type: Some(QueryType::Query(query)),
            ..RunQueryRequest::default()
        };
        let batch = repeatable!(self, deadline, run_query, request)?.batch;
        let batch = batch.ok_or_else(Error::unexpected_reply)?;
        let is_last = batch.more_results() != MoreResultsType::NotFinished;
        let results = batch.entity_results.into_iter();
        let entities = results.filter_map(|result| result.entity).collect();
        Ok(Page { entities, end_cursor: batch.end_cursor, is_last })
    }

    /// Begins a transaction.
    pub(crate) async fn begin(
        &self,
        mode: transaction_options::Mode,
        deadline: Instant,
    ) -> Result<TransactionId, Error> {
        let (project_id, database_id) = self.project_and_database();
        let request = BeginTransactionRequest {
            project_id,
            database_id,
            transaction_options: Some(TransactionOptions { mode: Some(mode) }),
            ..BeginTransactionRequest::default()
        };
        let reply = repeatable!(self, deadline, begin_transaction, request)?;
        Ok(reply.transaction)
    }

    /// Ends a transaction, and writes these changes.
    pub(crate) async fn commit(
        &self,
        mutations: Vec<Mutation>,
        transaction: TransactionId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (project_id, database_id) = self.project_and_database();
        let request = CommitRequest {
            project_id,
            database_id,
            mode: Mode::Transactional.into(),
            mutations,
            transaction_selector: Some(TransactionSelector::Transaction(transaction)),
            ..CommitRequest::default()
        };
        let reply = call!(self, deadline, commit, request).await;
        reply.map(drop).map_err(|status| Error::from_status(&status))
    }

    /// Ends a transaction without changes. The call needs no permit: it releases the
    /// transaction's locks, for which other calls may be waiting.
    pub(crate) async fn rollback(&self, transaction: TransactionId) -> Result<(), Error> {
        let (project_id, database_id) = self.project_and_database();
        let request =
            RollbackRequest { project_id, database_id, transaction, ..RollbackRequest::default() };
        let deadline = Instant::now() + ROLLBACK_TIMEOUT;
        repeatable!(self, deadline, rollback, request, within_deadline).map(drop)
    }

    /// Completes a key with an id that Datastore gives to no other entity.
    pub(crate) async fn allocate(&self, key: Key, deadline: Instant) -> Result<Key, Error> {
        let (project_id, database_id) = self.project_and_database();
        let request = AllocateIdsRequest {
            project_id,
            database_id,
            keys: vec![key],
            ..AllocateIdsRequest::default()
        };
        let reply = repeatable!(self, deadline, allocate_ids, request)?;
        reply.keys.into_iter().next().ok_or_else(Error::unexpected_reply)
    }
}
