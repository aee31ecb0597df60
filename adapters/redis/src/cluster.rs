//! A cluster: which node has which slots.
//!
//! Each node has connections of its own, so a node that hangs or is down delays only calls for its
//! own slots. This module keeps track of the slots itself, because the cluster client of the redis
//! crate retries writes whose outcome is unknown, and serves no slot while it learns the nodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Client, ConnectionAddr, ConnectionInfo, Value};
use tokio::time::{Instant, sleep};
use tower_keep_core::StoreErrorKind;
use tracing::debug;

use crate::access::Access;
use crate::error::Error;
use crate::link::{Link, Links, Role, Settings, Target};

/// How long the nodes may take to report which slots they have.
const LEARN_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after the slots were learned, before they can be learned again.
const LEARN_PAUSE: Duration = Duration::from_millis(100);

/// At most this many nodes are asked concurrently which node has which slots.
const MAX_ASKED: usize = 3;

/// A node's host and port.
type Address = (String, u16);

/// The nodes of a cluster.
pub(crate) struct Cluster {
    /// The connection settings of the first node of the URL. All other nodes have the same
    /// settings, except for host and port.
    first_seed: ConnectionInfo,
    /// The nodes of the URL.
    seeds: Vec<Address>,
    settings: Settings,
    slot_map: RwLock<Arc<SlotMap>>,
    nodes: Mutex<HashMap<Address, Node>>,
    is_learning: AtomicBool,
    /// A counter, by which calls take turns among replicas, and among the nodes that are asked
    /// first.
    round_robin: AtomicUsize,
}

/// The connections to a node.
#[derive(Clone)]
struct Node {
    /// For a node that is a master.
    links: Links,
    /// For a node that is a replica.
    replica: Arc<Link>,
}

/// The ranges of slots, in ascending order.
type SlotMap = Vec<SlotRange>;

struct SlotRange {
    first: u16,
    last: u16,
    master: Links,
    replicas: Vec<Arc<Link>>,
}

/// A range of slots, as a node reports it.
struct ReportedRange {
    first: u16,
    last: u16,
    /// The master and its replicas, in this order.
    nodes: Vec<Address>,
}

impl Cluster {
    /// Creates a cluster that learns its nodes from these nodes. This call does not connect.
    pub(crate) fn new(seeds: Vec<ConnectionInfo>, settings: Settings) -> Result<Self, Error> {
        let addresses = seeds.iter().filter_map(|seed| address(seed.addr())).collect();
        let first_seed = seeds.into_iter().next();
        let first_seed = first_seed.ok_or_else(|| Error::unsupported("the URL names no node"))?;
        Ok(Self {
            first_seed,
            seeds: addresses,
            settings,
            slot_map: RwLock::default(),
            nodes: Mutex::default(),
            is_learning: AtomicBool::new(false),
            round_robin: AtomicUsize::new(0),
        })
    }

    /// Returns the connection for a command of this kind to a node that has this slot.
    pub(crate) fn link_for_slot(
        self: &Arc<Self>,
        slot: u16,
        access: Access,
    ) -> Result<Arc<Link>, Error> {
        let map = Arc::clone(&self.slot_map.read().unwrap_or_else(PoisonError::into_inner));
        let position = map.partition_point(|range| range.last < slot);
        let Some(range) = map.get(position).filter(|range| range.first <= slot) else {
            self.learn_slots_soon();
            let message = format!("no node of the cluster has the slot {slot}");
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        };
        if access == Access::Read && self.settings.reads_from_replicas && !range.replicas.is_empty()
        {
            let turn = self.round_robin.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(&range.replicas[turn % range.replicas.len()]));
        }
        Ok(Arc::clone(range.master.for_access(access)))
    }

    /// Returns the connection to the node at this address, which a reply of another node contained.
    /// If the host in the reply is empty, it is the host of the node that sent the reply.
    pub(crate) fn link_to(
        &self,
        named_by: &Link,
        host: &str,
        port: u16,
        access: Access,
    ) -> Result<Arc<Link>, Error> {
        let host =
            if host.is_empty() { named_by.host().unwrap_or_default() } else { host.to_owned() };
        Ok(Arc::clone(self.node(&(host, port))?.links.for_access(access)))
    }

    pub(crate) fn reads_from_replicas(&self) -> bool {
        self.settings.reads_from_replicas
    }

    /// Returns a connection to each master.
    pub(crate) fn masters(&self) -> Vec<Arc<Link>> {
        let map = Arc::clone(&self.slot_map.read().unwrap_or_else(PoisonError::into_inner));
        let mut masters: Vec<Arc<Link>> = Vec::new();
        for range in map.iter() {
            let link = &range.master.master;
            if !masters.iter().any(|known| Arc::ptr_eq(known, link)) {
                masters.push(Arc::clone(link));
            }
        }
        masters
    }

    /// Learns the slots in the background, unless a task is doing so or has just done so.
    pub(crate) fn learn_slots_soon(self: &Arc<Self>) {
        if self.is_learning.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = LearnTask { cluster: Arc::clone(self) };
        tokio::spawn(async move {
            let deadline = Instant::now() + LEARN_TIMEOUT.min(task.cluster.settings.timeout);
            if let Err(error) = task.cluster.learn_slots(deadline).await {
                debug!(?error, "no node of the cluster has reported which node has which slots");
            }
            sleep(LEARN_PAUSE).await;
        });
    }

    /// Asks the known nodes, and then the nodes of the URL, until a node reports which node has
    /// which slots.
    pub(crate) async fn learn_slots(&self, deadline: Instant) -> Result<(), Error> {
        // Nodes that could be reached last time come first. Each call begins with another of them.
        let (mut candidates, mut failing): (Vec<_>, Vec<_>) = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            let known = nodes.iter().map(|(address, node)| (address.clone(), &node.links.master));
            let (failing, reachable): (Vec<_>, Vec<_>) =
                known.partition(|(_, link)| link.is_failing());
            let addresses = |all: Vec<(Address, _)>| all.into_iter().map(|(address, _)| address);
            (addresses(reachable).collect(), addresses(failing).collect())
        };
        let turn = self.round_robin.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
        candidates.rotate_left(turn);
        candidates.append(&mut failing);
        candidates.extend(self.seeds.iter().cloned());
        let mut candidates = candidates.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last_error = Error::new(StoreErrorKind::Unavailable, "the cluster has no nodes");
        loop {
            while asked.len() < MAX_ASKED {
                let Some(address) = candidates.next() else { break };
                asked.push(self.ask_for_slots(address, deadline));
            }
            match asked.next().await {
                Some(Ok(reported)) => return self.update_map(reported),
                Some(Err(error)) => last_error = error,
                None => return Err(last_error),
            }
        }
    }

    async fn ask_for_slots(
        &self,
        address: Address,
        deadline: Instant,
    ) -> Result<Vec<ReportedRange>, Error> {
        let link = self.node(&address)?.links.master;
        let reply = link.send(redis::cmd("CLUSTER").arg("SLOTS"), deadline).await?;
        let reported = read_slots(&reply, &address.0).ok_or_else(Error::unexpected_reply)?;
        if reported.is_empty() {
            let message = "a node of the cluster has reported no slots";
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        }
        Ok(reported)
    }

    /// Replaces the map by the reported ranges, and forgets nodes that are not in it.
    fn update_map(&self, reported: Vec<ReportedRange>) -> Result<(), Error> {
        let mut map = SlotMap::new();
        for ReportedRange { first, last, nodes } in &reported {
            let Some((master, replicas)) = nodes.split_first() else { continue };
            let replica = |address| self.node(address).map(|node| node.replica);
            map.push(SlotRange {
                first: *first,
                last: *last,
                master: self.node(master)?.links,
                replicas: replicas.iter().map(replica).collect::<Result<_, _>>()?,
            });
        }
        map.sort_by_key(|range| range.first);
        *self.slot_map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|address, _| reported.iter().any(|range| range.nodes.contains(address)));
        Ok(())
    }

    /// Returns the node at this address. Its connections are opened when they are first needed.
    fn node(&self, address: &Address) -> Result<Node, Error> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(address) {
            return Ok(node.clone());
        }
        let (host, port) = (address.0.clone(), address.1);
        let addr = match self.first_seed.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let info = self.first_seed.clone().set_addr(addr);
        let client =
            Client::open(info).map_err(|error| Error::while_connecting("a node", &error))?;
        let link = |role| {
            let target = Target::Server(client.clone());
            Arc::new(Link::new(target, role, &self.settings))
        };
        let master = link(Role::Master);
        let writes = match self.settings.has_write_connections {
            true => link(Role::Master),
            false => Arc::clone(&master),
        };
        let links = Links { master, writes, replica: None };
        let node = Node { links, replica: link(Role::ClusterReplica) };
        nodes.insert(address.clone(), node.clone());
        Ok(node)
    }
}

/// The task that learns the slots. When the task ends for any reason, another one can begin.
struct LearnTask {
    cluster: Arc<Cluster>,
}

impl Drop for LearnTask {
    fn drop(&mut self) {
        self.cluster.is_learning.store(false, Ordering::Release);
    }
}

fn address(addr: &ConnectionAddr) -> Option<Address> {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// Parses the reply to `CLUSTER SLOTS`. A node that does not know its own host omits the host.
/// `asked_host` is the host of the node that was asked, and takes the place of an omitted host.
fn read_slots(reply: &Value, asked_host: &str) -> Option<Vec<ReportedRange>> {
    let Value::Array(ranges) = reply else { return None };
    ranges.iter().map(|range| read_range(range, asked_host)).collect()
}

fn read_range(range: &Value, asked_host: &str) -> Option<ReportedRange> {
    let Value::Array(parts) = range else { return None };
    let (bounds, nodes) = parts.split_at_checked(2)?;
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok(),
        _ => None,
    };
    let nodes = nodes.iter().map(|node| read_node(node, asked_host)).collect::<Option<_>>()?;
    Some(ReportedRange { first: slot(&bounds[0])?, last: slot(&bounds[1])?, nodes })
}

fn read_node(node: &Value, asked_host: &str) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let host = match parts.first()? {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => {
            String::from_utf8(host.clone()).ok()?
        }
        Value::SimpleString(host) if !host.is_empty() => host.clone(),
        _ => asked_host.to_owned(),
    };
    match parts.get(1)? {
        Value::Int(port) => Some((host, u16::try_from(*port).ok()?)),
        _ => None,
    }
}
