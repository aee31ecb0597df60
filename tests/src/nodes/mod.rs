//! A site on several nodes that share one store.
//!
//! Each node is a process of its own, so a test can kill it, freeze it, and set its clock. Only
//! with the store in memory are the nodes in the process of the test, because nothing else can
//! share that store.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `site.rs` | the site that a node serves, and its settings |
//! | `node.rs` | starting, killing and freezing nodes; their clocks |
//! | `proxy.rs` | a proxy that delays, cuts and drops a connection |
//! | `oracle.rs` | a browser that knows what each response must be |
//! | `dump.rs` | searching the files of a store |

mod dump;
mod node;
mod oracle;
mod proxy;
mod site;

pub use dump::Guesses;
pub use node::{Node, Nodes};
pub use oracle::{Known, Oracle};
pub use proxy::{LinkTrouble, Proxy};
pub use site::{NodeSettings, PASSWORD, address_of_client, node_site, serve_node, user_names};
