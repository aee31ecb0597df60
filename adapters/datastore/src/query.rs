//! Builds queries.

use gcloud_sdk::google::datastore::v1::filter::FilterType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{
    CompositeFilter, Filter, Key, KindExpression, Projection, PropertyFilter, PropertyOrder,
    PropertyReference, Query, Value, composite_filter, property_filter, property_order,
};

pub(crate) use property_filter::Operator;

/// A query refers to an entity's key by this property name.
const KEY: &str = "__key__";

/// Returns a query for the entities of a kind that match all of these filters.
///
/// The query needs no composite index if each filter is an equality or a `HasAncestor`, or if all
/// filters compare the same property.
pub(crate) fn query_of_kind(kind: &str, filters: Vec<Filter>) -> Query {
    let composite = CompositeFilter { op: composite_filter::Operator::And.into(), filters };
    let filter = match composite.filters.len() {
        0 => None,
        1 => composite.filters.into_iter().next(),
        _ => Some(Filter { filter_type: Some(FilterType::CompositeFilter(composite)) }),
    };
    let kind = vec![KindExpression { name: kind.to_owned() }];
    Query { kind, filter, ..Query::default() }
}

/// Returns a filter for the entities whose property has this value.
pub(crate) fn property_is(property: &str, value: ValueType) -> Filter {
    compare(property, Operator::Equal, value)
}

/// Returns a filter for the entities whose key has this ancestor, at any depth.
pub(crate) fn has_ancestor(ancestor: Key) -> Filter {
    compare(KEY, Operator::HasAncestor, ValueType::KeyValue(ancestor))
}

/// Returns a filter for the entities whose property compares to this value as `op` says.
pub(crate) fn compare(property: &str, op: Operator, value: ValueType) -> Filter {
    let filter = PropertyFilter {
        property: Some(reference(property)),
        op: op.into(),
        value: Some(Value { value_type: Some(value), ..Value::default() }),
    };
    Filter { filter_type: Some(FilterType::PropertyFilter(filter)) }
}

/// Returns the query with its results in the order of their keys.
pub(crate) fn ordered_by_key(query: Query) -> Query {
    let order = PropertyOrder { property: Some(reference(KEY)), direction: 0 };
    Query { order: vec![order], ..query }
}

/// Returns the query with its results in descending order of this property.
pub(crate) fn ordered_by_highest(query: Query, property: &str) -> Query {
    let direction = property_order::Direction::Descending.into();
    let order = PropertyOrder { property: Some(reference(property)), direction };
    Query { order: vec![order], ..query }
}

/// Returns the query as one that returns only keys.
pub(crate) fn keys_only(query: Query) -> Query {
    Query { projection: vec![Projection { property: Some(reference(KEY)) }], ..query }
}

/// Returns the query as one that returns at most `limit` entities.
pub(crate) fn with_limit(query: Query, limit: usize) -> Query {
    Query { limit: Some(i32::try_from(limit).unwrap_or(i32::MAX)), ..query }
}

/// Refers to the property with this name.
fn reference(name: &str) -> PropertyReference {
    PropertyReference { name: name.to_owned() }
}
