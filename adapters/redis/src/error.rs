//! Maps errors of Redis to errors of the store.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const STORE_NAME: &str = "redis";

/// Why a command failed, and so whether it can be retried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// The command was not sent, because there was no connection.
    NotSent,
    /// The connection was lost. It is not known whether the command was executed.
    Lost,
    /// No reply came in time. It is not known whether the command was executed.
    TimedOut,
    /// The slot has moved to this node.
    Moved(String, u16),
    /// The slot is moving to this node, and the key is already there.
    Ask(String, u16),
    /// The slot is moving from one node to another. Some of the command's keys are on each of them.
    TryAgain,
    /// The server does not know the script, for example after a restart.
    NoScript,
    /// The command writes, but the server is a replica now.
    ReadOnly,
    /// An error of this kind that has no variant of its own. The command was not executed.
    Kind(StoreErrorKind),
}

/// An error of this store.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { cause: Cause::Kind(kind), message: message.into() }
    }

    /// Creates the error for a stored value that can't be read.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, message)
    }

    /// Creates the error for a value that a later release of this crate has written. `value` says
    /// what kind of value it is.
    pub(crate) fn of_later_version(value: &str, version: &str, known: &str) -> Self {
        Self::corrupt(format!(
            "{value} has version {version} of its format, but this release reads version {known}: \
             update this application server to the release that wrote the value"
        ))
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, message)
    }

    /// Creates the error for an id, a login name or a session's key that is taken.
    pub(crate) fn taken(what: &str) -> Self {
        Self::new(StoreErrorKind::Conflict, format!("the {what} is taken"))
    }

    /// Creates the error for a call that was never able to write before the time-out, because each
    /// time another call had changed the same data in the meantime.
    pub(crate) fn contended() -> Self {
        Self::new(
            StoreErrorKind::Unavailable,
            "other calls changed the same data again and again until the time-out: try again later",
        )
    }

    pub(crate) fn not_sent(message: impl Into<String>) -> Self {
        Self { cause: Cause::NotSent, message: message.into() }
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self { cause: Cause::TimedOut, message: message.into() }
    }

    /// Converts an error that occurred while connecting, so no command was sent.
    pub(crate) fn while_connecting(server: &str, error: &RedisError) -> Self {
        let message = format!("no connection to {server}: {}", message_of(error));
        match error.kind() {
            ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::RESP3NotSupported
            | ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
                Self::unsupported(message)
            }
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM")) => {
                Self::unsupported(message)
            }
            _ => Self::not_sent(message),
        }
    }

    /// Converts an error reply, or the driver's error if the connection was lost before a reply
    /// came.
    pub(crate) fn from_redis(error: &RedisError) -> Self {
        let node = || {
            let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((host.to_owned(), port.parse().ok()?))
        };
        let cause = match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => match node() {
                Some((host, port)) => Cause::Moved(host, port),
                None => Cause::Kind(StoreErrorKind::Unavailable),
            },
            ErrorKind::Server(ServerErrorKind::Ask) => match node() {
                Some((host, port)) => Cause::Ask(host, port),
                None => Cause::Kind(StoreErrorKind::Unavailable),
            },
            ErrorKind::Server(ServerErrorKind::TryAgain) => Cause::TryAgain,
            ErrorKind::Server(ServerErrorKind::NoScript) => Cause::NoScript,
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Cause::ReadOnly,
            ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot) => {
                Cause::Kind(StoreErrorKind::Unsupported)
            }
            // The key holds a value of another type, such as a list instead of a string.
            ErrorKind::Extension if error.code() == Some("WRONGTYPE") => {
                Cause::Kind(StoreErrorKind::Corrupt)
            }
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("WRONGTYPE")) =>
            {
                Cause::Kind(StoreErrorKind::Corrupt)
            }
            ErrorKind::Extension if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => {
                Cause::Kind(StoreErrorKind::Unsupported)
            }
            // If a command in a script fails, Redis 6 returns `ERR` and a text that contains the
            // command's own error.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("READONLY")) =>
            {
                Cause::ReadOnly
            }
            // The script reads a key that is already on another node.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("non local key")) =>
            {
                Cause::TryAgain
            }
            // LOADING, CLUSTERDOWN, MASTERDOWN, OOM, MISCONF, NOREPLICAS, BUSY and similar errors.
            ErrorKind::Server(_) | ErrorKind::Extension => Cause::Kind(StoreErrorKind::Unavailable),
            _ => Cause::Lost,
        };
        Self { cause, message: message_of(error) }
    }

    /// Creates the error for a reply that has another type than the replies to this command.
    pub(crate) fn unexpected_reply() -> Self {
        Self::new(StoreErrorKind::Unavailable, "unexpected reply from the server")
    }

    /// Converts an error that occurred after the call had written something. It is not known how
    /// much of the call was written.
    pub(crate) fn after_writing(self) -> Self {
        Self {
            cause: Cause::TimedOut,
            message: format!("the call has written, but a later step failed: {}", self.message),
        }
    }

    /// Returns whether the error's text contains this text.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.message.contains(text)
    }

    pub(crate) fn cluster_url_required() -> Self {
        let message = "this server belongs to a cluster: use a redis+cluster:// URL";
        Self::unsupported(message)
    }

    /// Converts an error of a command that only reads, so it does not matter whether the command
    /// was executed.
    pub(crate) fn after_reading(self) -> Self {
        let cause = if self.cause == Cause::Lost { Cause::NotSent } else { self.cause };
        Self { cause, ..self }
    }

    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self.cause {
            Cause::Kind(kind) => kind,
            Cause::Lost | Cause::TimedOut => StoreErrorKind::Timeout,
            _ => StoreErrorKind::Unavailable,
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), STORE_NAME).with_message(error.message)
    }
}

/// Returns the text of an error, without quotes of the command that was sent. The detail of a
/// general error (`ERR`) may quote the command, so only its beginning is returned.
fn message_of(error: &RedisError) -> String {
    let quoting = ErrorKind::Server(ServerErrorKind::ResponseError);
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) if error.kind() == quoting => {
            let plain = detail.split([',', '\'', '"', '`']).next().unwrap_or_default();
            format!("{code} {}", plain.trim_end())
        }
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    /// Converts an error reply, as the server sends it.
    fn error_from_reply(line: &str) -> Error {
        let value: Value = redis::parse_redis_value(line.as_bytes()).unwrap();
        Error::from_redis(&value.extract_error().unwrap_err())
    }

    #[test]
    fn each_error_reply_has_a_kind_and_a_redirection_names_the_node() {
        use StoreErrorKind::{Corrupt, Unavailable, Unsupported};
        for (line, kind) in [
            ("-LOADING Redis is loading the dataset in memory\r\n", Unavailable),
            ("-CLUSTERDOWN The cluster is down\r\n", Unavailable),
            ("-MASTERDOWN Link with MASTER is down\r\n", Unavailable),
            ("-READONLY You can't write against a read only replica.\r\n", Unavailable),
            ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", Unavailable),
            ("-MISCONF Errors writing to the AOF file\r\n", Unavailable),
            ("-NOREPLICAS Not enough good replicas to write.\r\n", Unavailable),
            ("-BUSY Redis is busy running a script.\r\n", Unavailable),
            ("-ERR max number of clients reached\r\n", Unavailable),
            ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Unavailable),
            ("-ERR Error running script: @user_script:3: -READONLY You can't\r\n", Unavailable),
            ("-ERR Script attempted to access a non local key\r\n", Unavailable),
            ("-NOPERM this user has no permissions\r\n", Unsupported),
            ("-CROSSSLOT Keys in request don't hash to the same slot\r\n", Unsupported),
            ("-WRONGTYPE Operation against a key\r\n", Corrupt),
            ("-ERR Error running script: @user_script:3: WRONGTYPE Operation\r\n", Corrupt),
        ] {
            assert_eq!(error_from_reply(line).kind(), kind, "{line}");
        }
        assert_eq!(
            error_from_reply("-MOVED 7 [::1]:7000\r\n").cause,
            Cause::Moved("::1".into(), 7000)
        );
        assert_eq!(
            error_from_reply("-MOVED 7 ::1:7000\r\n").cause,
            Cause::Moved("::1".into(), 7000)
        );
        assert_eq!(error_from_reply("-MOVED 7 :7000\r\n").cause, Cause::Moved("".into(), 7000));
        assert_eq!(
            error_from_reply("-ASK 7 node-2:7000\r\n").cause,
            Cause::Ask("node-2".into(), 7000)
        );
    }

    #[test]
    fn an_error_does_not_quote_the_command_that_was_sent() {
        let line = "-ERR unknown command 'FOO', with args beginning with: 'secret' \r\n";
        assert_eq!(error_from_reply(line).message, "ERR unknown command");
        let line = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        assert!(
            error_from_reply(line).message.contains("'maxmemory'"),
            "{:?}",
            error_from_reply(line)
        );
    }
}
