//! Whether a command reads or writes.

/// Whether a command reads or writes, and so which servers may run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The command reads. A replica may serve it, if reads from replicas are allowed.
    Read,
    /// The command reads, and only the master may serve it.
    ReadLatest,
    /// The command writes.
    Write,
}

impl Access {
    /// For a write that may be lost or repeated, because no caller depends on it. Like a read from
    /// the master, it does not wait for replicas, and is retried if the connection is lost.
    pub(crate) const UNCONFIRMED_WRITE: Self = Self::ReadLatest;
}
