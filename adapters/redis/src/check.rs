//! The checks that run once, at startup.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::Error;
use crate::link::Link;
use crate::servers::{Servers, Topology};

/// The oldest version of Redis that has all commands and options that this store uses.
const OLDEST_VERSION: (u32, u32) = (6, 0);

/// Connects, and checks whether the servers are of the kind that the URL names, and not too old.
pub(crate) async fn check_servers(servers: &Servers, timeout: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    match &servers.topology {
        Topology::One(links) => {
            let info = server_info(&links.master, deadline).await?;
            if info.get("cluster_enabled").is_some_and(|is_enabled| is_enabled == "1") {
                return Err(Error::cluster_url_required());
            }
            check_server(&info)
        }
        Topology::Cluster(cluster) => {
            cluster.learn_slots(deadline).await.map_err(|error| {
                if error.mentions("cluster support disabled") {
                    let message = "this server does not belong to a cluster: use a redis:// URL";
                    return Error::unsupported(message);
                }
                error
            })?;
            let masters = cluster.masters();
            let infos = masters.iter().map(|master| server_info(master, deadline));
            for info in join_all(infos).await {
                match info {
                    Ok(info) => check_server(&info)?,
                    // This is only a warning, because the other masters still serve their users.
                    Err(error) => warn!(?error, "a master of the cluster does not respond"),
                }
            }
            Ok(())
        }
    }
}

fn check_server(info: &HashMap<String, String>) -> Result<(), Error> {
    if let Some(version) = info.get("redis_version") {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < OLDEST_VERSION {
            let message = format!("the server is Redis {version}: use Redis 6.0 or later");
            return Err(Error::unsupported(message));
        }
    }
    match info.get("maxmemory_policy").map(String::as_str) {
        Some("noeviction") => {}
        Some(policy) => warn!(
            policy,
            "this Redis server deletes users and sessions when its memory is full: set \
             maxmemory-policy to noeviction"
        ),
        None => debug!("the server does not report its maxmemory-policy: it should be noeviction"),
    }
    Ok(())
}

/// Returns the names and values that `INFO` reports, or an empty map if the store's user has no
/// permission to run `INFO`.
async fn server_info(
    link: &Arc<Link>,
    deadline: Instant,
) -> Result<HashMap<String, String>, Error> {
    let text = match link.send(&redis::cmd("INFO"), deadline).await {
        Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
        Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) => String::new(),
        Err(error) if error.mentions("NOPERM") => {
            debug!(
                ?error,
                "the store's user has no permission to run INFO, so the server is not checked"
            );
            String::new()
        }
        Err(error) => return Err(error),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}
