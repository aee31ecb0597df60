//! Starts servers for the tests: databases and proxies, each on a free loopback port and with a
//! directory of its own. They end at the latest when the process that started them ends.
//!
//! | question | file |
//! | --- | --- |
//! | which kinds there are | `kind.rs` |
//! | what a server runs with: its directory and its port | `instance.rs` |
//! | what a kind needs: its program, its settings, its check | `sql.rs`, `mysql.rs`, `redis.rs`, `datastore.rs`, `nginx.rs`; which of them: `dispatch.rs` |
//! | how a server runs, stops and crashes | `server.rs`; its processes: `guardian.rs`, `process.rs` |
//! | how a server is started for the first time | `start.rs`; sentinels and clusters: `redis_groups.rs` |

mod datastore;
mod dispatch;
mod guardian;
mod instance;
mod kind;
mod mysql;
mod nginx;
mod process;
mod redis;
mod redis_groups;
mod server;
mod sql;
mod start;
mod wait;

pub use self::kind::Kind;
pub use self::redis::call as call_redis;
pub use self::server::Server;
