//! One connection to one server, shared by all calls and made anew when it is lost.

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

use crate::error::{Cause, Fault};
use crate::servers::Settings;

/// How long making a connection may take before calls don't wait for it any more.
const SLOW: Duration = Duration::from_secs(1);

/// How long nobody tries after a try that failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Where a connection leads.
pub(crate) enum Target {
    /// To this server.
    Server(Client),
    /// To whichever server one of these sentinels names.
    Named(Vec<tokio::sync::Mutex<SentinelClient>>, String),
}

impl Target {
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => {
                client.get_multiplexed_async_connection_with_config(config).await
            }
            // All at once: one that hangs holds up nothing.
            Self::Named(sentinels, _) => {
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
    /// How long a try to connect may take.
    timeout: Duration,
    state: Mutex<State>,
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
    /// The try to connect that is going on.
    attempt: Option<Attempt>,
    /// The last try to connect, if it failed.
    failure: Option<Failure>,
}

struct Attempt {
    begun: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

type Outcome = Result<Connection, Fault>;

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
    pub(crate) fn new(target: Target, kind: Kind, settings: &Settings) -> Self {
        Self {
            target,
            kind,
            waiting: Semaphore::new(settings.most_waiting),
            timeout: settings.timeout.max(SLOW),
            state: Mutex::default(),
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
    pub(crate) async fn send(
        self: &Arc<Self>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        self.with(deadline, async |connection| {
            connection.send_packed_command(command).await.and_then(Value::extract_error)
        })
        .await
    }

    /// Sends several commands at once, and waits for all answers, which may be errors.
    pub(crate) async fn send_all(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Fault> {
        let count = commands.len();
        self.with(deadline, async |connection| {
            let answers = connection.send_packed_commands(commands, 0, count).await?;
            // Then none of them has written.
            let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
            let errors = answers.iter().filter_map(|answer| answer.clone().extract_error().err());
            match errors.into_iter().find(|error| error.kind() == read_only) {
                Some(error) => Err(error),
                None => Ok(answers),
            }
        })
        .await
    }

    async fn with<T>(
        self: &Arc<Self>,
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
                let fault = Fault::of(&error);
                // The sentinels may name another by now.
                if matches!(fault.cause, Cause::Lost | Cause::ReadOnly) {
                    self.forget(&connection);
                }
                Err(fault)
            }
            Err(_) => {
                // A server that hangs answers a new connection no sooner, but one that is gone without
                // a word (a cable, a firewall) never answers this one.
                self.forget(&connection);
                Err(Fault::timed_out(format!("no answer of {} in time", self.target)))
            }
        }
    }

    /// Whether the last try to connect failed, and there was none since.
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

    /// The connection, if there is one, or why there will be none for a moment.
    fn known(&self) -> Option<Outcome> {
        let state = self.state();
        let connection = state.connection.as_ref();
        if let Some(known) = connection.filter(|known| !known.is_lost.load(Ordering::Acquire)) {
            return Some(Ok(known.clone()));
        }
        let failure = state.failure.as_ref().filter(|failure| Instant::now() < failure.until)?;
        Some(Err(failure.fault.clone()))
    }

    /// Waits for the connection that is being made: by a task of its own, so that it is made whoever
    /// stops waiting for it.
    async fn connection(self: &Arc<Self>, deadline: Instant) -> Outcome {
        let late = || Fault::not_sent(format!("no connection to {} in time", self.target));
        let mut outcome = {
            let mut state = self.state();
            match &state.attempt {
                Some(attempt) if attempt.begun.elapsed() > SLOW => return Err(late()),
                Some(attempt) => attempt.outcome.clone(),
                None => {
                    let (tell, outcome) = watch::channel(None);
                    let begun = Instant::now();
                    state.attempt = Some(Attempt { begun, outcome: outcome.clone() });
                    let trying = Trying { link: Arc::clone(self), tell };
                    tokio::spawn(trying.run());
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

/// A try to connect. However it ends, it makes room for the next.
struct Trying {
    link: Arc<Link>,
    tell: watch::Sender<Option<Outcome>>,
}

impl Trying {
    async fn run(self) {
        let link = &self.link;
        let outcome = match timeout(link.timeout, link.connect()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::not_sent(format!("no connection to {} in time", link.target))),
        };
        let mut state = link.state();
        match &outcome {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                state.failure = None;
            }
            Err(fault) => {
                let longer = |failure: &Failure| (failure.pause * 2).min(LONGEST_PAUSE);
                let pause = state.failure.as_ref().map_or(FIRST_PAUSE, longer);
                let until = Instant::now() + pause;
                state.failure = Some(Failure { fault: fault.clone(), pause, until });
            }
        }
        state.attempt = None;
        drop(state);
        self.tell.send_replace(Some(outcome));
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        let own = self.tell.subscribe();
        let mut state = self.link.state();
        if state.attempt.as_ref().is_some_and(|attempt| attempt.outcome.same_channel(&own)) {
            state.attempt = None;
        }
    }
}
