#![doc = include_str!("../README.md")]

mod address;
mod builder;
mod check;
mod cluster;
mod error;
mod format;
mod keys;
mod link;
mod logins;
mod record;
mod script;
mod servers;
mod sessions;
mod store;
mod users;

pub use builder::RedisStoreBuilder;
pub use format::{Json, UserFormat};
#[cfg(feature = "tls")]
pub use redis::{ClientTlsConfig, TlsCertificates};
pub use store::RedisStore;
