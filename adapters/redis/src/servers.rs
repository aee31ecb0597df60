//! Decides which server gets a command, and when the command is retried. That server is the only
//! one, the master that the sentinels name, or the node of a cluster that has the slot.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::error::{Cause, Error};
use crate::keys::slot;
use crate::link::Link;
use crate::store::millis;

/// How many times a command is redirected to another server, at most.
const MAX_REDIRECTS: u32 = 5;

/// How long to wait before a retry while the keys of a slot are moving.
const PAUSE: Duration = Duration::from_millis(25);

/// What a command does, and so which servers may run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads. A replica may serve it, if reads from replicas are allowed.
    Read,
    /// It reads, and only the master may serve it. A write that may be lost or repeated, because no
    /// caller depends on it, is sent in the same way.
    ReadLatest,
    /// It writes.
    Write,
}

/// The connections to one server.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) master: Arc<Link>,
    /// For writes. It is a separate connection if writes wait for replicas, because other commands
    /// on the same connection would wait as well.
    pub(crate) writes: Arc<Link>,
    /// A replica for reads, if there is one.
    pub(crate) replica: Option<Arc<Link>>,
}

impl Links {
    pub(crate) fn of(&self, access: Access) -> &Arc<Link> {
        match access {
            Access::Read => self.replica.as_ref().unwrap_or(&self.master),
            Access::ReadLatest => &self.master,
            Access::Write => &self.writes,
        }
    }
}

/// The settings that all connections share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) max_waiting: usize,
    /// Whether writes have connections of their own.
    pub(crate) splits_writes: bool,
    pub(crate) reads_from_replicas: bool,
}

/// The servers of a store.
pub(crate) struct Servers {
    pub(crate) topology: Topology,
    /// How many replicas must have a write before it succeeds.
    pub(crate) replicas_to_wait_for: usize,
}

pub(crate) enum Topology {
    One(Links),
    Cluster(Arc<Cluster>),
}

impl Servers {
    /// Sends a command about this key to the server that has the key, and returns the reply.
    ///
    /// A command that was certainly not executed is retried. A command that only reads is also
    /// retried once if the connection was lost.
    pub(crate) async fn call(
        &self,
        key: &str,
        access: Access,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let link = self.link(key, access)?;
        let first_deadline = match link.is_replica() {
            // The other half of the time is for the master.
            true => Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
            false => deadline,
        };
        match self.send(&link, access, command, false, first_deadline).await {
            Ok(reply) => Ok(reply),
            // Boxed, so that this rare path takes no room in the future of every call.
            Err(error) => Box::pin(self.retry(link, key, access, command, error, deadline)).await,
        }
    }

    async fn retry(
        &self,
        mut link: Arc<Link>,
        key: &str,
        access: Access,
        command: &Cmd,
        mut error: Error,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let mut tried = Tried::default();
        loop {
            self.learn_from(&error);
            let next = match Instant::now() + PAUSE > deadline {
                true => None,
                false => self.next_try(&link, key, access, &error, &mut tried).await?,
            };
            let is_asking;
            (link, is_asking) = match next {
                Some(next) => next,
                None if access == Access::Write => return Err(error),
                None => return Err(error.after_reading()),
            };
            error = match self.send(&link, access, command, is_asking, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
        }
    }

    /// Returns whether replicas may serve reads.
    pub(crate) fn has_replicas(&self) -> bool {
        match &self.topology {
            Topology::One(links) => links.replica.is_some(),
            Topology::Cluster(cluster) => cluster.reads_from_replicas(),
        }
    }

    fn link(&self, key: &str, access: Access) -> Result<Arc<Link>, Error> {
        match &self.topology {
            Topology::One(links) => Ok(Arc::clone(links.of(access))),
            Topology::Cluster(cluster) => cluster.link(slot(key), access),
        }
    }

    async fn send(
        &self,
        link: &Arc<Link>,
        access: Access,
        command: &Cmd,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let wait_for = if access == Access::Write { self.replicas_to_wait_for } else { 0 };
        if !is_asking && wait_for == 0 {
            return link.send(command, deadline).await;
        }
        Box::pin(self.send_with(link, wait_for, command, is_asking, deadline)).await
    }

    /// Sends a command, after `ASKING` and before `WAIT` where they are needed.
    async fn send_with(
        &self,
        link: &Arc<Link>,
        wait_for: usize,
        command: &Cmd,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let checked = |reply: Option<Value>| {
            let reply = reply.ok_or_else(Error::unexpected_reply)?;
            reply.extract_error().map_err(|error| Error::from_redis(&error))
        };
        let mut commands = Pipeline::new();
        if is_asking {
            commands.cmd("ASKING");
        }
        commands.add_command(command.clone());
        if wait_for > 0 {
            // The server gives up before the deadline, and replies how many replicas have the
            // write.
            let left = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
            commands.cmd("WAIT").arg(wait_for).arg(millis(left));
        }
        let mut replies = link.send_all(&commands, deadline).await?.into_iter();
        if is_asking {
            checked(replies.next())?;
        }
        let reply = checked(replies.next())?;
        if wait_for == 0 {
            return Ok(reply);
        }
        // From here on the write has been done, whatever else fails.
        match checked(replies.next()) {
            Ok(Value::Int(have)) if have >= wait_for as i64 => Ok(reply),
            Ok(Value::Int(have)) => Err(Error::timed_out(format!(
                "written, but only {have} of {wait_for} replicas confirmed it in time"
            ))),
            Ok(_) => Err(Error::unexpected_reply().after_writing()),
            Err(error) => Err(error.after_writing()),
        }
    }

    /// Refreshes the map of the nodes, if this error suggests that it is out of date.
    fn learn_from(&self, error: &Error) {
        if let Topology::Cluster(cluster) = &self.topology
            && !matches!(error.cause, Cause::Ask(..) | Cause::TryAgain | Cause::NoScript)
        {
            cluster.learn_soon();
        }
    }

    /// Returns the connection for the next try after this error, and whether to send `ASKING`
    /// first. Returns `None` if there is no next try.
    async fn next_try(
        &self,
        link: &Arc<Link>,
        key: &str,
        access: Access,
        error: &Error,
        tried: &mut Tried,
    ) -> Result<Option<(Arc<Link>, bool)>, Error> {
        // If a replica can't serve a read, the master can.
        let access = if access == Access::Read { Access::ReadLatest } else { access };
        let again = || self.link(key, access).map(|link| Some((link, false)));
        match (&error.cause, &self.topology) {
            (Cause::Moved(host, port) | Cause::Ask(host, port), Topology::Cluster(cluster)) => {
                tried.redirects += 1;
                if tried.redirects > MAX_REDIRECTS {
                    return Ok(None);
                }
                let is_asking = matches!(error.cause, Cause::Ask(..));
                Ok(Some((cluster.at(link, host, *port, access)?, is_asking)))
            }
            (Cause::Moved(..) | Cause::Ask(..), Topology::One(_)) => {
                Err(Error::cluster_url_required())
            }
            // A write is retried until the deadline, while its keys are on two nodes. A call that
            // reads asks for each key separately instead.
            (Cause::TryAgain, _) if access == Access::Write => {
                tried.redirects = 0;
                sleep(PAUSE).await;
                again()
            }
            // This opens a new connection, because the link has dropped the old one.
            (Cause::ReadOnly, _) if !tried.is_retried => {
                tried.is_retried = true;
                again()
            }
            (Cause::Lost, _) if access != Access::Write && !tried.is_retried => {
                tried.is_retried = true;
                again()
            }
            (Cause::NotSent | Cause::TimedOut | Cause::Kind(_), _) if link.is_replica() => again(),
            _ => Ok(None),
        }
    }
}

/// What has been tried for one command so far.
#[derive(Default)]
struct Tried {
    /// How many times it was redirected.
    redirects: u32,
    /// Whether it was retried on the same server.
    is_retried: bool,
}
