//! Datastore, beside gcloud-sdk's client on its own.

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

use super::{Keep, SESSIONS, SHORT_ROUND, Subject, TASKS, USERS, compare, fill, generations, key};
use super::{measure, new_user, record};

/// The calls that the store makes. The entities in the responses are not decoded.
struct Bare {
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

impl Bare {
    fn partition(&self) -> PartitionId {
        PartitionId { project_id: self.project.clone(), ..PartitionId::default() }
    }

    fn key(&self, kind: &str, id: IdType) -> Key {
        let path = vec![PathElement { kind: kind.to_owned(), id_type: Some(id) }];
        Key { partition_id: Some(self.partition()), path }
    }

    fn user(&self, user: u64) -> Key {
        match user {
            0 => self.key("User", IdType::Name("0".to_owned())),
            user => self.key("User", IdType::Id(user as i64)),
        }
    }

    fn session(&self, session: u64) -> Key {
        let hex = key(session).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.key("KeepSession_User", IdType::Name(hex))
    }

    async fn lookup(&self, keys: Vec<Key>, transaction: Option<Vec<u8>>) -> Vec<Entity> {
        let reading = |transaction| ReadOptions {
            consistency_type: Some(ConsistencyType::Transaction(transaction)),
        };
        let request = LookupRequest {
            project_id: self.project.clone(),
            keys,
            read_options: transaction.map(reading),
            ..LookupRequest::default()
        };
        let answer = self.client.clone().lookup(request).await.expect("an answer").into_inner();
        answer.found.into_iter().filter_map(|found| found.entity).collect()
    }

    async fn begin(&self) -> Vec<u8> {
        let project_id = self.project.clone();
        let request = BeginTransactionRequest { project_id, ..BeginTransactionRequest::default() };
        let answer = self.client.clone().begin_transaction(request).await;
        answer.expect("a transaction").into_inner().transaction
    }

    async fn commit(&self, operations: Vec<Operation>, transaction: Vec<u8>) {
        let of = |operation| Mutation { operation: Some(operation), ..Mutation::default() };
        let request = CommitRequest {
            project_id: self.project.clone(),
            mode: Mode::Transactional.into(),
            mutations: operations.into_iter().map(of).collect(),
            transaction_selector: Some(TransactionSelector::Transaction(transaction)),
            ..CommitRequest::default()
        };
        self.client.clone().commit(request).await.expect("a commit");
    }
}

impl Subject for Bare {
    async fn by_id(&self, user: u64) {
        let found = self.lookup(vec![self.user(user)], None).await;
        assert_eq!(black_box(found).len(), 1);
    }

    async fn login(&self, session: u64) {
        let keys = vec![self.session(session), self.user(session % USERS)];
        assert_eq!(black_box(self.lookup(keys, None).await).len(), 2);
    }

    async fn create(&self, session: u64) {
        let (record, user) = (record(session, new_user(session)), new_user(session));
        let logins = self.key("KeepLogins_User", IdType::Name(format!("={user}")));
        let transaction = self.begin().await;
        let keys = vec![self.session(session), logins.clone()];
        black_box(self.lookup(keys, Some(transaction.clone())).await);
        let value = |value| Value { value_type: Some(value), ..Value::default() };
        let properties = HashMap::from([
            ("user".to_owned(), value(ValueType::StringValue(user.to_string()))),
            ("open".to_owned(), value(ValueType::BooleanValue(true))),
            ("record".to_owned(), value(ValueType::StringValue(format!("{record:?}")))),
        ]);
        let session = Entity { key: Some(self.session(session)), properties };
        let logins = Entity { key: Some(logins), properties: HashMap::new() };
        let operations = vec![Operation::Insert(session), Operation::Upsert(logins)];
        self.commit(operations, transaction).await;
    }

    async fn rotate(&self, session: u64, _from: u32) {
        let transaction = self.begin().await;
        let found = self.lookup(vec![self.session(session)], Some(transaction.clone())).await;
        self.commit(found.into_iter().map(Operation::Upsert).collect(), transaction).await;
    }

    async fn list(&self, user: u64) {
        let filters = vec![
            equals("user", ValueType::StringValue(user.to_string())),
            equals("open", ValueType::BooleanValue(true)),
        ];
        let both = CompositeFilter { op: composite_filter::Operator::And.into(), filters };
        let query = Query {
            kind: vec![KindExpression { name: "KeepSession_User".to_owned() }],
            filter: Some(Filter { filter_type: Some(FilterType::CompositeFilter(both)) }),
            ..Query::default()
        };
        let request = RunQueryRequest {
            project_id: self.project.clone(),
            partition_id: Some(self.partition()),
            query_type: Some(QueryType::Query(query)),
            ..RunQueryRequest::default()
        };
        let answer = self.client.clone().run_query(request).await.expect("a list").into_inner();
        let batch = answer.batch.expect("a list");
        assert_eq!(black_box(batch).entity_results.len() as u64, SESSIONS);
    }
}

/// Measures Datastore, on Google's emulator.
pub(super) fn database(criterion: &mut Criterion, runtime: &Runtime, url: &str) {
    let project = format!("bench-{}", std::process::id());
    let (store, channel) = runtime.block_on(async {
        let builder = DatastoreStore::builder(format!("datastore://{project}"));
        let store = builder.with_emulator(url).build().await.expect("a store");
        let endpoint = Channel::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
        (fill(store).await, endpoint.connect().await.expect("a connection"))
    });
    let bare = Bare { client: DatastoreClient::new(channel), project };
    let (keep, bare) = (Arc::new(Keep(store)), Arc::new(bare));
    // The bare driver's rotations leave the records as they are.
    let (kept, bared) = (generations(), generations());
    for tasks in TASKS {
        let round = (tasks, SHORT_ROUND);
        runtime.block_on(compare("datastore", round, (&keep, kept), (&bare, bared)));
    }
    if std::env::var_os("KEEP_RATIOS").is_none() {
        measure(criterion, runtime, ["datastore", "bare driver"], &bare, bared);
        measure(criterion, runtime, ["datastore", "keep"], &keep, kept);
    }
}
