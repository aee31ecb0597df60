//! Servers that die or hang under load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep_redis::RedisStore;
use tower_keep_tests::load::Load;
use xtask::servers::{Kind, Server};

use crate::{ask, open_with_timeout, server};

/// The slots of a cluster's second master.
pub(crate) const SECOND: std::ops::Range<usize> = 16_384 / 3..16_384 * 2 / 3;

const CLIENTS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(2);
/// How soon all clients are served again.
const RECOVERY: Duration = Duration::from_secs(1);

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_is_killed_under_load_and_comes_back() {
    let mut server = server();
    let store = open_with_timeout(|| RedisStore::builder(server.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (server, down, back) = in_background(move || {
        let down = killed..Instant::now();
        server.start_again().expect("it comes back");
        (server, down, Instant::now())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let late = load.stop().await.served_but_for(down, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the server was back");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_hangs_under_load_and_goes_on() {
    let server = server();
    let store = open_with_timeout(|| RedisStore::builder(server.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.suspend();
    let frozen = Instant::now();
    // A login that began before the freeze waits twice.
    tokio::time::sleep(TIMEOUT * 4).await;
    let until = Instant::now();
    server.resume();
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = load.stop().await.served_but_for(frozen..until, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the server went on");
}

/// How many confirmed writes were lost.
#[derive(Debug)]
struct Lost {
    writes: usize,
    /// How long before the server died the earliest of them was confirmed.
    earliest: Duration,
}

/// Makes a master fail under load by calling `harm`, which returns the time from which the master
/// does nothing. Its replica takes over.
async fn a_master_dies_under_load(
    mut cluster: Server,
    replicas: usize,
    longest_away: Duration,
    harm: impl FnOnce(&mut Server) -> Instant + Send + 'static,
) -> Lost {
    let port = cluster.port();
    let builder = || RedisStore::builder(cluster.url()).with_replicas_to_wait_for(replicas);
    let store = open_with_timeout(builder, TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let victim = &mut cluster.members()[0];
    let harmed = harm(victim);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let last = Instant::now() - Duration::from_secs(3);
    let outcome = load.stop().await;
    let mut lost = Lost { writes: 0, earliest: Duration::ZERO };
    let mut away: HashMap<bool, Duration> = HashMap::new();
    for (number, seen) in outcome.0.iter().enumerate() {
        let slot: usize =
            ask(port, &format!("CLUSTER KEYSLOT {{{number}}}")).parse().expect("a slot");
        let is_victims = SECOND.contains(&slot);
        for (at, step) in &seen.store_failures {
            let after = at.saturating_duration_since(harmed);
            // Users in other slots stay logged in. Logging in and out also needs the slots of the
            // login name and of the session's owner.
            assert!(is_victims || *step != "/secret", "client {number}, {step}, after {after:?}");
            let longest = away.entry(is_victims).or_default();
            *longest = (*longest).max(after);
        }
        if !is_victims {
            assert!(seen.slowest < TIMEOUT, "client {number}: {:?}", seen.slowest);
        }
        assert!(seen.store_failures.iter().all(|(at, _)| *at + TIMEOUT > harmed));
        assert!(seen.served.iter().any(|at| at.start > last), "client {number} is served again");
        for wrong in &seen.contradictions {
            // A write that was confirmed after the replica had taken over is not lost.
            assert!(wrong.confirmed < harmed + Duration::from_secs(1), "{wrong:?}");
            lost.writes += 1;
            lost.earliest = lost.earliest.max(harmed.saturating_duration_since(wrong.confirmed));
        }
    }
    let confirmed: usize = outcome.0.iter().map(|seen| seen.confirmed).sum();
    println!("last refused: {away:?}; of {confirmed} logins and logouts lost: {lost:?}");
    let longest = away.values().max().copied().unwrap_or_default();
    assert!(longest < longest_away, "the replica has taken over, and it was noticed");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_of_a_cluster_is_killed_under_load_and_its_replica_takes_over() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = a_master_dies_under_load(cluster, 0, Duration::from_secs(6), |victim| {
        victim.kill();
        Instant::now()
    })
    .await;
    assert!(lost.earliest < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waits_for_its_replica_is_not_lost_with_the_master() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    // When the killed server is back, there is a replica to wait for again.
    let lost = a_master_dies_under_load(cluster, 1, Duration::from_secs(11), |victim| {
        victim.kill();
        let killed = Instant::now();
        std::thread::sleep(Duration::from_secs(5));
        victim.start_again().expect("it comes back");
        killed
    })
    .await;
    assert_eq!(lost.writes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_of_a_cluster_hangs_under_load_and_its_replica_takes_over() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = a_master_dies_under_load(cluster, 0, Duration::from_secs(6), |victim| {
        victim.suspend();
        let frozen = Instant::now();
        std::thread::sleep(Duration::from_secs(5));
        victim.resume();
        frozen
    })
    .await;
    assert!(lost.earliest < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_master_of_sentinels_is_killed_under_load_and_its_replica_takes_over() {
    let mut sentinels = Server::start(Kind::RedisSentinel).expect("sentinels");
    let store = open_with_timeout(|| RedisStore::builder(sentinels.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // As if the machine of the master and of the first sentinel failed.
    sentinels.suspend();
    sentinels.members()[0].kill();
    let killed = Instant::now();
    // A sentinel that was delayed does nothing for half a minute.
    let (replica, other) = (sentinels.members()[1].port(), sentinels.members()[2].port());
    let patience = Instant::now() + Duration::from_secs(90);
    let question = "SENTINEL GET-MASTER-ADDR-BY-NAME keep";
    while !ask(other, question).contains(&replica.to_string()) {
        assert!(Instant::now() < patience, "the replica takes over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let last = Instant::now() - Duration::from_secs(3);
    let outcome = load.stop().await;
    let failures =
        outcome.0.iter().flat_map(|seen| seen.store_failures.iter().chain(&seen.stalled));
    let failures = failures.map(|(at, _)| *at);
    let away = failures.max().expect("it was noticed").saturating_duration_since(killed);
    let wrong: Vec<_> = outcome.0.iter().flat_map(|seen| &seen.contradictions).collect();
    println!("last refused after {away:?}; lost: {}", wrong.len());
    for wrong in wrong {
        assert!(wrong.confirmed < killed + Duration::from_secs(1), "{wrong:?}");
    }
    sentinels.resume();
    for seen in &outcome.0 {
        assert!(seen.served.iter().any(|at| at.start > last), "everybody is served again");
    }
}
