//! Queries, in words.

use gcloud_sdk::google::datastore::v1::filter::FilterType;
use gcloud_sdk::google::datastore::v1::value::ValueType;
use gcloud_sdk::google::datastore::v1::{
    CompositeFilter, Filter, Key, KindExpression, Projection, PropertyFilter, PropertyOrder,
    PropertyReference, Query, Value, composite_filter, property_filter, property_order,
};

pub(crate) use property_filter::Operator;

/// What stands for an entity's key in a query.
const KEY: &str = "__key__";

/// All entities of a kind for which all of these hold. No composite index has to be made for it as long as all
/// are equalities, or there is only one.
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

/// A property is so much.
pub(crate) fn where_is(property: &str, value: ValueType) -> Filter {
    compare(property, Operator::Equal, value)
}

/// The entity is below this one.
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

/// The same in the order of their keys.
pub(crate) fn by_key(query: Query) -> Query {
    let order = PropertyOrder { property: Some(reference(KEY)), direction: 0 };
    Query { order: vec![order], ..query }
}

/// The same, the highest of this property first.
pub(crate) fn highest_first(query: Query, property: &str) -> Query {
    let direction = property_order::Direction::Descending.into();
    let order = PropertyOrder { property: Some(reference(property)), direction };
    Query { order: vec![order], ..query }
}

/// Only their keys.
pub(crate) fn keys_only(query: Query) -> Query {
    Query { projection: vec![Projection { property: Some(reference(KEY)) }], ..query }
}

pub(crate) fn limited(query: Query, most: usize) -> Query {
    Query { limit: Some(i32::try_from(most).unwrap_or(i32::MAX)), ..query }
}

fn reference(name: &str) -> PropertyReference {
    PropertyReference { name: name.to_owned() }
}
