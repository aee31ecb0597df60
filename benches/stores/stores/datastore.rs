//! Datastore: the store, compared with the bare driver, which is the client of the crate
//! gcloud-sdk.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use gcloud_sdk::google::datastore::v1::commit_request::{Mode, TransactionSelector};
use gcloud_sdk::google::datastore::v1::datastore_client::DatastoreClient;
use gcloud_sdk::google::datastore::v1::filter::FilterType;
use gcloud_sdk::google::datastore::v1::key::PathElement;
use gcloud_sdk::google::datastore::v1::key::path_element::IdType;
use gcloud_sdk::google::datastore::v1::mutation::Operation;
use gcloud_sdk::google::datastore::v1::read_options::ConsistencyType;
use gcloud_sdk::google::datastore::v1::run_query_request::QueryType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{
    BeginTransactionRequest, CommitRequest, CompositeFilter, Entity, Filter, Key, KindExpression,
    LookupRequest, Mutation, PartitionId, PropertyFilter, PropertyReference, Query, ReadOptions,
    RunQueryRequest, Value, composite_filter, property_filter,
};
use gcloud_sdk::tonic::transport::Channel;
use tokio::runtime::Runtime;
use tower_keep_datastore::DatastoreStore;

use super::{
    KeepStore, SESSIONS_PER_USER, SLOW_CALLS_PER_ROUND, Subject, TASKS, USERS, Work, compare, fill,
    key, measure, new_generations, record, user_of_new_session,
};

/// The bare driver. It makes the same calls as the store, and does not decode the entities in the
/// responses.
struct BareDriver {
    client: DatastoreClient<Channel>,
    project: String,
}

fn equals(property: &str, value: ValueType) -> Filter {
    let filter = PropertyFilter {
        property: Some(PropertyReference { name: property.to_owned() }),
        op: property_filter::Operator::Equal.into(),
        value: Some(Value { value_type: Some(value), ..Value::default() }),
    };
    Filter { filter_type: Some(FilterType::PropertyFilter(filter)) }
}

impl BareDriver {
    fn partition(&self) -> PartitionId {
        PartitionId { project_id: self.project.clone(), ..PartitionId::default() }
    }

    fn key(&self, kind: &str, id: IdType) -> Key {
        let path = vec![PathElement { kind: kind.to_owned(), id_type: Some(id) }];
        Key { partition_id: Some(self.partition()), path }
    }

    fn user_key(&self, user: u64) -> Key {
        match user {
            0 => self.key("User", IdType::Name("0".to_owned())),
            user => self.key("User", IdType::Id(user as i64)),
        }
    }

    fn session_key(&self, session: u64) -> Key {
        let hex = key(session).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.key("KeepSession_User", IdType::Name(hex))
    }

    async fn lookup(&self, keys: Vec<Key>, transaction: Option<Vec<u8>>) -> Vec<Entity> {
        let read_options = |transaction| ReadOptions {
            consistency_type: Some(ConsistencyType::Transaction(transaction)),
        };
        let request = LookupRequest {
            project_id: self.project.clone(),
            keys,
            read_options: transaction.map(read_options),
            ..LookupRequest::default()
        };
        let response = self.client.clone().lookup(request).await.expect("a response").into_inner();
        response.found.into_iter().filter_map(|found| found.entity).collect()
    }

    async fn begin(&self) -> Vec<u8> {
        let project_id = self.project.clone();
        let request = BeginTransactionRequest { project_id, ..BeginTransactionRequest::default() };
        let response = self.client.clone().begin_transaction(request).await;
        response.expect("a transaction").into_inner().transaction
    }

    async fn commit(&self, operations: Vec<Operation>, transaction: Vec<u8>) {
        let mutation = |operation| Mutation { operation: Some(operation), ..Mutation::default() };
        let request = CommitRequest {
            project_id: self.project.clone(),
            mode: Mode::Transactional.into(),
            mutations: operations.into_iter().map(mutation).collect(),
            transaction_selector: Some(TransactionSelector::Transaction(transaction)),
            ..CommitRequest::default()
        };
        self.client.clone().commit(request).await.expect("a commit");
    }
}

impl Subject for BareDriver {
    async fn by_id(&self, user: u64) {
        let found = self.lookup(vec![self.user_key(user)], None).await;
        assert_eq!(black_box(found).len(), 1);
    }

    async fn load_login(&self, session: u64) {
        let keys = vec![self.session_key(session), self.user_key(session % USERS)];
        assert_eq!(black_box(self.lookup(keys, None).await).len(), 2);
    }

    async fn create(&self, session: u64) {
        let (record, user) =
            (record(session, user_of_new_session(session)), user_of_new_session(session));
        let login_state_key = self.key("KeepLogins_User", IdType::Name(format!("={user}")));
        let transaction = self.begin().await;
        let keys = vec![self.session_key(session), login_state_key.clone()];
        black_box(self.lookup(keys, Some(transaction.clone())).await);
        let value = |value| Value { value_type: Some(value), ..Value::default() };
        let properties = HashMap::from([
            ("user".to_owned(), value(ValueType::StringValue(user.to_string()))),
            ("open".to_owned(), value(ValueType::BooleanValue(true))),
            ("record".to_owned(), value(ValueType::StringValue(format!("{record:?}")))),
        ]);
        let session_entity = Entity { key: Some(self.session_key(session)), properties };
        let login_state = Entity { key: Some(login_state_key), properties: HashMap::new() };
        let operations = vec![Operation::Insert(session_entity), Operation::Upsert(login_state)];
        self.commit(operations, transaction).await;
    }

    async fn rotate(&self, session: u64, _from: u32) {
        let transaction = self.begin().await;
        let found = self.lookup(vec![self.session_key(session)], Some(transaction.clone())).await;
        self.commit(found.into_iter().map(Operation::Upsert).collect(), transaction).await;
    }

    async fn list(&self, user: u64) {
        let filters = vec![
            equals("user", ValueType::StringValue(user.to_string())),
            equals("open", ValueType::BooleanValue(true)),
        ];
        let both_filters = CompositeFilter { op: composite_filter::Operator::And.into(), filters };
        let query = Query {
            kind: vec![KindExpression { name: "KeepSession_User".to_owned() }],
            filter: Some(Filter { filter_type: Some(FilterType::CompositeFilter(both_filters)) }),
            ..Query::default()
        };
        let request = RunQueryRequest {
            project_id: self.project.clone(),
            partition_id: Some(self.partition()),
            query_type: Some(QueryType::Query(query)),
            ..RunQueryRequest::default()
        };
        let response = self.client.clone().run_query(request).await.expect("a list").into_inner();
        let batch = response.batch.expect("a list");
        assert_eq!(black_box(batch).entity_results.len() as u64, SESSIONS_PER_USER);
    }
}

/// Measures the Datastore emulator with this URL.
pub(super) fn bench(criterion: &mut Criterion, runtime: &Runtime, url: &str) {
    let project = format!("bench-{}", std::process::id());
    let (store, channel) = runtime.block_on(async {
        let builder = DatastoreStore::builder(format!("datastore://{project}"));
        let store = builder.with_emulator(url).build().await.expect("a store");
        let endpoint = Channel::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
        (fill(store).await, endpoint.connect().await.expect("a connection"))
    });
    let bare = BareDriver { client: DatastoreClient::new(channel), project };
    let (keep, bare) = (Arc::new(KeepStore(store)), Arc::new(bare));
    // A rotation by the bare driver does not raise the generation in the record. So the bench counts
    // the generations separately: in one list for the store, and in another for the bare driver.
    let (keep_generations, bare_generations) = (new_generations(), new_generations());
    for tasks in TASKS {
        let work = Work { tasks, calls: SLOW_CALLS_PER_ROUND };
        let (keep, bare) = ((&keep, keep_generations), (&bare, bare_generations));
        runtime.block_on(compare("datastore", work, keep, bare));
    }
    if std::env::var_os("KEEP_RATIOS_ONLY").is_none() {
        measure(criterion, runtime, ["datastore", "bare driver"], &bare, bare_generations);
        measure(criterion, runtime, ["datastore", "keep"], &keep, keep_generations);
    }
}
