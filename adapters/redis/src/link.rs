//! One connection to one server, shared by all calls and made anew when it is lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, Pipeline, PushInfo, PushKind, RedisResult,
    Value,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tower_keep_core::StoreErrorKind;

use crate::error::Fault;

/// How long making a connection may take.
const TO_CONNECT: Duration = Duration::from_secs(1);

/// How long nobody tries after a try that failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Where a connection leads.
pub(crate) enum Target {
    /// To this server.
    Server(Client),
    /// To whichever server the sentinels name.
    Named(tokio::sync::Mutex<SentinelClient>, String),
}

impl Target {
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => {
                client.get_multiplexed_async_connection_with_config(config).await
            }
            Self::Named(sentinels, _) => {
                sentinels.lock().await.get_async_connection_with_config(config).await
            }
        }
    }
}

/// The server's address, without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => client.get_connection_info().addr().fmt(f),
            Self::Named(_, name) => write!(f, "the server that the sentinels call {name:?}"),
        }
    }
}

/// A connection to a server, for as long as the server has it.
///
/// Any number of calls send on it, each waits for its own answer, and no more wait than are allowed.
pub(crate) struct Link {
    target: Target,
    kind: Kind,
    waiting: Semaphore,
    state: Mutex<State>,
    /// Whoever holds it makes the connection; the others wait for that.
    connecting: tokio::sync::Mutex<()>,
}

/// What is at the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Master,
    Replica,
    /// A replica of a cluster, which has to be told that it may answer.
    ClusterReplica,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// The last try to connect, if it failed.
    failure: Option<Failure>,
}

#[derive(Clone)]
struct Connection {
    connection: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
}

struct Failure {
    fault: Fault,
    pause: Duration,
    until: Instant,
}

impl Link {
    pub(crate) fn new(target: Target, kind: Kind, most_waiting: usize) -> Self {
        Self {
            target,
            kind,
            waiting: Semaphore::new(most_waiting),
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.kind != Kind::Master
    }

    /// The host that it was made for.
    pub(crate) fn host(&self) -> Option<String> {
        match &self.target {
            Target::Server(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                    Some(host.clone())
                }
                _ => None,
            },
            Target::Named(..) => None,
        }
    }

    /// Sends a command, and waits for its answer.
    pub(crate) async fn send(&self, command: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        self.with(deadline, async |connection| connection.send_packed_command(command).await).await
    }

    /// Sends several commands at once, and waits for all answers.
    pub(crate) async fn send_all(
        &self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Fault> {
        let count = commands.len();
        self.with(deadline, async |connection| {
            connection.send_packed_commands(commands, 0, count).await
        })
        .await
    }

    async fn with<T>(
        &self,
        deadline: Instant,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Fault> {
        let Ok(_permit) = self.waiting.try_acquire() else {
            let words = format!("as many calls as are allowed wait for {} already", self.target);
            return Err(Fault::new(StoreErrorKind::Unavailable, words));
        };
        let mut connection = match self.known() {
            Some(known) => known?,
            None => Box::pin(self.connection(deadline)).await?,
        };
        match timeout_at(deadline, ask(&mut connection.connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.forget(&connection);
                Err(Fault::of(&error))
            }
            Err(_) => {
                // A server that hangs answers a new connection no sooner, but one that is gone without
                // a word (a cable, a firewall) never answers this one.
                self.forget(&connection);
                Err(Fault::timed_out(format!("no answer of {} in time", self.target)))
            }
        }
    }

    /// Makes the next call connect anew, as where the server is not what it was.
    pub(crate) fn reconnect(&self) {
        self.state().connection = None;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, lost: &Connection) {
        let mut state = self.state();
        let is_same = |known: &Connection| Arc::ptr_eq(&known.is_lost, &lost.is_lost);
        if state.connection.as_ref().is_some_and(is_same) {
            state.connection = None;
        }
    }

    /// The connection, if there is one, or why there will be none for a moment.
    fn known(&self) -> Option<Result<Connection, Fault>> {
        let state = self.state();
        let connection = state.connection.as_ref();
        if let Some(known) = connection.filter(|known| !known.is_lost.load(Ordering::Acquire)) {
            return Some(Ok(known.clone()));
        }
        let failure = state.failure.as_ref().filter(|failure| Instant::now() < failure.until)?;
        Some(Err(failure.fault.clone()))
    }

    async fn connection(&self, deadline: Instant) -> Result<Connection, Fault> {
        let Ok(_turn) = timeout_at(deadline, self.connecting.lock()).await else {
            return Err(Fault::not_sent(format!("no connection to {} in time", self.target)));
        };
        // Whoever was first has made it, or has failed.
        if let Some(known) = self.known() {
            return known;
        }
        let made = match timeout_at(deadline.min(Instant::now() + TO_CONNECT), self.connect()).await
        {
            Ok(made) => made,
            Err(_) => Err(Fault::not_sent(format!("no connection to {} in time", self.target))),
        };
        let mut state = self.state();
        match &made {
            Ok(connection) => {
                *state = State { connection: Some(connection.clone()), failure: None };
            }
            Err(fault) => {
                let longer = |failure: &Failure| (failure.pause * 2).min(LONGEST_PAUSE);
                let pause = state.failure.as_ref().map_or(FIRST_PAUSE, longer);
                let until = Instant::now() + pause;
                state.failure = Some(Failure { fault: fault.clone(), pause, until });
            }
        }
        made
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let is_lost = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_lost);
        let config = AsyncConnectionConfig::new()
            // Each call has a deadline of its own.
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    told.store(true, Ordering::Release);
                }
                Ok::<_, redis::aio::SendError>(())
            });
        let of_connecting = |error| Fault::of_connecting(&self.target.to_string(), &error);
        let mut connection = self.target.connect(&config).await.map_err(of_connecting)?;
        if self.kind == Kind::ClusterReplica {
            let answer = connection.send_packed_command(&redis::cmd("READONLY")).await;
            answer.and_then(Value::extract_error).map_err(of_connecting)?;
        }
        Ok(Connection { connection, is_lost })
    }
}
