//! Redis: a single server, a server with a replica and sentinels, and a cluster.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Kind, POLL_INTERVAL, Server, TIMEOUT};

/// The sentinels' name for their master.
const MASTER: &str = "keep";
/// The number of sentinels.
const SENTINELS: usize = 3;

/// The number of a cluster's masters.
const MASTERS: usize = 3;
/// The number of a cluster's nodes, which are the masters and one replica for each master.
const NODES: usize = 6;
/// The number of a cluster's hash slots.
const SLOTS: usize = 16_384;

/// The other servers consider a server dead after this many milliseconds of silence.
const DEAD_AFTER_MILLIS: &str = "1500";
/// The time of silence for tests that kill no server. On a busy machine, a live server is silent
/// at times.
const LONG_DEAD_AFTER_MILLIS: &str = "20000";

pub(super) fn url(server: &Server) -> String {
    let servers = std::iter::once(server).chain(&server.members);
    let addresses = |kind| {
        let of_kind = servers.clone().filter(move |server: &&Server| server.kind == kind);
        of_kind.map(|server| format!("127.0.0.1:{}", server.port)).collect::<Vec<_>>().join(",")
    };
    match server.kind {
        Kind::RedisSentinel => {
            format!("redis+sentinel://:secret@{}/{MASTER}", addresses(Kind::RedisSentinel))
        }
        // With two of the nodes, a client finds the other nodes.
        Kind::RedisCluster if !server.members.is_empty() => {
            let all = addresses(Kind::RedisCluster);
            let two: Vec<_> = all.split(',').take(2).collect();
            format!("redis+cluster://:secret@{}", two.join(","))
        }
        _ => format!("redis://:secret@127.0.0.1:{}", server.port),
    }
}

/// Returns the server's arguments. With them, the server writes its data to a file before it
/// replies, so a crash of its process loses nothing.
pub(super) fn arguments(server: &Server) -> Vec<String> {
    let (port, directory) = (server.port.to_string(), server.directory.display().to_string());
    let mut arguments = Vec::new();
    if server.kind == Kind::RedisSentinel {
        arguments.push(format!("{directory}/sentinel.conf"));
        arguments.push("--sentinel".to_owned());
    }
    let settings = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--dir", &directory],
        ["--maxclients", "1000"],
    ];
    arguments.extend(settings.as_flattened().iter().map(|word| (*word).to_owned()));
    if server.kind != Kind::RedisSentinel {
        let socket = format!("{directory}/socket");
        let settings = [
            ["--unixsocket", &socket],
            ["--requirepass", "secret"],
            ["--masterauth", "secret"],
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", "no"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        arguments.extend(settings.as_flattened().iter().map(|word| (*word).to_owned()));
    }
    if server.kind == Kind::RedisCluster {
        let settings = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", DEAD_AFTER_MILLIS],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-replica-validity-factor", "0"],
        ];
        arguments.extend(settings.as_flattened().iter().map(|word| (*word).to_owned()));
    }
    arguments
}

/// Starts a master, its replica and the sentinels, and waits until they know each other.
pub(super) fn start_sentinels() -> Result<Server, String> {
    let master = Server::start_redis(&[])?;
    let port = master.port.to_string();
    let replica = Server::start_redis(&["--replicaof", "127.0.0.1", &port])?;
    wait_until("the replica is up to date", || {
        Ok(call(master.port, "INFO replication")?.contains("state=online"))
    })?;
    let mut sentinels = Vec::new();
    for _ in 0..SENTINELS {
        let mut sentinel = Server::prepare(Kind::RedisSentinel)?;
        let text = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\nsentinel auth-pass {MASTER} secret\n\
             sentinel down-after-milliseconds {MASTER} {DEAD_AFTER_MILLIS}\n\
             sentinel failover-timeout {MASTER} 5000\n"
        );
        sentinel.write("sentinel.conf", &text)?;
        sentinel.make_writable("sentinel.conf")?;
        sentinel.start_and_wait()?;
        sentinels.push(sentinel);
    }
    for sentinel in &sentinels {
        let check_quorum = format!("SENTINEL CKQUORUM {MASTER}");
        wait_until("the sentinels know each other", || {
            let list_others = format!("SENTINEL SENTINELS {MASTER}");
            let known = call(sentinel.port, &list_others)?.matches("runid").count();
            let replicas = call(sentinel.port, &format!("SENTINEL REPLICAS {MASTER}"))?;
            let is_quorum = call(sentinel.port, &check_quorum)?.contains("OK");
            Ok(known + 1 == SENTINELS && replicas.contains("runid") && is_quorum)
        })?;
    }
    let mut first = sentinels.remove(0);
    first.members = [master, replica].into_iter().chain(sentinels).collect();
    Ok(first)
}

/// Raises the time of silence after which a server is considered dead, so that no failover happens
/// only because the machine is busy.
pub(super) fn raise_failover_timeouts(server: &Server) -> Result<(), String> {
    for server in std::iter::once(server).chain(&server.members) {
        let command = match server.kind {
            Kind::RedisSentinel => {
                format!("SENTINEL SET {MASTER} down-after-milliseconds {LONG_DEAD_AFTER_MILLIS}")
            }
            Kind::RedisCluster => {
                format!("CONFIG SET cluster-node-timeout {LONG_DEAD_AFTER_MILLIS}")
            }
            _ => continue,
        };
        let reply = call(server.port, &command)?;
        if !reply.contains("OK") {
            return Err(format!("{command}: {reply}"));
        }
    }
    Ok(())
}

/// Starts the nodes of a cluster, and waits until the cluster is complete.
pub(super) fn start_cluster() -> Result<Server, String> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let mut node = Server::prepare(Kind::RedisCluster)?;
        node.start_and_wait()?;
        nodes.push(node);
    }
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
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

/// Sends a command to the Redis server on this port, and returns the text of its reply.
///
/// # Errors
///
/// Returns an error if the server can't be reached, or does not reply. A reply that reports an
/// error is returned as `Ok`.
pub fn call(port: u16, command: &str) -> Result<String, String> {
    let with_port = |error: std::io::Error| format!("Redis on port {port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(with_port)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(with_port)?;
    // A sentinel has no password and replies to `AUTH` with an error, which is ignored.
    stream.write_all(format!("AUTH secret\r\n{command}\r\n").as_bytes()).map_err(with_port)?;
    let mut reader = BufReader::new(stream);
    let mut reply_to_auth = String::new();
    reader.read_line(&mut reply_to_auth).map_err(with_port)?;
    let mut reply = String::new();
    read_reply(&mut reader, &mut reply).map_err(with_port)?;
    Ok(reply)
}

fn read_reply(reader: &mut impl BufRead, text: &mut String) -> std::io::Result<()> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
    let count: i64 = rest.parse().unwrap_or(-1);
    match kind {
        "" => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        "$" if count >= 0 => {
            let mut bytes = vec![0; count as usize + 2];
            reader.read_exact(&mut bytes)?;
            *text += String::from_utf8_lossy(&bytes).trim_end();
            text.push('\n');
        }
        "*" => {
            for _ in 0..count.max(0) {
                read_reply(reader, text)?;
            }
        }
        _ => {
            *text += rest;
            text.push('\n');
        }
    }
    Ok(())
}
