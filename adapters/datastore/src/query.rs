//! Builds queries.

use gcloud_sdk::google::datastore::v1::filter::FilterType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{
    CompositeFilter, Filter, Key, KindExpression, Projection, PropertyFilter, PropertyOrder,
    PropertyReference, Query, Value, composite_filter, property_filter, property_order,
};

pub(crate) use property_filter::Operator;

/// The name of an entity's key in a query.
const KEY: &str = "__key__";

/// Returns a query for all entities of a kind that match all of these filters. It needs no
/// composite index if all of them are equalities, or if there is only one.
pub(crate) fn of_kind(kind: &str, filters: Vec<Filter>) -> Query {
    let composite = CompositeFilter { op: composite_filter::Operator::And.into(), filters };
    let filter = match composite.filters.len() {
        0 => None,
        1 => composite.filters.into_iter().next(),
        _ => Some(Filter { filter_type: Some(FilterType::CompositeFilter(composite)) }),
    };
    let kind = vec![KindExpression { name: kind.to_owned() }];
    Query { kind, filter, ..Query::default() }
}

/// Requires a property to have this value.
pub(crate) fn where_is(property: &str, value: ValueType) -> Filter {
    compare(property, Operator::Equal, value)
}

/// Requires the entity to be below this one.
pub(crate) fn below(ancestor: Key) -> Filter {
    compare(KEY, Operator::HasAncestor, ValueType::KeyValue(ancestor))
}

pub(crate) fn compare(property: &str, op: Operator, value: ValueType) -> Filter {
    let filter = PropertyFilter {
        property: Some(reference(property)),
        op: op.into(),
        value: Some(Value { value_type: Some(value), ..Value::default() }),
    };
    Filter { filter_type: Some(FilterType::PropertyFilter(filter)) }
}

/// Orders a query by key.
pub(crate) fn by_key(query: Query) -> Query {
    let order = PropertyOrder { property: Some(reference(KEY)), direction: 0 };
    Query { order: vec![order], ..query }
}

/// Orders a query by this property, the highest value first.
pub(crate) fn highest_first(query: Query, property: &str) -> Query {
    let direction = property_order::Direction::Descending.into();
    let order = PropertyOrder { property: Some(reference(property)), direction };
    Query { order: vec![order], ..query }
}

/// Makes a query return only keys.
pub(crate) fn keys_only(query: Query) -> Query {
    Query { projection: vec![Projection { property: Some(reference(KEY)) }], ..query }
}

pub(crate) fn limited(query: Query, limit: usize) -> Query {
    Query { limit: Some(i32::try_from(limit).unwrap_or(i32::MAX)), ..query }
}

fn reference(name: &str) -> PropertyReference {
    PropertyReference { name: name.to_owned() }
}
