//! Counts events with the crate [`metrics`](https://docs.rs/metrics), for dashboards and alarms.
//!
//! ```
//! use tower_keep::{Account, Keys, LoginLayer, error::BuildError};
//! use tower_keep_memory::MemoryStore;
//!
//! fn auth_layer(
//!     store: MemoryStore<Account>,
//!     keys: Keys,
//! ) -> Result<LoginLayer<Account>, BuildError> {
//!     LoginLayer::builder(store, keys).with_listener(tower_keep::metrics::count_events).build()
//! }
//! ```
//!
//! An exporter of your choice, such as `metrics-exporter-prometheus`, publishes the counters. Worth
//! an alarm are many `login_failed` and `throttled`, and any `session_ended`, `wrong_verifier` or
//! `store_rolled_back`.

use crate::event::Event;

/// The name of the counter.
pub const EVENTS: &str = "tower_keep_events_total";

/// Counts an event in the counter [`EVENTS`]. Its label `event` is the
/// [name](Event::name) of the event. The event `throttled` has the label `limit`, too: the name of
/// the limit. No label tells the user or the client.
pub fn count_events<U>(event: &Event<U>) {
    let counter = match event {
        Event::Throttled { throttled, .. } => {
            ::metrics::counter!(EVENTS, "event" => event.name(), "limit" => throttled.limit)
        }
        _ => ::metrics::counter!(EVENTS, "event" => event.name()),
    };
    counter.increment(1);
}
