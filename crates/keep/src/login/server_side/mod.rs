//! Logins with a server-side session, which is a record in a store.
//!
//! | look for | in |
//! | --- | --- |
//! | the decisions: generations, replays, lost responses | `rules` |
//! | resolving the cookies of a request | `resolve` |
//! | logging in, confirming | `change` |
//! | listing and ending a user's sessions | `list` |
//! | logins that a bearer token carries | `bearer` |
//! | issuing the cookies, and their bytes | `issue`; `cookies` |

pub(crate) mod bearer;
pub(in crate::login) mod change;
pub(crate) mod cookies;
mod issue;
pub(in crate::login) mod list;
pub(in crate::login) mod resolve;
pub(crate) mod rules;
