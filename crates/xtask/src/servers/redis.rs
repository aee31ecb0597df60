//! Redis: a single server, a server with a replica and sentinels, and a cluster.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Kind, PATIENCE, PAUSE, Server};

/// The sentinels' name for their master.
const MASTER: &str = "keep";
const SENTINELS: usize = 3;

const MASTERS: usize = 3;
const NODES: usize = 6;
const SLOTS: usize = 16_384;

/// After how many milliseconds of silence the other servers consider a server dead.
const DEAD_AFTER: &str = "1500";
/// The same for servers that no test kills: on a busy machine, a server is silent at times.
const DEAD_AFTER_ALL: &str = "20000";

pub(super) fn url(server: &Server) -> String {
    let servers = std::iter::once(server).chain(&server.members);
    let places = |kind| {
        let same = servers.clone().filter(move |server: &&Server| server.kind == kind);
        same.map(|server| format!("127.0.0.1:{}", server.port)).collect::<Vec<_>>().join(",")
    };
    match server.kind {
        Kind::RedisSentinel => {
            format!("redis+sentinel://:secret@{}/{MASTER}", places(Kind::RedisSentinel))
        }
        // Two of the nodes are enough to find the others.
        Kind::RedisCluster if !server.members.is_empty() => {
            let all = places(Kind::RedisCluster);
            let two: Vec<_> = all.split(',').take(2).collect();
            format!("redis+cluster://:secret@{}", two.join(","))
        }
        _ => format!("redis://:secret@127.0.0.1:{}", server.port),
    }
}

/// Returns the server's arguments. Data that was written before a reply survives a crash of the
/// process.
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
            ["--cluster-node-timeout", DEAD_AFTER],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-replica-validity-factor", "0"],
        ];
        arguments.extend(settings.as_flattened().iter().map(|word| (*word).to_owned()));
    }
    arguments
}

pub(super) fn sentinels() -> Result<Server, String> {
    let master = Server::start_redis(&[])?;
    let port = master.port.to_string();
    let replica = Server::start_redis(&["--replicaof", "127.0.0.1", &port])?;
    until("the replica is in step", || {
        Ok(call(master.port, "INFO replication")?.contains("state=online"))
    })?;
    let mut sentinels = Vec::new();
    for _ in 0..SENTINELS {
        let mut sentinel = Server::prepared(Kind::RedisSentinel)?;
        let text = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\nsentinel auth-pass {MASTER} secret\n\
             sentinel down-after-milliseconds {MASTER} {DEAD_AFTER}\n\
             sentinel failover-timeout {MASTER} 5000\n"
        );
        sentinel.write("sentinel.conf", &text)?;
        sentinel.make_writable("sentinel.conf")?;
        sentinel.start_again()?;
        sentinels.push(sentinel);
    }
    for sentinel in &sentinels {
        let question = format!("SENTINEL CKQUORUM {MASTER}");
        until("the sentinels know each other", || {
            let others = format!("SENTINEL SENTINELS {MASTER}");
            let known = call(sentinel.port, &others)?.matches("runid").count();
            let replicas = call(sentinel.port, &format!("SENTINEL REPLICAS {MASTER}"))?;
            let is_quorum = call(sentinel.port, &question)?.contains("OK");
            Ok(known + 1 == SENTINELS && replicas.contains("runid") && is_quorum)
        })?;
    }
    let mut first = sentinels.remove(0);
    first.members = [master, replica].into_iter().chain(sentinels).collect();
    Ok(first)
}

/// Raises the time-outs, so that no server is considered dead only because the machine is busy.
pub(super) fn be_patient(server: &Server) -> Result<(), String> {
    for server in std::iter::once(server).chain(&server.members) {
        let words = match server.kind {
            Kind::RedisSentinel => {
                format!("SENTINEL SET {MASTER} down-after-milliseconds {DEAD_AFTER_ALL}")
            }
            Kind::RedisCluster => format!("CONFIG SET cluster-node-timeout {DEAD_AFTER_ALL}"),
            _ => continue,
        };
        let reply = call(server.port, &words)?;
        if !reply.contains("OK") {
            return Err(format!("{words}: {reply}"));
        }
    }
    Ok(())
}

pub(super) fn cluster() -> Result<Server, String> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let mut node = Server::prepared(Kind::RedisCluster)?;
        node.start_again()?;
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
        until("the nodes know each other", || {
            let nodes = call(*port, "CLUSTER NODES")?;
            let known = nodes.lines().filter(|line| line.contains("connected")).count();
            Ok(known == NODES && !nodes.contains("handshake"))
        })?;
    }
    for number in MASTERS..NODES {
        let master = call(ports[number - MASTERS], "CLUSTER MYID")?;
        until("the replicas know their masters", || {
            call(ports[number], &format!("CLUSTER REPLICATE {}", master.trim()))
                .map(|reply| reply.contains("OK"))
        })?;
    }
    for port in &ports {
        until("the cluster is complete", || {
            let is_ok = call(*port, "CLUSTER INFO")?.contains("cluster_state:ok");
            let replicas = call(*port, "CLUSTER SLOTS")?.matches("127.0.0.1").count();
            let in_step = call(*port, "INFO replication")?;
            let is_in_step =
                in_step.contains("state=online") || in_step.contains("master_link_status:up");
            Ok(is_ok && replicas == NODES && is_in_step)
        })?;
    }
    let mut first = nodes.remove(0);
    first.members = nodes;
    Ok(first)
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let found = is_so();
        if found == Ok(true) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("Redis: not so that {what}: {found:?}"));
        }
        sleep(PAUSE);
    }
}

/// Sends a command to the Redis server on this port, and returns the text of its reply.
///
/// # Errors
///
/// Returns an error if the server can't be reached, or does not reply. An error that Redis reports
/// is a reply.
pub fn call(port: u16, words: &str) -> Result<String, String> {
    let said = |error: std::io::Error| format!("Redis on port {port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(said)?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).map_err(said)?;
    // A sentinel has no password, and reports that as an error, which is ignored.
    stream.write_all(format!("AUTH secret\r\n{words}\r\n").as_bytes()).map_err(said)?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).map_err(said)?;
    let mut reply = String::new();
    read_answer(&mut reader, &mut reply).map_err(said)?;
    Ok(reply)
}

fn read_answer(reader: &mut impl BufRead, text: &mut String) -> std::io::Result<()> {
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
                read_answer(reader, text)?;
            }
        }
        _ => {
            *text += rest;
            text.push('\n');
        }
    }
    Ok(())
}
