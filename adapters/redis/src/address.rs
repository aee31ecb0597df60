//! Parses URLs: where the servers are, and how they are reached.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::error::Error;

/// The servers that a URL names.
pub(crate) enum Address {
    /// `redis://`, `rediss://`, `redis+unix://`
    One(ConnectionInfo),
    /// `redis+sentinel://host,host/name`
    Sentinel { sentinels: Vec<ConnectionInfo>, name: String },
    /// `redis+cluster://host,host`
    Cluster(Vec<ConnectionInfo>),
}

/// The default port of sentinels.
const SENTINEL_PORT: u16 = 26_379;

/// Parses a URL. Errors don't quote it, because it may hold a password.
pub(crate) fn read(url: &str) -> Result<Address, Error> {
    let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
    let (plain, topology) = match scheme.split_once('+') {
        Some((plain @ ("redis" | "rediss"), topology @ ("cluster" | "sentinel"))) => {
            (plain, topology)
        }
        _ => return one(url).map(Address::One),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts = hosts.split(',').filter(|host| !host.is_empty());
    if topology == "cluster" {
        let nodes = hosts.map(|host| one(&format!("{plain}://{user}{host}")));
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>()?;
        return match nodes.as_slice() {
            [] => Err(Error::unsupported("the URL names no node: redis+cluster://host:port,…")),
            _ if !matches!(path, "" | "0") => {
                Err(Error::unsupported("a cluster has no databases but 0: leave the path away"))
            }
            _ => Ok(Address::Cluster(nodes)),
        };
    }
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        one(&format!("{plain}://{user}{host}{port}/{database}"))
    };
    let sentinels: Vec<_> = hosts.map(sentinel).collect::<Result<_, _>>()?;
    if sentinels.is_empty() || name.is_empty() {
        let message = "the URL names sentinels and what they call the master: \
                     redis+sentinel://host:port,…/mymaster";
        return Err(Error::unsupported(message));
    }
    Ok(Address::Sentinel { sentinels, name: name.to_owned() })
}

fn one(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(|_| unknown())?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) && cfg!(not(feature = "tls")) {
        let message = "TLS needs the feature `tls` of tower-keep-redis";
        return Err(Error::unsupported(message));
    }
    if !info.addr().is_supported() {
        return Err(Error::unsupported("this system has no such connections"));
    }
    // Connections with RESP3 report when they are lost.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

fn unknown() -> Error {
    Error::unsupported(
        "unsupported or malformed URL: it has to begin with redis://, rediss://, redis+unix://, \
         redis+sentinel:// or redis+cluster://; write special characters of a password as %XX",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(url: &str) -> String {
        let places = |infos: &[ConnectionInfo]| {
            let place = |info: &ConnectionInfo| {
                let settings = info.redis_settings();
                let user = settings.username().unwrap_or_default();
                let password = settings.password().unwrap_or_default();
                format!("{user}:{password}@{}/{}", info.addr(), settings.db())
            };
            infos.iter().map(place).collect::<Vec<_>>().join(" ")
        };
        match read(url) {
            Ok(Address::One(info)) => places(&[info]),
            Ok(Address::Sentinel { sentinels, name }) => format!("{name}: {}", places(&sentinels)),
            Ok(Address::Cluster(nodes)) => format!("cluster: {}", places(&nodes)),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn a_url_says_where_the_servers_are() {
        for (url, expected) in [
            ("redis://localhost", ":@localhost:6379/0"),
            ("redis://u:p%40ss@[::1]:7000/3", "u:p@ss@::1:7000/3"),
            ("redis+unix:///run/redis.sock?db=2", ":@/run/redis.sock/2"),
            ("redis+cluster://:p@a:1,b", "cluster: :p@a:1/0 :p@b:6379/0"),
            ("redis+cluster://[::1]:7000/", "cluster: :@::1:7000/0"),
            ("redis+sentinel://a,b:7/mymaster/4", "mymaster: :@a:26379/4 :@b:7/4"),
            ("redis+sentinel://u:p@a/m", "m: u:p@a:26379/0"),
        ] {
            assert_eq!(described(url), expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_quoted() {
        for bad in [
            "",
            "localhost",
            "http://:secret@host",
            "redis://:secret@host:port",
            "redis+cluster://",
            "redis+cluster://:secret@host/3",
            "redis+sentinel://:secret@host",
            "redis+sentinel:///name",
            "redis+other://:secret@host",
        ] {
            let said = described(bad);
            assert!(said.contains("URL") || said.contains("cluster"), "{bad}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
