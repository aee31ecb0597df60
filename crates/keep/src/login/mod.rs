//! The login of one request: what is kept of the request, who is logged in, and what the handler
//! changes.
//!
//! | look for | in |
//! | --- | --- |
//! | the handle that handlers use | `handle` |
//! | what is kept of a request | `snapshot` |
//! | resolving cookies to a user | `stateless`, `server_side`; the decisions are in `crate::rules` |
//! | what both have in common | `resolve` |
//! | logging in, logging out, confirming | `change` |
//! | how that is done with cookies alone, and with server-side sessions | `stateless`, `server_side::change` |
//! | listing and ending a user's sessions | `devices` |
//! | issuing a cookie | `issue` |
//! | `next` and flash messages | `flash` |
//! | the response's headers | `write` |

mod change;
mod devices;
mod flash;
mod handle;
mod issue;
mod resolve;
mod server_side;
mod snapshot;
mod state;
mod stateless;
mod write;

pub use change::{ConfirmBuilder, LoginBuilder};
pub use handle::AuthSession;
pub(crate) use handle::is_recent;
pub(crate) use snapshot::{Snapshot, original_uri};
pub(crate) use state::Identity;
