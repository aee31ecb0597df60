//! Parses the URL of a store: the servers, and the settings of the connections to them.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::error::Error;

/// The servers that a URL names.
pub(crate) enum UrlServers {
    /// `redis://`, `rediss://`, `redis+unix://`
    One(ConnectionInfo),
    /// `redis+sentinel://host,host/name`
    Sentinel { sentinels: Vec<ConnectionInfo>, name: String },
    /// `redis+cluster://host,host`
    Cluster(Vec<ConnectionInfo>),
}

/// The default port of sentinels.
const SENTINEL_PORT: u16 = 26_379;

/// Parses a URL. Errors don't quote the URL, because it may hold a password.
pub(crate) fn parse(url: &str) -> Result<UrlServers, Error> {
    let (scheme, rest) = url.split_once("://").ok_or_else(unsupported_url)?;
    let (scheme, topology) = match scheme.split_once('+') {
        Some((scheme @ ("redis" | "rediss"), topology @ ("cluster" | "sentinel"))) => {
            (scheme, topology)
        }
        _ => return parse_server(url).map(UrlServers::One),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts = hosts.split(',').filter(|host| !host.is_empty());
    if topology == "cluster" {
        let nodes = hosts.map(|host| parse_server(&format!("{scheme}://{user}{host}")));
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>()?;
        return match nodes.as_slice() {
            [] => {
                Err(Error::unsupported("the URL names no node: write redis+cluster://host:port,…"))
            }
            _ if !matches!(path, "" | "0") => Err(Error::unsupported(
                "a cluster has only the database 0: remove the path from the URL",
            )),
            _ => Ok(UrlServers::Cluster(nodes)),
        };
    }
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        parse_server(&format!("{scheme}://{user}{host}{port}/{database}"))
    };
    let sentinels: Vec<_> = hosts.map(sentinel).collect::<Result<_, _>>()?;
    if sentinels.is_empty() || name.is_empty() {
        let message = "the URL lacks the sentinels or their name for the master: write \
                     redis+sentinel://host:port,…/mymaster";
        return Err(Error::unsupported(message));
    }
    Ok(UrlServers::Sentinel { sentinels, name: name.to_owned() })
}

fn parse_server(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(|_| unsupported_url())?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) && cfg!(not(feature = "tls")) {
        let message = "the URL asks for TLS: turn on the feature `tls` of tower-keep-redis";
        return Err(Error::unsupported(message));
    }
    if !info.addr().is_supported() {
        return Err(Error::unsupported(
            "this operating system has no Unix sockets: use a redis:// URL",
        ));
    }
    // With RESP3, the driver reports when a connection is lost.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

fn unsupported_url() -> Error {
    Error::unsupported(
        "the URL is malformed or has an unknown scheme: begin it with redis://, rediss://, \
         redis+unix://, redis+sentinel:// or redis+cluster://, and write special characters of a \
         password as %XX",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Describes the servers of a URL, or the error.
    fn describe(url: &str) -> String {
        let servers = |infos: &[ConnectionInfo]| {
            let server = |info: &ConnectionInfo| {
                let settings = info.redis_settings();
                let user = settings.username().unwrap_or_default();
                let password = settings.password().unwrap_or_default();
                format!("{user}:{password}@{}/{}", info.addr(), settings.db())
            };
            infos.iter().map(server).collect::<Vec<_>>().join(" ")
        };
        match parse(url) {
            Ok(UrlServers::One(info)) => servers(&[info]),
            Ok(UrlServers::Sentinel { sentinels, name }) => {
                format!("{name}: {}", servers(&sentinels))
            }
            Ok(UrlServers::Cluster(nodes)) => format!("cluster: {}", servers(&nodes)),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn a_url_names_the_servers_the_user_and_the_password() {
        for (url, expected) in [
            ("redis://localhost", ":@localhost:6379/0"),
            ("redis://u:p%40ss@[::1]:7000/3", "u:p@ss@::1:7000/3"),
            ("redis+unix:///run/redis.sock?db=2", ":@/run/redis.sock/2"),
            ("redis+cluster://:p@a:1,b", "cluster: :p@a:1/0 :p@b:6379/0"),
            ("redis+cluster://[::1]:7000/", "cluster: :@::1:7000/0"),
            ("redis+sentinel://a,b:7/mymaster/4", "mymaster: :@a:26379/4 :@b:7/4"),
            ("redis+sentinel://u:p@a/m", "m: u:p@a:26379/0"),
        ] {
            assert_eq!(describe(url), expected, "{url}");
        }
    }

    #[test]
    fn the_error_for_a_malformed_url_does_not_quote_it() {
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
            let error_text = describe(bad);
            assert!(error_text.contains("URL"), "{bad}: {error_text}");
            assert!(!error_text.contains("secret"), "{error_text}");
        }
    }
}
