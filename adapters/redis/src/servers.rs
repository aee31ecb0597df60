//! Decides which server gets a command, and when the command is retried. The server is the only
//! server, or the master that the sentinels name, or the node of a cluster that has the slot.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use crate::access::Access;
use crate::cluster::Cluster;
use crate::error::{Cause, Error};
use crate::keys::slot;
use crate::life::millis;
use crate::link::{Link, Links};

/// A command is redirected to another server at most this many times.
const MAX_REDIRECTS: u32 = 5;

/// How long to wait before a retry while the keys of a slot are moving.
const PAUSE: Duration = Duration::from_millis(25);

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
            // If the replica does not reply in half of the time, the master has the other half.
            true => Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
            false => deadline,
        };
        match self.send(&link, access, command, false, first_deadline).await {
            Ok(reply) => Ok(reply),
            // Retries are rare. Boxing them keeps the future of a call small.
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
        let mut retries = Retries::default();
        loop {
            self.learn_after(&error);
            let next = match Instant::now() + PAUSE > deadline {
                true => None,
                false => self.next_try(&link, key, access, &error, &mut retries).await?,
            };
            let sends_asking;
            (link, sends_asking) = match next {
                Some(next) => next,
                None if access == Access::Write => return Err(error),
                None => return Err(error.after_reading()),
            };
            error = match self.send(&link, access, command, sends_asking, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
        }
    }

    /// Returns whether replicas may serve reads.
    pub(crate) fn reads_from_replicas(&self) -> bool {
        match &self.topology {
            Topology::One(links) => links.replica.is_some(),
            Topology::Cluster(cluster) => cluster.reads_from_replicas(),
        }
    }

    fn link(&self, key: &str, access: Access) -> Result<Arc<Link>, Error> {
        match &self.topology {
            Topology::One(links) => Ok(Arc::clone(links.for_access(access))),
            Topology::Cluster(cluster) => cluster.link_for_slot(slot(key), access),
        }
    }

    async fn send(
        &self,
        link: &Arc<Link>,
        access: Access,
        command: &Cmd,
        sends_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let replicas = if access == Access::Write { self.replicas_to_wait_for } else { 0 };
        if !sends_asking && replicas == 0 {
            return link.send(command, deadline).await;
        }
        Box::pin(self.send_with(link, replicas, command, sends_asking, deadline)).await
    }

    /// Sends a command together with other commands: `ASKING` before it, if `sends_asking` is set,
    /// and `WAIT` after it, if the write has to wait for replicas.
    async fn send_with(
        &self,
        link: &Arc<Link>,
        replicas: usize,
        command: &Cmd,
        sends_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let checked = |reply: Option<Value>| {
            let reply = reply.ok_or_else(Error::unexpected_reply)?;
            reply.extract_error().map_err(|error| Error::from_redis(&error))
        };
        let mut commands = Pipeline::new();
        if sends_asking {
            commands.cmd("ASKING");
        }
        commands.add_command(command.clone());
        if replicas > 0 {
            // The server stops waiting before the deadline, so its reply still arrives in time. The
            // reply says how many replicas have the write.
            let left = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
            commands.cmd("WAIT").arg(replicas).arg(millis(left));
        }
        let mut replies = link.send_all(&commands, deadline).await?.into_iter();
        if sends_asking {
            checked(replies.next())?;
        }
        let reply = checked(replies.next())?;
        if replicas == 0 {
            return Ok(reply);
        }
        // The write has been done, so an error from here on must not say that it failed.
        match checked(replies.next()) {
            Ok(Value::Int(have)) if have >= replicas as i64 => Ok(reply),
            Ok(Value::Int(have)) => Err(Error::timed_out(format!(
                "the master has the write, but only {have} of {replicas} replicas confirmed it in \
                 time"
            ))),
            Ok(_) => Err(Error::unexpected_reply().after_writing()),
            Err(error) => Err(error.after_writing()),
        }
    }

    /// Learns the slots of the cluster again, if this error may come from outdated slots.
    fn learn_after(&self, error: &Error) {
        if let Topology::Cluster(cluster) = &self.topology
            && !matches!(error.cause, Cause::Ask(..) | Cause::TryAgain | Cause::NoScript)
        {
            cluster.learn_slots_soon();
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
        retries: &mut Retries,
    ) -> Result<Option<(Arc<Link>, bool)>, Error> {
        // If a replica can't serve a read, the master can.
        let access = if access == Access::Read { Access::ReadLatest } else { access };
        let again = || self.link(key, access).map(|link| Some((link, false)));
        match (&error.cause, &self.topology) {
            (Cause::Moved(host, port) | Cause::Ask(host, port), Topology::Cluster(cluster)) => {
                retries.redirects += 1;
                if retries.redirects > MAX_REDIRECTS {
                    return Ok(None);
                }
                let sends_asking = matches!(error.cause, Cause::Ask(..));
                Ok(Some((cluster.link_to(link, host, *port, access)?, sends_asking)))
            }
            (Cause::Moved(..) | Cause::Ask(..), Topology::One(_)) => {
                Err(Error::cluster_url_required())
            }
            // While the keys of a write are on two nodes, the write is retried, until the deadline.
            // A call that reads does not retry here: it reads each key separately.
            (Cause::TryAgain, _) if access == Access::Write => {
                retries.redirects = 0;
                sleep(PAUSE).await;
                again()
            }
            // The retry opens a new connection, because the link has dropped the old one.
            (Cause::ReadOnly, _) if !retries.is_reconnected => {
                retries.is_reconnected = true;
                again()
            }
            (Cause::Lost, _) if access != Access::Write && !retries.is_reconnected => {
                retries.is_reconnected = true;
                again()
            }
            (Cause::NotSent | Cause::TimedOut | Cause::Kind(_), _) if link.is_replica() => again(),
            _ => Ok(None),
        }
    }
}

/// The retries of one command so far.
#[derive(Default)]
struct Retries {
    /// How many times the command was redirected.
    redirects: u32,
    /// Whether the command was retried after its connection was lost or after `READONLY`.
    is_reconnected: bool,
}
