//! A site on several nodes: logins go on while nodes die, stand still, or lose their connections.

use std::time::Duration;

use tower_keep_testkit::client::Client;
use tower_keep_tests::Http;
use tower_keep_tests::nodes::{Known, LinkTrouble, NodeSettings, Nodes, Oracle, Proxy};

const NODE: &str = env!("CARGO_BIN_EXE_node");
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_outlives_its_node() {
    let mut nodes = Nodes::start(NODE, 3, NodeSettings::default(), 10).await;
    let mut oracle = Oracle::new(nodes.node(0).browser(), TIMEOUT);
    oracle.log_in("user1").await;
    oracle.check().await;
    assert_eq!(oracle.known, Known::LoggedIn("user1".to_owned()));
    nodes.kill(0);
    // The other nodes know the login, and so does the node that is started in place of the first.
    oracle.move_to(Http::to_each_of(nodes.running().map(|node| node.address).collect()));
    for _ in 0..4 {
        oracle.check().await;
    }
    nodes.start_node(0, -10).await;
    oracle.move_to(Http::to(nodes.node(0).address));
    oracle.check().await;
    // A logout on one node is a logout on all.
    oracle.log_out().await;
    oracle.move_to(Http::to_each_of(nodes.running().map(|node| node.address).collect()));
    for _ in 0..3 {
        oracle.check().await;
    }
    assert_eq!((oracle.known, oracle.failures), (Known::LoggedOut, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_stops_nobody_else() {
    let nodes = Nodes::start_processes(NODE, 2, NodeSettings::default(), 0).await;
    let mut frozen = Oracle::new(nodes.node(0).browser(), Duration::from_secs(2));
    let mut other = Oracle::new(nodes.node(1).browser(), TIMEOUT);
    frozen.log_in("user1").await;
    nodes.node(0).freeze();
    frozen.log_out().await;
    assert_eq!(frozen.failures, 1, "there was no response in time");
    other.log_in("user2").await;
    other.check().await;
    assert_eq!(other.failures, 0);
    nodes.node(0).thaw();
    // The logout took effect or did not. The oracle allows both, and then knows.
    frozen.check().await;
    assert!(!matches!(frozen.known, Known::Either(..)), "{:?}", frozen.known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_link_never_makes_a_wrong_response() {
    let nodes = Nodes::start(NODE, 1, NodeSettings::default(), 0).await;
    let proxy = Proxy::to(nodes.node(0).address).await;
    let browser = Client::new(Http::to(proxy.address));
    let mut oracle = Oracle::new(browser, Duration::from_secs(2));
    for trouble in [
        LinkTrouble::None,
        LinkTrouble::Delays(Duration::from_millis(100)),
        LinkTrouble::Drops,
        LinkTrouble::Cuts,
    ] {
        oracle.log_in("user1").await;
        proxy.set(trouble);
        oracle.check().await;
        oracle.log_out().await;
        oracle.check().await;
        proxy.set(LinkTrouble::None);
        oracle.check().await;
        let fails = matches!(trouble, LinkTrouble::Drops | LinkTrouble::Cuts);
        assert_eq!(oracle.failures > 0, fails, "{trouble:?}");
        oracle.failures = 0;
    }
}
