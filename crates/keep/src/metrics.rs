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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ::metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        with_local_recorder,
    };
    use tower_keep_core::Account;

    use super::*;
    use crate::event::LoginAttempt;
    use crate::throttle::Throttled;

    /// Records the counters that are asked for, with their labels.
    #[derive(Default)]
    struct Keys(Mutex<Vec<String>>);

    impl Recorder for Keys {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
            let labels = labels.collect::<Vec<_>>().join(",");
            self.0.lock().unwrap().push(format!("{}{{{labels}}}", key.name()));
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn no_label_tells_who_it_was() {
        let user = Arc::new(Account::new(1, "ada", ""));
        let attempt = || LoginAttempt {
            user: Some(Arc::clone(&user)),
            client_addr: "203.0.113.1".parse().ok(),
            name_digest: Some("00ff".to_owned()),
        };
        let keys = Keys::default();
        with_local_recorder(&keys, || {
            count_events(&Event::LoggedIn { user: Arc::clone(&user) });
            count_events(&Event::LoginFailed { attempt: attempt() });
            let throttled = Throttled::new("sign-in by name", 30);
            count_events(&Event::Throttled { attempt: attempt(), throttled });
        });
        assert_eq!(
            *keys.0.lock().unwrap(),
            [
                "tower_keep_events_total{event=logged_in}",
                "tower_keep_events_total{event=login_failed}",
                "tower_keep_events_total{event=throttled,limit=sign-in by name}",
            ]
        );
    }
}
