//! The meaning of a database error.

use tower_keep_core::StoreErrorKind;

/// The meaning of a database error for the statement and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The transaction conflicted with another one and was rolled back. It can be run again.
    Contended,
    /// The connection can't be used any more. It is not known whether the statement was run.
    Lost,
    /// The connection can't be used any more, for example because the server has become a read-only
    /// replica. The statement was not run.
    NotRun,
    /// The connection prepared the statement before a migration changed the columns of a table. The
    /// statement was not run.
    Stale,
    /// Any other error. The store returns an error of this kind.
    Kind(StoreErrorKind),
}
