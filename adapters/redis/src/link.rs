//! One connection to one server, which all calls share, and which is reopened when it is lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, PushInfo, PushKind,
    RedisResult, ServerErrorKind, Value,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tower_keep_core::StoreErrorKind;

use crate::error::{Cause, Error};
use crate::servers::Settings;

/// How long an attempt to connect may take before calls stop waiting for it.
const SLOW: Duration = Duration::from_secs(1);

/// How long to wait after a failed attempt to connect: it doubles from the first to the longest
/// pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What a connection connects to.
pub(crate) enum Target {
    /// This server.
    Server(Client),
    /// The server that one of these sentinels names.
    Sentinels(Vec<tokio::sync::Mutex<SentinelClient>>, String),
}

impl Target {
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => {
                client.get_multiplexed_async_connection_with_config(config).await
            }
            // All sentinels are asked concurrently, so that one that hangs delays nothing.
            Self::Sentinels(sentinels, _) => {
                let asked = sentinels.iter().map(|sentinel| {
                    Box::pin(async {
                        sentinel.lock().await.get_async_connection_with_config(config).await
                    })
                });
                select_ok(asked).await.map(|(connection, _)| connection)
            }
        }
    }
}

/// The server's address, without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => client.get_connection_info().addr().fmt(f),
            Self::Sentinels(_, name) => write!(f, "the server that the sentinels call {name:?}"),
        }
    }
}

/// A connection to a server, which is reopened when it is lost.
///
/// Calls share the connection, and each waits for its own reply. The number of waiting calls is
/// limited.
pub(crate) struct Link {
    target: Target,
    kind: Kind,
    waiting: Semaphore,
    /// How long an attempt to connect may take.
    timeout: Duration,
    state: Mutex<State>,
}

/// The role of the server that a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Master,
    Replica,
    /// A replica of a cluster, which serves reads only after the command `READONLY`.
    ClusterReplica,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// The attempt to connect that is in progress.
    attempt: Option<Attempt>,
    /// The last attempt to connect, if it failed.
    failure: Option<Failure>,
}

struct Attempt {
    begun: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

type Outcome = Result<Connection, Error>;

#[derive(Clone)]
struct Connection {
    connection: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
}

struct Failure {
    error: Error,
    pause: Duration,
    until: Instant,
}

impl Link {
    pub(crate) fn new(target: Target, kind: Kind, settings: &Settings) -> Self {
        Self {
            target,
            kind,
            waiting: Semaphore::new(settings.max_waiting),
            timeout: settings.timeout.max(SLOW),
            state: Mutex::default(),
        }
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.kind != Kind::Master
    }

    /// Returns the server's host, if it is known.
    pub(crate) fn host(&self) -> Option<String> {
        match &self.target {
            Target::Server(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                    Some(host.clone())
                }
                _ => None,
            },
            Target::Sentinels(..) => None,
        }
    }

    /// Sends a command and returns its reply.
    pub(crate) async fn send(
        self: &Arc<Self>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Error> {
        self.with_connection(deadline, async |connection| {
            connection.send_packed_command(command).await.and_then(Value::extract_error)
        })
        .await
    }

    /// Sends several commands together and returns all replies, which may be errors.
    pub(crate) async fn send_all(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        let count = commands.len();
        self.with_connection(deadline, async |connection| {
            let replies = connection.send_packed_commands(commands, 0, count).await?;
            // If one reply is this error, none of the commands has written.
            let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
            let errors = replies.iter().filter_map(|reply| reply.clone().extract_error().err());
            match errors.into_iter().find(|error| error.kind() == read_only) {
                Some(error) => Err(error),
                None => Ok(replies),
            }
        })
        .await
    }

    async fn with_connection<T>(
        self: &Arc<Self>,
        deadline: Instant,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let Ok(_permit) = self.waiting.try_acquire() else {
            let message = format!("as many calls as are allowed wait for {} already", self.target);
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        };
        let mut connection = match self.last_outcome() {
            Some(outcome) => outcome?,
            None => Box::pin(self.wait_for_connection(deadline)).await?,
        };
        match timeout_at(deadline, send(&mut connection.connection)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let error = Error::from_redis(&error);
                // The sentinels may name another server by now.
                if matches!(error.cause, Cause::Lost | Cause::ReadOnly) {
                    self.forget(&connection);
                }
                Err(error)
            }
            Err(_) => {
                // If the server hangs, a new connection gets no reply sooner. But if the connection
                // broke silently (a cable, a firewall), it never delivers a reply.
                self.forget(&connection);
                Err(Error::timed_out(format!("no reply from {} in time", self.target)))
            }
        }
    }

    /// Returns whether the last attempt to connect failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.state().failure.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, lost: &Connection) {
        let mut state = self.state();
        let is_same = |known: &Connection| Arc::ptr_eq(&known.is_lost, &lost.is_lost);
        if state.connection.as_ref().is_some_and(is_same) {
            state.connection = None;
        }
    }

    /// Returns the connection if it is open, or the last failure if it is too early for another
    /// attempt. Returns `None` if an attempt is in progress or due.
    fn last_outcome(&self) -> Option<Outcome> {
        let state = self.state();
        let connection = state.connection.as_ref();
        if let Some(known) = connection.filter(|known| !known.is_lost.load(Ordering::Acquire)) {
            return Some(Ok(known.clone()));
        }
        let failure = state.failure.as_ref().filter(|failure| Instant::now() < failure.until)?;
        Some(Err(failure.error.clone()))
    }

    /// Waits until the connection is open. A task of its own opens it, so that it is opened even if
    /// this call stops waiting.
    async fn wait_for_connection(self: &Arc<Self>, deadline: Instant) -> Outcome {
        let late = || Error::not_sent(format!("no connection to {} in time", self.target));
        let mut outcome = {
            let mut state = self.state();
            match &state.attempt {
                Some(attempt) if attempt.begun.elapsed() > SLOW => return Err(late()),
                Some(attempt) => attempt.outcome.clone(),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    let begun = Instant::now();
                    state.attempt = Some(Attempt { begun, outcome: outcome.clone() });
                    let task = ConnectTask { link: Arc::clone(self), sender };
                    tokio::spawn(task.run());
                    outcome
                }
            }
        };
        match timeout_at(deadline, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(late())),
            _ => Err(late()),
        }
    }

    async fn connect(&self) -> Outcome {
        let is_lost = Arc::new(AtomicBool::new(false));
        let set_by_push = Arc::clone(&is_lost);
        let config = AsyncConnectionConfig::new()
            // Each call has a deadline of its own.
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    set_by_push.store(true, Ordering::Release);
                }
                Ok::<_, redis::aio::SendError>(())
            });
        let while_connecting = |error| Error::while_connecting(&self.target.to_string(), &error);
        let mut connection = self.target.connect(&config).await.map_err(while_connecting)?;
        if self.kind == Kind::ClusterReplica {
            let reply = connection.send_packed_command(&redis::cmd("READONLY")).await;
            reply.and_then(Value::extract_error).map_err(while_connecting)?;
        }
        Ok(Connection { connection, is_lost })
    }
}

/// An attempt to connect. However it ends, the next one may start.
struct ConnectTask {
    link: Arc<Link>,
    sender: watch::Sender<Option<Outcome>>,
}

impl ConnectTask {
    async fn run(self) {
        let link = &self.link;
        let outcome = match timeout(link.timeout, link.connect()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::not_sent(format!("no connection to {} in time", link.target))),
        };
        let mut state = link.state();
        match &outcome {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                state.failure = None;
            }
            Err(error) => {
                let longer = |failure: &Failure| (failure.pause * 2).min(LONGEST_PAUSE);
                let pause = state.failure.as_ref().map_or(FIRST_PAUSE, longer);
                let until = Instant::now() + pause;
                state.failure = Some(Failure { error: error.clone(), pause, until });
            }
        }
        state.attempt = None;
        drop(state);
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for ConnectTask {
    fn drop(&mut self) {
        let own = self.sender.subscribe();
        let mut state = self.link.state();
        if state.attempt.as_ref().is_some_and(|attempt| attempt.outcome.same_channel(&own)) {
            state.attempt = None;
        }
    }
}
