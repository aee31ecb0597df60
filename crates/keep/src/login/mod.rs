//! The login of one request: what the layer keeps of the request, which user is logged in, and what
//! the handler changes.
//!
//! | look for | in |
//! | --- | --- |
//! | the handle that handlers use | `handle` |
//! | what the layer keeps of a request | `snapshot` |
//! | the state of a login, and the changes of its cookies | `state` |
//! | resolving cookies to a user | `stateless` without server-side sessions, `server_side` with them, `resolve` for both |
//! | what the rules of both decide alike | `shared_rules`, `policy` |
//! | logging in | `log_in`; the login that is asked for: `requested` |
//! | logging out, confirming, keeping a login whose user has changed | `change` |
//! | listing and ending the user's sessions | `devices` |
//! | known devices of a user, which have their own limits on guessing | `known_device` |
//! | asking again whether the login is still valid | `recheck` |
//! | issuing a cookie | `issue`, and those of the two folders |
//! | `next` and flash messages | `flash` |
//! | the response's headers | `response_headers`; how late it may set cookies: `write_deadline` |

pub(crate) mod change;
mod devices;
mod flash;
pub(crate) mod handle;
mod issue;
mod known_device;
pub(crate) mod log_in;
pub(crate) mod policy;
mod recheck;
mod requested;
mod resolve;
mod response_headers;
#[cfg(test)]
mod rules_fixtures;
pub(crate) mod server_side;
pub(crate) mod shared_rules;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod stateless;
pub(crate) mod write_deadline;
