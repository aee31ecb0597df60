//! Groups of Redis servers: a server with a replica and sentinels, and a cluster.

use std::thread::sleep;
use std::time::Instant;

use super::kind::Kind;
use super::redis::{DEAD_AFTER_MILLIS, MASTER, call};
use super::server::Server;
use super::wait::{POLL_INTERVAL, TIMEOUT};

/// The number of sentinels.
const SENTINELS: usize = 3;

/// The number of a cluster's masters.
const MASTERS: usize = 3;
/// The number of a cluster's nodes, which are the masters and one replica for each master.
const NODES: usize = 6;
/// The number of a cluster's hash slots.
const SLOTS: usize = 16_384;

/// The time of silence for tests that kill no server. On a busy machine, a live server is silent
/// at times.
const LONG_DEAD_AFTER_MILLIS: &str = "20000";

/// Starts a Redis server with additional settings.
pub(super) fn start_redis(arguments: &[&str]) -> Result<Server, String> {
    let mut server = Server::prepare(Kind::Redis)?;
    server.add_arguments(arguments);
    server.start_and_wait()?;
    Ok(server)
}

/// Starts a master, its replica and the sentinels, and waits until they know each other.
pub(super) fn start_sentinels() -> Result<Server, String> {
    let master = start_redis(&[])?;
    let port = master.port().to_string();
    let replica = start_redis(&["--replicaof", "127.0.0.1", &port])?;
    wait_until("the replica is up to date", || {
        Ok(call(master.port(), "INFO replication")?.contains("state=online"))
    })?;
    let mut sentinels = Vec::new();
    for _ in 0..SENTINELS {
        let mut sentinel = Server::prepare(Kind::RedisSentinel)?;
        let text = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\nsentinel auth-pass {MASTER} secret\n\
             sentinel down-after-milliseconds {MASTER} {DEAD_AFTER_MILLIS}\n\
             sentinel failover-timeout {MASTER} 5000\n"
        );
        sentinel.instance.write("sentinel.conf", &text)?;
        sentinel.instance.make_writable("sentinel.conf")?;
        sentinel.start_and_wait()?;
        sentinels.push(sentinel);
    }
    for sentinel in &sentinels {
        let check_quorum = format!("SENTINEL CKQUORUM {MASTER}");
        wait_until("the sentinels know each other", || {
            let list_others = format!("SENTINEL SENTINELS {MASTER}");
            let known = call(sentinel.port(), &list_others)?.matches("runid").count();
            let replicas = call(sentinel.port(), &format!("SENTINEL REPLICAS {MASTER}"))?;
            let is_quorum = call(sentinel.port(), &check_quorum)?.contains("OK");
            Ok(known + 1 == SENTINELS && replicas.contains("runid") && is_quorum)
        })?;
    }
    let mut first = sentinels.remove(0);
    first.members = [master, replica].into_iter().chain(sentinels).collect();
    Ok(first)
}

/// Starts the nodes of a cluster, and waits until the cluster is complete.
pub(super) fn start_cluster() -> Result<Server, String> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let mut node = Server::prepare(Kind::RedisCluster)?;
        node.start_and_wait()?;
        nodes.push(node);
    }
    let ports: Vec<u16> = nodes.iter().map(|node| node.port()).collect();
    for (number, port) in ports.iter().enumerate() {
        call(*port, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
        if number < MASTERS {
            let (first, end) = (number * SLOTS / MASTERS, (number + 1) * SLOTS / MASTERS);
            call(*port, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1))?;
        }
        if number > 0 {
            call(ports[0], &format!("CLUSTER MEET 127.0.0.1 {port}"))?;
        }
    }
    for port in &ports {
        wait_until("the nodes know each other", || {
            let nodes = call(*port, "CLUSTER NODES")?;
            let known = nodes.lines().filter(|line| line.contains(" connected")).count();
            Ok(known == NODES && !nodes.contains("handshake"))
        })?;
    }
    for number in MASTERS..NODES {
        let master = call(ports[number - MASTERS], "CLUSTER MYID")?;
        wait_until("the replicas know their masters", || {
            call(ports[number], &format!("CLUSTER REPLICATE {}", master.trim()))
                .map(|reply| reply.contains("OK"))
        })?;
    }
    for port in &ports {
        wait_until("the cluster is complete", || {
            let is_ok = call(*port, "CLUSTER INFO")?.contains("cluster_state:ok");
            let nodes = call(*port, "CLUSTER SLOTS")?.matches("127.0.0.1").count();
            let replication = call(*port, "INFO replication")?;
            let is_up_to_date = replication.contains("state=online")
                || replication.contains("master_link_status:up");
            Ok(is_ok && nodes == NODES && is_up_to_date)
        })?;
    }
    let mut first = nodes.remove(0);
    first.members = nodes;
    Ok(first)
}

fn wait_until(
    condition: &str,
    mut is_met: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let result = is_met();
        if result == Ok(true) {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("Redis: gave up waiting until {condition}: {result:?}"));
        }
        sleep(POLL_INTERVAL);
    }
}

impl Server {
    /// Makes sentinels and the nodes of a cluster wait longer before they consider a silent server
    /// dead, for tests that kill no server. Does nothing for servers of other kinds.
    ///
    /// # Errors
    ///
    /// Returns an error if a server does not reply, or rejects the setting.
    pub fn raise_failover_timeouts(&self) -> Result<(), String> {
        for server in std::iter::once(self).chain(&self.members) {
            let command = match server.kind() {
                Kind::RedisSentinel => {
                    format!(
                        "SENTINEL SET {MASTER} down-after-milliseconds {LONG_DEAD_AFTER_MILLIS}"
                    )
                }
                Kind::RedisCluster => {
                    format!("CONFIG SET cluster-node-timeout {LONG_DEAD_AFTER_MILLIS}")
                }
                _ => continue,
            };
            let reply = call(server.port(), &command)?;
            if !reply.contains("OK") {
                return Err(format!("{command}: {reply}"));
            }
        }
        Ok(())
    }
}
