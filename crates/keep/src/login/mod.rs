//! One request's login: what was seen of the request, who it is, and what the handler changes.
//!
//! | look for | in |
//! | --- | --- |
//! | the handle that handlers use | `handle` |
//! | what is kept of a request | `snapshot` |
//! | the walk from cookies to a user | `stateless`, `tracked`; its decisions are in `crate::rules` |
//! | what both walks have in common | `resolve` |
//! | logging in, out, confirming | `change` |
//! | how that is done with cookies alone, and with records | `stateless`, `tracked::change` |
//! | the user's sessions, listed and ended | `devices` |
//! | making a cookie out | `issue` |
//! | `next` and notices | `visit` |
//! | the response's headers | `write` |

mod change;
mod devices;
mod handle;
mod issue;
mod resolve;
mod snapshot;
mod state;
mod stateless;
mod tracked;
mod visit;
mod write;

pub use change::LogIn;
pub use handle::Login;
pub(crate) use handle::is_recent;
pub(crate) use snapshot::{Snapshot, original_uri};
pub(crate) use state::Identity;
