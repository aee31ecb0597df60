//! Logins that only the cookies hold.
//!
//! | look for | in |
//! | --- | --- |
//! | the decisions | `rules` |
//! | resolving the cookies of a request | `resolve` |
//! | logging in, confirming | `change` |
//! | issuing the cookies, and their bytes | `issue`; `session_cookie`, `remember_cookie` |

pub(in crate::login) mod change;
mod issue;
pub(crate) mod remember_cookie;
pub(in crate::login) mod resolve;
pub(crate) mod rules;
pub(crate) mod session_cookie;
