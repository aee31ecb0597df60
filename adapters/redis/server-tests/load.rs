//! Servers that are killed or hang under load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep_redis::RedisStore;
use tower_keep_tests::load::Load;
use xtask::servers::{Kind, Server};

use crate::{open_with_timeout, run_command, start_server};

/// The slots of a cluster's second master.
pub(crate) const SLOTS_OF_SECOND_MASTER: std::ops::Range<usize> = 16_384 / 3..16_384 * 2 / 3;

const CLIENTS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(2);
/// All clients have to be served this soon after the server is back.
const MAX_RECOVERY: Duration = Duration::from_secs(1);

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_soon_after_a_killed_server_restarts() {
    let mut server = start_server();
    let store = open_with_timeout(|| RedisStore::builder(server.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (server, down, back) = in_background(move || {
        let down = killed..Instant::now();
        server.start_and_wait().expect("a restart");
        (server, down, Instant::now())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let late = load.stop().await.check_outage(down, back);
    assert!(late <= MAX_RECOVERY, "the last request failed {late:?} after the server was back");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_soon_after_a_hanging_server_resumes() {
    let server = start_server();
    let store = open_with_timeout(|| RedisStore::builder(server.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.suspend();
    let frozen = Instant::now();
    // A login that began before the freeze waits for two time-outs.
    tokio::time::sleep(TIMEOUT * 4).await;
    let until = Instant::now();
    server.resume();
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = load.stop().await.check_outage(frozen..until, back);
    assert!(late <= MAX_RECOVERY, "the last request failed {late:?} after the server resumed");
}

/// The acknowledged writes that a failover has lost.
#[derive(Debug)]
struct LostWrites {
    count: usize,
    /// How long before the failure of the server the earliest of these writes was acknowledged.
    earliest_before_failure: Duration,
}

/// Makes the second master of a cluster fail under load, and checks that its replica takes over and
/// that requests fail for less than `max_outage`. `break_master` makes the master fail, and returns
/// the time from which the master does nothing.
async fn check_failover_under_load(
    mut cluster: Server,
    replicas: usize,
    max_outage: Duration,
    break_master: impl FnOnce(&mut Server) -> Instant + Send + 'static,
) -> LostWrites {
    let port = cluster.port();
    let builder = || RedisStore::builder(cluster.url()).with_replicas_to_wait_for(replicas);
    let store = open_with_timeout(builder, TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second_master = &mut cluster.members()[0];
    let failed_at = break_master(second_master);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let near_the_end = Instant::now() - Duration::from_secs(3);
    let outcome = load.stop().await;
    let mut lost = LostWrites { count: 0, earliest_before_failure: Duration::ZERO };
    // The time from `failed_at` to the last failed request: of clients in affected slots (`true`),
    // and of clients in other slots (`false`).
    let mut last_failures: HashMap<bool, Duration> = HashMap::new();
    for (number, log) in outcome.logs.iter().enumerate() {
        let slot: usize =
            run_command(port, &format!("CLUSTER KEYSLOT {{{number}}}")).parse().expect("a slot");
        let is_affected = SLOTS_OF_SECOND_MASTER.contains(&slot);
        for (at, page) in &log.store_failures {
            let after = at.saturating_duration_since(failed_at);
            // Users in other slots stay logged in. Logging in and out also needs the slots of the
            // login name and of the session's owner.
            assert!(is_affected || *page != "/secret", "client {number}, {page}, after {after:?}");
            let last_failure = last_failures.entry(is_affected).or_default();
            *last_failure = (*last_failure).max(after);
        }
        if !is_affected {
            assert!(log.slowest < TIMEOUT, "client {number}: {:?}", log.slowest);
        }
        assert!(log.store_failures.iter().all(|(at, _)| *at + TIMEOUT > failed_at));
        assert!(
            log.served.iter().any(|at| at.start > near_the_end),
            "client {number} is served again"
        );
        for contradiction in &log.contradictions {
            // A write that was acknowledged after the replica had taken over is not lost.
            assert!(
                contradiction.acknowledged_at < failed_at + Duration::from_secs(1),
                "{contradiction:?}"
            );
            lost.count += 1;
            lost.earliest_before_failure = lost
                .earliest_before_failure
                .max(failed_at.saturating_duration_since(contradiction.acknowledged_at));
        }
    }
    let acknowledged: usize = outcome.logs.iter().map(|log| log.acknowledged).sum();
    println!(
        "last failures: {last_failures:?}; lost of {acknowledged} logins and logouts: {lost:?}"
    );
    let outage = last_failures.values().max().copied().unwrap_or_default();
    assert!(outage < max_outage, "the replica has taken over, and the store uses it");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_takes_over_under_load_when_a_master_of_the_cluster_is_killed() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = check_failover_under_load(cluster, 0, Duration::from_secs(6), |master| {
        master.kill();
        Instant::now()
    })
    .await;
    assert!(lost.earliest_before_failure < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_waited_for_a_replica_is_not_lost_with_the_master() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    // When the killed server is back, there is a replica to wait for again.
    let lost = check_failover_under_load(cluster, 1, Duration::from_secs(11), |master| {
        master.kill();
        let killed = Instant::now();
        std::thread::sleep(Duration::from_secs(5));
        master.start_and_wait().expect("a restart");
        killed
    })
    .await;
    assert_eq!(lost.count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_takes_over_under_load_when_a_master_of_the_cluster_hangs() {
    let cluster = Server::start(Kind::RedisCluster).expect("a cluster");
    let lost = check_failover_under_load(cluster, 0, Duration::from_secs(6), |master| {
        master.suspend();
        let frozen = Instant::now();
        std::thread::sleep(Duration::from_secs(5));
        master.resume();
        frozen
    })
    .await;
    assert!(lost.earliest_before_failure < Duration::from_secs(1), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_takes_over_under_load_when_the_master_of_the_sentinels_is_killed() {
    let mut sentinels = Server::start(Kind::RedisSentinel).expect("sentinels");
    let store = open_with_timeout(|| RedisStore::builder(sentinels.url()), TIMEOUT).await;
    let load = Load::start(Arc::new(store), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // The machine of the master and of the first sentinel fails.
    sentinels.suspend();
    sentinels.members()[0].kill();
    let killed = Instant::now();
    // A sentinel whose own process was delayed pauses for half a minute, so a failover may take
    // longer.
    let (replica, second_sentinel) = (sentinels.members()[1].port(), sentinels.members()[2].port());
    let give_up_at = Instant::now() + Duration::from_secs(90);
    let command = "SENTINEL GET-MASTER-ADDR-BY-NAME keep";
    while !run_command(second_sentinel, command).contains(&replica.to_string()) {
        assert!(Instant::now() < give_up_at, "the replica takes over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let near_the_end = Instant::now() - Duration::from_secs(3);
    let outcome = load.stop().await;
    let failures =
        outcome.logs.iter().flat_map(|log| log.store_failures.iter().chain(&log.stall_failures));
    let failures = failures.map(|(at, _)| *at);
    let last_failure = failures.max().expect("a failed request").saturating_duration_since(killed);
    let contradictions: Vec<_> = outcome.logs.iter().flat_map(|log| &log.contradictions).collect();
    println!("last failure after {last_failure:?}; lost: {}", contradictions.len());
    for contradiction in contradictions {
        assert!(
            contradiction.acknowledged_at < killed + Duration::from_secs(1),
            "{contradiction:?}"
        );
    }
    sentinels.resume();
    for log in &outcome.logs {
        assert!(
            log.served.iter().any(|at| at.start > near_the_end),
            "every client is served again"
        );
    }
}
