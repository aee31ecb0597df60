//! Starting nodes, and doing harm to them.

use std::net::SocketAddr;

use tower_keep_testkit::TestClock;

use super::site::{NodeSettings, node_site};
use crate::store::StorePlace;
use crate::{Browser, Http, Process, Serving, WatchedStore, serve};

/// One node of a site. Dropping this kills the node.
#[derive(Debug)]
pub struct Node {
    /// The address where the node listens.
    pub address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Process(Process),
    InThisProcess { _serving: Serving },
}

impl Node {
    /// Returns a client for this node alone, with a cookie jar.
    pub fn browser(&self) -> Browser {
        Browser::new(Http::to(self.address))
    }

    /// Moves the node's clock, back if `seconds` is negative.
    pub async fn move_clock(&self, seconds: i64) {
        let response = self.browser().post(&format!("/clock?seconds={seconds}"), &[]).await;
        assert_eq!(response.status, 200);
    }

    /// Stops the node without letting it do anything, as if its machine stood still.
    pub fn freeze(&self) {
        self.process().signal("-STOP");
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) {
        self.process().signal("-CONT");
    }

    fn process(&self) -> &Process {
        match &self.running {
            Running::Process(process) => process,
            Running::InThisProcess { .. } => panic!("the node is in the process of the test"),
        }
    }
}

/// The nodes of a site. Dropping this kills all of them.
#[derive(Debug)]
pub struct Nodes {
    program: String,
    place: StorePlace,
    settings: NodeSettings,
    /// The store of nodes that are in the process of the test.
    store: Option<WatchedStore>,
    nodes: Vec<Option<Node>>,
}

impl Nodes {
    /// Starts nodes with these settings, on a new store of the kind that `KEEP_STORE` names.
    /// `program` is the path of the program `node`: `env!("CARGO_BIN_EXE_node")`.
    ///
    /// The clock of each node is `skew` seconds ahead of the clock of the node before it.
    pub async fn start(program: &str, count: usize, settings: NodeSettings, skew: i64) -> Self {
        Self::start_at(StorePlace::new(), program, count, settings, skew).await
    }

    /// Does the same as [`start`](Self::start), with nodes that can be frozen, because they are
    /// processes. If `KEEP_STORE` names the store in memory, they share a file of SQLite.
    pub async fn start_processes(
        program: &str,
        count: usize,
        settings: NodeSettings,
        skew: i64,
    ) -> Self {
        Self::start_at(StorePlace::of_processes(), program, count, settings, skew).await
    }

    async fn start_at(
        place: StorePlace,
        program: &str,
        count: usize,
        settings: NodeSettings,
        skew: i64,
    ) -> Self {
        let store = if place.is_memory() { Some(place.open().await) } else { None };
        let mut nodes =
            Self { program: program.to_owned(), place, settings, store, nodes: Vec::new() };
        for index in 0..count {
            nodes.nodes.push(None);
            nodes.start_node(index, skew * i64::try_from(index).expect("a small number")).await;
        }
        nodes
    }

    /// Starts a node that does not run, with a clock that is `clock_offset` seconds ahead.
    pub async fn start_node(&mut self, index: usize, clock_offset: i64) {
        let settings = NodeSettings { clock_offset, ..self.settings.clone() };
        let node = match &self.store {
            Some(store) => {
                let site = node_site(store.clone(), TestClock::new(), &settings).await;
                let serving = serve(site).await;
                Node {
                    address: serving.address,
                    running: Running::InThisProcess { _serving: serving },
                }
            }
            None => {
                let arguments = [self.place.arguments(), settings.arguments()].concat();
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let program = self.program.clone();
                // The program prints its address when it is ready.
                let started =
                    tokio::task::block_in_place(|| Process::start(&program, &arguments, 1));
                Node { address: started.address, running: Running::Process(started) }
            }
        };
        self.nodes[index] = Some(node);
    }

    /// Kills a node, as if its machine lost power.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
    }

    /// Returns the nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Returns the node with this index, which must run.
    pub fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("the node runs")
    }

    /// Returns a client that sends each request to the next node, with one cookie jar.
    pub fn browser(&self) -> Browser {
        Browser::new(Http::to_each_of(self.running().map(|node| node.address).collect()))
    }

    /// Opens the store of the nodes, to look at it.
    pub async fn open_store(&self) -> WatchedStore {
        match &self.store {
            Some(store) => store.clone(),
            None => self.place.open().await,
        }
    }

    /// Moves the clocks of all running nodes.
    pub async fn move_clocks(&self, seconds: i64) {
        for node in self.running() {
            node.move_clock(seconds).await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.nodes.clear();
        self.place.remove_file();
    }
}
