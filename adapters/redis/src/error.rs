//! What an error of Redis means to a login.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tower_keep_core::{StoreError, StoreErrorKind};

/// The name of this store in errors.
pub(crate) const NAME: &str = "redis";

/// What happened to a command, and so what can be done about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// It was not sent: nobody took it.
    NotSent,
    /// The connection was lost; whether it was run is not known.
    Lost,
    /// No answer came in time; whether it was run is not known.
    TimedOut,
    /// The slot has moved to this node.
    Moved(String, u16),
    /// The key is at this node already, while its slot is on the way there.
    Ask(String, u16),
    /// Some keys of the slot are here, others at its next node.
    TryAgain,
    /// The script is not there, as after a restart.
    NoScript,
    /// It writes, and the server is a replica by now.
    ReadOnly,
    /// Something else, of this kind. It was not run.
    Kind(StoreErrorKind),
}

/// An error of Redis, and what it means.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    words: String,
}

impl Fault {
    pub(crate) fn new(kind: StoreErrorKind, words: impl Into<String>) -> Self {
        Self { cause: Cause::Kind(kind), words: words.into() }
    }

    /// What is stored can't be read.
    pub(crate) fn corrupt(words: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, words)
    }

    pub(crate) fn unsupported(words: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, words)
    }

    pub(crate) fn not_sent(words: impl Into<String>) -> Self {
        Self { cause: Cause::NotSent, words: words.into() }
    }

    pub(crate) fn timed_out(words: impl Into<String>) -> Self {
        Self { cause: Cause::TimedOut, words: words.into() }
    }

    /// An error while a connection was made: nothing was sent on it.
    pub(crate) fn of_connecting(server: &str, error: &RedisError) -> Self {
        let words = format!("no connection to {server}: {}", said(error));
        match error.kind() {
            ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::RESP3NotSupported
            | ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
                Self::unsupported(words)
            }
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM")) => {
                Self::unsupported(words)
            }
            _ => Self::not_sent(words),
        }
    }

    /// An answer that is an error, or none because the connection was lost.
    pub(crate) fn of(error: &RedisError) -> Self {
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
            // Another type of value than this store keeps there.
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
            // Redis 6 puts what went wrong within a script behind words of its own.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("READONLY")) =>
            {
                Cause::ReadOnly
            }
            // A script that looks for what is at another node already.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("non local key")) =>
            {
                Cause::TryAgain
            }
            // LOADING, CLUSTERDOWN, MASTERDOWN, OOM, MISCONF, NOREPLICAS, BUSY and the like.
            ErrorKind::Server(_) | ErrorKind::Extension => Cause::Kind(StoreErrorKind::Unavailable),
            _ => Cause::Lost,
        };
        Self { cause, words: said(error) }
    }

    /// An answer of another shape than the command has.
    pub(crate) fn odd_answer() -> Self {
        Self::new(StoreErrorKind::Unavailable, "the server's answer is none to what was asked")
    }

    /// The same, after something was written: how far, is not known to who asked.
    pub(crate) fn after_writing(self) -> Self {
        Self { cause: Cause::TimedOut, words: format!("written, and then: {}", self.words) }
    }

    /// Whether the error's words have these in them.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.words.contains(words)
    }

    pub(crate) fn is_of_a_cluster() -> Self {
        let words = "this server is one of a cluster: let the URL begin with redis+cluster://";
        Self::unsupported(words)
    }

    /// The same, of a command that only reads: if it was run or not is no matter.
    pub(crate) fn of_reading(self) -> Self {
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

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::new(fault.kind(), NAME).with_message(fault.words)
    }
}

/// What is told of an error. The words of a general one can quote what was sent, so of those there is
/// only the beginning; the others say what the server lacks.
fn said(error: &RedisError) -> String {
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

    fn of(line: &str) -> Fault {
        let value: Value = redis::parse_redis_value(line.as_bytes()).unwrap();
        Fault::of(&value.extract_error().unwrap_err())
    }

    #[test]
    fn each_error_has_its_kind() {
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
            assert_eq!(of(line).kind(), kind, "{line}");
        }
        assert_eq!(of("-MOVED 7 [::1]:7000\r\n").cause, Cause::Moved("::1".into(), 7000));
        assert_eq!(of("-MOVED 7 ::1:7000\r\n").cause, Cause::Moved("::1".into(), 7000));
        assert_eq!(of("-MOVED 7 :7000\r\n").cause, Cause::Moved("".into(), 7000));
        assert_eq!(of("-ASK 7 node-2:7000\r\n").cause, Cause::Ask("node-2".into(), 7000));
    }

    #[test]
    fn what_was_sent_is_not_quoted() {
        let line = "-ERR unknown command 'FOO', with args beginning with: 'secret' \r\n";
        assert_eq!(of(line).words, "ERR unknown command");
        let line = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        assert!(of(line).words.contains("'maxmemory'"), "{:?}", of(line));
    }
}
