//! The login of one request: what the layer keeps of the request, which user is logged in, and what
//! the handler changes.
//!
//! | look for | in |
//! | --- | --- |
//! | the handle that handlers use | `handle` |
//! | what the layer keeps of a request | `snapshot` |
//! | the state of a login, and the changes of its cookies | `state` |
//! | resolving cookies to a user | `stateless` without server-side sessions, `server_side` with them, `resolve` for both; the decisions are in `crate::rules` |
//! | logging in, logging out, confirming | `change`; without server-side sessions `stateless`, with them `server_side::change` |
//! | listing and ending a user's sessions | `devices` |
//! | issuing a cookie | `issue`, `server_side::cookies` |
//! | `next` and flash messages | `flash` |
//! | the response's headers | `write` |

mod change;
mod devices;
mod flash;
pub(crate) mod handle;
mod issue;
mod resolve;
mod server_side;
pub(crate) mod snapshot;
pub(crate) mod state;
mod stateless;
mod write;

pub use change::{ConfirmBuilder, LoginBuilder};
pub use handle::AuthSession;
