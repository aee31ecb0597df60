//! One connection to one server. All calls to the server share the connection. If it is lost, it is
//! opened again.

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

use crate::access::Access;
use crate::error::{Cause, Error};

/// If an attempt to connect began longer ago than this, further calls don't wait for it, and fail
/// immediately.
const MAX_AGE_TO_JOIN: Duration = Duration::from_secs(1);

/// The pause after a failed attempt to connect. After each further failure the pause is twice as
/// long, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The settings of all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    /// How many calls may wait for one server.
    pub(crate) max_waiting: usize,
    /// Whether writes have connections of their own.
    pub(crate) has_write_connections: bool,
    pub(crate) reads_from_replicas: bool,
}

/// The server to connect to.
pub(crate) enum Target {
    /// The server with this address.
    Server(Client),
    /// The server that one of these sentinels names, and the sentinels' name for it.
    Sentinels(Vec<tokio::sync::Mutex<SentinelClient>>, String),
}

impl Target {
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => {
                client.get_multiplexed_async_connection_with_config(config).await
            }
            // All sentinels are asked concurrently, so a sentinel that hangs delays nothing.
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

/// Shows the server's address, without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => client.get_connection_info().addr().fmt(f),
            Self::Sentinels(_, name) => write!(f, "the server that the sentinels call {name:?}"),
        }
    }
}

/// A shared connection to a server, which is opened when it is first needed, and again after it was
/// lost. The number of calls that wait for a reply is limited.
pub(crate) struct Link {
    target: Target,
    role: Role,
    /// Limits the number of calls that wait for a reply.
    permits: Semaphore,
    /// How long an attempt to connect may take.
    timeout: Duration,
    state: Mutex<State>,
}

/// The role of the connected server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Master,
    Replica,
    /// A replica of a cluster. It refuses reads until `READONLY` is sent on the connection.
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
    /// `None` until the attempt ends.
    outcome: watch::Receiver<Option<ConnectOutcome>>,
}

type ConnectOutcome = Result<Connection, Error>;

#[derive(Clone)]
struct Connection {
    connection: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
}

struct Failure {
    error: Error,
    /// The pause between this failure and the next attempt.
    pause: Duration,
    /// The end of the pause.
    retry_at: Instant,
}

impl Link {
    pub(crate) fn new(target: Target, role: Role, settings: &Settings) -> Self {
        Self {
            target,
            role,
            permits: Semaphore::new(settings.max_waiting),
            // Calls join an attempt until it has this age, so an attempt lasts at least as long.
            timeout: settings.timeout.max(MAX_AGE_TO_JOIN),
            state: Mutex::default(),
        }
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.role != Role::Master
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

    /// Sends several commands together and returns all replies. Each reply may be an error, but if
    /// one is `READONLY`, this returns it as the error of the call.
    pub(crate) async fn send_all(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        let count = commands.len();
        self.with_connection(deadline, async |connection| {
            let replies = connection.send_packed_commands(commands, 0, count).await?;
            // A server that replies `READONLY` to one of the commands has written nothing.
            let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
            let errors = replies.iter().filter_map(|reply| reply.clone().extract_error().err());
            match errors.into_iter().find(|error| error.kind() == read_only) {
                Some(error) => Err(error),
                None => Ok(replies),
            }
        })
        .await
    }

    /// Calls `send` with the connection, which is opened first if necessary.
    async fn with_connection<T>(
        self: &Arc<Self>,
        deadline: Instant,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let message =
                format!("too many calls already wait for {}: see `with_max_waiting`", self.target);
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        };
        let mut connection = match self.connection_or_failure() {
            Some(outcome) => outcome?,
            None => Box::pin(self.wait_for_connection(deadline)).await?,
        };
        match timeout_at(deadline, send(&mut connection.connection)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let error = Error::from_redis(&error);
                // After `READONLY` a new connection is needed, too, because the sentinels may name
                // another server by now.
                if matches!(error.cause, Cause::Lost | Cause::ReadOnly) {
                    self.forget(&connection);
                }
                Err(error)
            }
            Err(_) => {
                // The connection may be broken without notice, for example by a firewall. Only a
                // new connection helps then. If the server hangs, a new connection does no harm.
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

    /// Makes the next call open a new connection, unless this connection was already replaced.
    fn forget(&self, lost: &Connection) {
        let mut state = self.state();
        let is_same = |known: &Connection| Arc::ptr_eq(&known.is_lost, &lost.is_lost);
        if state.connection.as_ref().is_some_and(is_same) {
            state.connection = None;
        }
    }

    /// Returns the connection if it is open. Returns the error of the last attempt to connect if
    /// the pause after it has not ended. Otherwise returns `None`: the call has to wait for a
    /// connection.
    fn connection_or_failure(&self) -> Option<ConnectOutcome> {
        let state = self.state();
        let connection = state.connection.as_ref();
        if let Some(known) = connection.filter(|known| !known.is_lost.load(Ordering::Acquire)) {
            return Some(Ok(known.clone()));
        }
        let failure = state.failure.as_ref().filter(|failure| Instant::now() < failure.retry_at)?;
        Some(Err(failure.error.clone()))
    }

    /// Waits until the connection is open. A separate task opens the connection, so it is opened
    /// even if this call stops waiting.
    async fn wait_for_connection(self: &Arc<Self>, deadline: Instant) -> ConnectOutcome {
        let late = || Error::not_sent(format!("no connection to {} in time", self.target));
        let mut outcome = {
            let mut state = self.state();
            match &state.attempt {
                Some(attempt) if attempt.begun.elapsed() > MAX_AGE_TO_JOIN => return Err(late()),
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

    async fn connect(&self) -> ConnectOutcome {
        let is_lost = Arc::new(AtomicBool::new(false));
        let is_lost_in_callback = Arc::clone(&is_lost);
        let config = AsyncConnectionConfig::new()
            // The driver's time-outs are off, because each call has a deadline of its own.
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    is_lost_in_callback.store(true, Ordering::Release);
                }
                Ok::<_, redis::aio::SendError>(())
            });
        let while_connecting = |error| Error::while_connecting(&self.target.to_string(), &error);
        let mut connection = self.target.connect(&config).await.map_err(while_connecting)?;
        if self.role == Role::ClusterReplica {
            let reply = connection.send_packed_command(&redis::cmd("READONLY")).await;
            reply.and_then(Value::extract_error).map_err(while_connecting)?;
        }
        Ok(Connection { connection, is_lost })
    }
}

/// The connections to a master, and behind Sentinel also to a replica.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) master: Arc<Link>,
    /// For writes. This is a separate connection to the master if writes wait for replicas, because
    /// other commands on the same connection would wait as well. Otherwise it is `master`.
    pub(crate) writes: Arc<Link>,
    /// For reads from a replica, if they are allowed. Always `None` in a cluster.
    pub(crate) replica: Option<Arc<Link>>,
}

impl Links {
    pub(crate) fn for_access(&self, access: Access) -> &Arc<Link> {
        match access {
            Access::Read => self.replica.as_ref().unwrap_or(&self.master),
            Access::ReadLatest => &self.master,
            Access::Write => &self.writes,
        }
    }
}

/// The task that tries to connect. When the task ends for any reason, another attempt can begin.
struct ConnectTask {
    link: Arc<Link>,
    sender: watch::Sender<Option<ConnectOutcome>>,
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
                let longer = |failure: &Failure| (failure.pause * 2).min(MAX_PAUSE);
                let pause = state.failure.as_ref().map_or(FIRST_PAUSE, longer);
                let retry_at = Instant::now() + pause;
                state.failure = Some(Failure { error: error.clone(), pause, retry_at });
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
