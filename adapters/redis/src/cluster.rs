//! A cluster: which node has which slots.
//!
//! Each node has connections of its own, so that a node that hangs or is down delays only calls for
//! its own slots. The redis crate's own cluster client retries writes whose outcome is not known,
//! and serves no slot while it learns the nodes. That is why the slots are kept track of here.

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

use crate::error::Error;
use crate::link::{Kind, Link, Target};
use crate::servers::{Access, Links, Settings};

/// How long the nodes may take to report which slots they have.
const TO_LEARN: Duration = Duration::from_secs(1);

/// How long to wait before the nodes are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How many nodes are asked concurrently.
const ASKED_AT_ONCE: usize = 3;

/// A node's host and port.
type Address = (String, u16);

/// The nodes of a cluster.
pub(crate) struct Cluster {
    /// The connection settings of the first node. All other nodes have the same, except for host
    /// and port.
    model: ConnectionInfo,
    seeds: Vec<Address>,
    settings: Settings,
    map: RwLock<Arc<Map>>,
    nodes: Mutex<HashMap<Address, Node>>,
    is_learning: AtomicBool,
    next_turn: AtomicUsize,
}

#[derive(Clone)]
struct Node {
    links: Links,
    replica: Arc<Link>,
}

/// The ranges of slots, in ascending order.
type Map = Vec<Range>;

struct Range {
    first: u16,
    last: u16,
    master: Links,
    replicas: Vec<Arc<Link>>,
}

/// A range of slots, and the nodes that have it according to the node that was asked.
struct ReportedRange {
    first: u16,
    last: u16,
    nodes: Vec<Address>,
}

impl Cluster {
    /// Creates a cluster with these seed nodes. None of them is contacted yet.
    pub(crate) fn new(seeds: Vec<ConnectionInfo>, settings: Settings) -> Result<Self, Error> {
        let addresses = seeds.iter().filter_map(|seed| address(seed.addr())).collect();
        let model = seeds.into_iter().next();
        let model = model.ok_or_else(|| Error::unsupported("the URL names no node"))?;
        Ok(Self {
            model,
            seeds: addresses,
            settings,
            map: RwLock::default(),
            nodes: Mutex::default(),
            is_learning: AtomicBool::new(false),
            next_turn: AtomicUsize::new(0),
        })
    }

    /// Returns the connection to the node that has this slot.
    pub(crate) fn link(self: &Arc<Self>, slot: u16, access: Access) -> Result<Arc<Link>, Error> {
        let map = Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner));
        let after = map.partition_point(|range| range.last < slot);
        let Some(range) = map.get(after).filter(|range| range.first <= slot) else {
            self.learn_soon();
            let message = format!("no node of the cluster has the slot {slot}");
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        };
        if access == Access::Read && self.settings.reads_from_replicas && !range.replicas.is_empty()
        {
            let turn = self.next_turn.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(&range.replicas[turn % range.replicas.len()]));
        }
        Ok(Arc::clone(range.master.of(access)))
    }

    /// Returns the connection to the node at this address. An empty host is the host of the node
    /// that named the address.
    pub(crate) fn at(
        &self,
        reported_by: &Link,
        host: &str,
        port: u16,
        access: Access,
    ) -> Result<Arc<Link>, Error> {
        let host =
            if host.is_empty() { reported_by.host().unwrap_or_default() } else { host.to_owned() };
        Ok(Arc::clone(self.node(&(host, port))?.links.of(access)))
    }

    pub(crate) fn reads_from_replicas(&self) -> bool {
        self.settings.reads_from_replicas
    }

    /// Returns a connection to each master.
    pub(crate) fn masters(&self) -> Vec<Arc<Link>> {
        let map = Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner));
        let mut masters: Vec<Arc<Link>> = Vec::new();
        for range in map.iter() {
            let link = &range.master.master;
            if !masters.iter().any(|known| Arc::ptr_eq(known, link)) {
                masters.push(Arc::clone(link));
            }
        }
        masters
    }

    /// Learns the slots in the background, unless that is in progress or has just been done.
    pub(crate) fn learn_soon(self: &Arc<Self>) {
        if self.is_learning.swap(true, Ordering::AcqRel) {
            return;
        }
        let learning = Learning(Arc::clone(self));
        tokio::spawn(async move {
            let deadline = Instant::now() + TO_LEARN.min(learning.0.settings.timeout);
            if let Err(error) = learning.0.learn(deadline).await {
                debug!(?error, "no node of the cluster says which slots it has");
            }
            sleep(PAUSE).await;
        });
    }

    /// Asks the known nodes, and then the seed nodes, until one reports which node has which slots.
    pub(crate) async fn learn(&self, deadline: Instant) -> Result<(), Error> {
        // Nodes that can be reached come first, beginning with a different one each time.
        let (mut candidates, mut failing): (Vec<_>, Vec<_>) = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            let known = nodes.iter().map(|(address, node)| (address.clone(), &node.links.master));
            let (failing, good): (Vec<_>, Vec<_>) = known.partition(|(_, link)| link.is_failing());
            let addresses = |all: Vec<(Address, _)>| all.into_iter().map(|(address, _)| address);
            (addresses(good).collect(), addresses(failing).collect())
        };
        let turn = self.next_turn.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
        candidates.rotate_left(turn);
        candidates.append(&mut failing);
        candidates.extend(self.seeds.iter().cloned());
        let mut candidates = candidates.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = Error::new(StoreErrorKind::Unavailable, "the cluster has no nodes");
        loop {
            while asked.len() < ASKED_AT_ONCE {
                let Some(address) = candidates.next() else { break };
                asked.push(self.ask_for_slots(address, deadline));
            }
            match asked.next().await {
                Some(Ok(reported)) => return self.update_map(reported),
                Some(Err(error)) => last = error,
                None => return Err(last),
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
            let message = "a node of the cluster knows of no slots";
            return Err(Error::new(StoreErrorKind::Unavailable, message));
        }
        Ok(reported)
    }

    fn update_map(&self, reported: Vec<ReportedRange>) -> Result<(), Error> {
        let mut map = Map::new();
        for ReportedRange { first, last, nodes } in &reported {
            let Some((master, replicas)) = nodes.split_first() else { continue };
            let replica = |address| self.node(address).map(|node| node.replica);
            map.push(Range {
                first: *first,
                last: *last,
                master: self.node(master)?.links,
                replicas: replicas.iter().map(replica).collect::<Result<_, _>>()?,
            });
        }
        map.sort_by_key(|range| range.first);
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
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
        let place = match self.model.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let info = self.model.clone().set_addr(place);
        let client =
            Client::open(info).map_err(|error| Error::while_connecting("a node", &error))?;
        let link = |kind| {
            let target = Target::Server(client.clone());
            Arc::new(Link::new(target, kind, &self.settings))
        };
        let master = link(Kind::Master);
        let writes = match self.settings.splits_writes {
            true => link(Kind::Master),
            false => Arc::clone(&master),
        };
        let links = Links { master, writes, replica: None };
        let node = Node { links, replica: link(Kind::ClusterReplica) };
        nodes.insert(address.clone(), node.clone());
        Ok(node)
    }
}

/// A task that learns the slots. However it ends, the next one may start.
struct Learning(Arc<Cluster>);

impl Drop for Learning {
    fn drop(&mut self) {
        self.0.is_learning.store(false, Ordering::Release);
    }
}

fn address(place: &ConnectionAddr) -> Option<Address> {
    match place {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// Parses the reply to `CLUSTER SLOTS`. A node that does not know its own host omits it.
fn read_slots(reply: &Value, asked: &str) -> Option<Vec<ReportedRange>> {
    let Value::Array(ranges) = reply else { return None };
    ranges.iter().map(|range| read_range(range, asked)).collect()
}

fn read_range(range: &Value, asked: &str) -> Option<ReportedRange> {
    let Value::Array(parts) = range else { return None };
    let (bounds, nodes) = parts.split_at_checked(2)?;
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok(),
        _ => None,
    };
    let nodes = nodes.iter().map(|node| read_node(node, asked)).collect::<Option<_>>()?;
    Some(ReportedRange { first: slot(&bounds[0])?, last: slot(&bounds[1])?, nodes })
}

fn read_node(node: &Value, asked: &str) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let host = match parts.first()? {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => {
            String::from_utf8(host.clone()).ok()?
        }
        Value::SimpleString(host) if !host.is_empty() => host.clone(),
        _ => asked.to_owned(),
    };
    match parts.get(1)? {
        Value::Int(port) => Some((host, u16::try_from(*port).ok()?)),
        _ => None,
    }
}
