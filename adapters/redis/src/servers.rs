//! Which server is asked: the only one, the one that the sentinels name, or a slot's in a cluster; and
//! when it is asked again.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::error::{Cause, Fault};
use crate::keys::slot;
use crate::link::Link;
use crate::store::millis;

/// How often a command is sent on to another server.
const HOPS: u32 = 5;

/// How long to wait while the keys of a slot are moving.
const PAUSE: Duration = Duration::from_millis(25);

/// What a command is for, and so who may answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It reads; a replica may answer, if replicas are allowed to.
    Read,
    /// It reads, and only the master answers.
    ReadLatest,
    /// It writes.
    Write,
}

/// One server: its connections.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) master: Arc<Link>,
    /// For writes, where they wait for replicas, or else the same: what follows on a connection waits,
    /// too.
    pub(crate) writes: Arc<Link>,
    /// A replica, where one may answer.
    pub(crate) replica: Option<Arc<Link>>,
}

impl Links {
    pub(crate) fn of(&self, whose: Use) -> &Arc<Link> {
        match whose {
            Use::Read => self.replica.as_ref().unwrap_or(&self.master),
            Use::ReadLatest => &self.master,
            Use::Write => &self.writes,
        }
    }
}

/// What all connections have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) most_waiting: usize,
    /// Whether writes have connections of their own.
    pub(crate) splits_writes: bool,
    pub(crate) reads_from_replicas: bool,
}

/// The servers of a store.
pub(crate) struct Servers {
    pub(crate) topology: Topology,
    /// A write counts when so many replicas have it.
    pub(crate) replicas_to_wait_for: usize,
}

pub(crate) enum Topology {
    One(Links),
    Cluster(Arc<Cluster>),
}

impl Servers {
    /// Sends a command about this key to who has it, and waits for the answer.
    ///
    /// It is sent again where it surely was not run, and where it only reads, once more if the connection
    /// was lost.
    pub(crate) async fn ask(
        &self,
        key: &str,
        whose: Use,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let link = self.link(key, whose)?;
        let patience = match link.is_replica() {
            // It leaves the master some time.
            true => Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
            false => deadline,
        };
        match self.send(&link, whose, command, false, patience).await {
            Ok(answer) => Ok(answer),
            // Apart, so that what is rare takes no room in every call.
            Err(fault) => {
                Box::pin(self.ask_again(link, key, whose, command, fault, deadline)).await
            }
        }
    }

    async fn ask_again(
        &self,
        mut link: Arc<Link>,
        key: &str,
        whose: Use,
        command: &Cmd,
        mut fault: Fault,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let mut tried = Tried::default();
        loop {
            self.learn_from(&fault);
            let next = match Instant::now() + PAUSE > deadline {
                true => None,
                false => self.next(&link, key, whose, &fault, &mut tried).await?,
            };
            let is_asking;
            (link, is_asking) = match next {
                Some(next) => next,
                None if whose == Use::Write => return Err(fault),
                None => return Err(fault.of_reading()),
            };
            fault = match self.send(&link, whose, command, is_asking, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
        }
    }

    /// Whether an answer may be a replica's.
    pub(crate) fn has_replicas(&self) -> bool {
        match &self.topology {
            Topology::One(links) => links.replica.is_some(),
            Topology::Cluster(cluster) => cluster.reads_from_replicas(),
        }
    }

    fn link(&self, key: &str, whose: Use) -> Result<Arc<Link>, Fault> {
        match &self.topology {
            Topology::One(links) => Ok(Arc::clone(links.of(whose))),
            Topology::Cluster(cluster) => cluster.link(slot(key), whose),
        }
    }

    async fn send(
        &self,
        link: &Arc<Link>,
        whose: Use,
        command: &Cmd,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let wait_for = if whose == Use::Write { self.replicas_to_wait_for } else { 0 };
        if !is_asking && wait_for == 0 {
            return link.send(command, deadline).await;
        }
        Box::pin(self.send_with(link, wait_for, command, is_asking, deadline)).await
    }

    /// Sends a command with others around it.
    async fn send_with(
        &self,
        link: &Arc<Link>,
        wait_for: usize,
        command: &Cmd,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let checked = |answer: Option<Value>| {
            let answer = answer.ok_or_else(Fault::odd_answer)?;
            answer.extract_error().map_err(|error| Fault::of(&error))
        };
        let mut commands = Pipeline::new();
        if is_asking {
            commands.cmd("ASKING");
        }
        commands.add_command(command.clone());
        if wait_for > 0 {
            // The server gives up first, and says how many have it.
            let left = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
            commands.cmd("WAIT").arg(wait_for).arg(millis(left));
        }
        let mut answers = link.send_all(&commands, deadline).await?.into_iter();
        if is_asking {
            checked(answers.next())?;
        }
        let answer = checked(answers.next())?;
        if wait_for == 0 {
            return Ok(answer);
        }
        // From here on it is written, whatever is wrong.
        match checked(answers.next()) {
            Ok(Value::Int(have)) if have >= wait_for as i64 => Ok(answer),
            Ok(Value::Int(have)) => Err(Fault::timed_out(format!(
                "written, but in time only {have} of {wait_for} replicas had it"
            ))),
            Ok(_) => Err(Fault::odd_answer().after_writing()),
            Err(fault) => Err(fault.after_writing()),
        }
    }

    /// Finds out about the nodes, where a fault says that they are not what they were.
    fn learn_from(&self, fault: &Fault) {
        if let Topology::Cluster(cluster) = &self.topology
            && !matches!(fault.cause, Cause::Ask(..) | Cause::TryAgain | Cause::NoScript)
        {
            cluster.learn_soon();
        }
    }

    /// Whom to ask next, after this went wrong; `None` if nobody.
    async fn next(
        &self,
        link: &Arc<Link>,
        key: &str,
        whose: Use,
        fault: &Fault,
        tried: &mut Tried,
    ) -> Result<Option<(Arc<Link>, bool)>, Fault> {
        // What a replica can't answer, the master can.
        let whose = if whose == Use::Read { Use::ReadLatest } else { whose };
        let again = || self.link(key, whose).map(|link| Some((link, false)));
        match (&fault.cause, &self.topology) {
            (Cause::Moved(host, port) | Cause::Ask(host, port), Topology::Cluster(cluster)) => {
                tried.hops += 1;
                if tried.hops > HOPS {
                    return Ok(None);
                }
                let is_asking = matches!(fault.cause, Cause::Ask(..));
                Ok(Some((cluster.at(link, host, *port, whose)?, is_asking)))
            }
            (Cause::Moved(..) | Cause::Ask(..), Topology::One(_)) => Err(Fault::is_of_a_cluster()),
            // Until the deadline: each key is at one of two nodes. Who reads asks for one after the other.
            (Cause::TryAgain, _) if whose == Use::Write => {
                tried.hops = 0;
                sleep(PAUSE).await;
                again()
            }
            // On a new connection: the link has forgotten this one.
            (Cause::ReadOnly, _) if !tried.again => {
                tried.again = true;
                again()
            }
            (Cause::Lost, _) if whose != Use::Write && !tried.again => {
                tried.again = true;
                again()
            }
            (Cause::NotSent | Cause::TimedOut | Cause::Kind(_), _) if link.is_replica() => again(),
            _ => Ok(None),
        }
    }
}

/// What was tried for one command.
#[derive(Default)]
struct Tried {
    /// How often it was sent on.
    hops: u32,
    /// Whether it was sent again to the same server.
    again: bool,
}
