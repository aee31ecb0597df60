//! Tests across crates, over real HTTP: a site with every kind of route, and browsers for it.

mod chromium;
mod http_client;
pub mod load;
pub mod nodes;
mod process;
mod serve;
mod site;
mod store;

pub use chromium::{drive_chromium, npm_packages};
pub use http_client::{Http, send_raw, send_raw_from};
pub use process::Process;
pub use serve::{Serving, serve};
pub use site::{Builder, Events, Gate, KEY, Site, account, has_server_sessions};
pub use store::{
    AnyStore, StorePlace, WatchedStore, WatchedStoreExt, drops_expired_sessions, new_store,
};

/// A browser that talks to a server of these tests.
pub type Browser = tower_keep_testkit::client::Client<Http>;
