//! Redis: the settings of a server, and how to call it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::instance::Instance;
use super::kind::Kind;

/// The sentinels' name for their master.
pub(super) const MASTER: &str = "keep";
/// The other servers consider a server dead after this many milliseconds of silence.
pub(super) const DEAD_AFTER_MILLIS: &str = "1500";

/// Returns the URL of a server. The URL of a group names several servers of the group.
pub(super) fn url(instance: &Instance, members: &[&Instance]) -> String {
    let instances = std::iter::once(instance).chain(members.iter().copied());
    let addresses = |kind| {
        let of_kind = instances.clone().filter(move |instance| instance.kind == kind);
        of_kind.map(|instance| format!("127.0.0.1:{}", instance.port)).collect::<Vec<_>>()
    };
    match instance.kind {
        Kind::RedisSentinel => {
            let all = addresses(Kind::RedisSentinel).join(",");
            format!("redis+sentinel://:secret@{all}/{MASTER}")
        }
        // With two of the nodes, a client finds the other nodes.
        Kind::RedisCluster if !members.is_empty() => {
            let two = addresses(Kind::RedisCluster)[..2].join(",");
            format!("redis+cluster://:secret@{two}")
        }
        _ => format!("redis://:secret@127.0.0.1:{}", instance.port),
    }
}

/// Returns the server's arguments. With them, the server writes its data to a file before it
/// replies, so a crash of its process loses nothing.
pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    let (port, directory) = (instance.port.to_string(), instance.directory.display().to_string());
    let mut arguments = Vec::new();
    if instance.kind == Kind::RedisSentinel {
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
    if instance.kind != Kind::RedisSentinel {
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
    if instance.kind == Kind::RedisCluster {
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
