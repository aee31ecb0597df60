//! What tower-keep's SQL adapters have in common: rows, and what a database's error means.
//!
//! Applications use an adapter, such as `tower-keep-sqlite`. This crate names no database.
//!
//! | look for | in |
//! | --- | --- |
//! | a session record as a row, and back | [`SessionRow`] |
//! | the ready user type as a row | [`AccountRow`] |
//! | a database's error as a store's | [`store_error`] |

mod error;
mod row;

pub use error::{corrupt, store_error};
pub use row::{AccountRow, LoginRow, SESSION_COLUMNS, SessionRow, seconds};
