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

/// The oldest version that has what scripts and connections need.
const OLDEST: (u32, u32) = (6, 0);

/// Connects, and checks whether the servers are what the URL says.
pub(crate) async fn check(servers: &Servers, timeout: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    match &servers.topology {
        Topology::One(links) => {
            let info = info(&links.master, deadline).await?;
            if info.get("cluster_enabled").is_some_and(|is_enabled| is_enabled == "1") {
                return Err(Error::cluster_url_required());
            }
            check_server(&info)
        }
        Topology::Cluster(cluster) => {
            cluster.learn(deadline).await.map_err(|error| {
                if error.mentions("cluster support disabled") {
                    let message = "this server does not belong to a cluster: use a redis:// URL";
                    return Error::unsupported(message);
                }
                error
            })?;
            let masters = cluster.masters();
            let asked = masters.iter().map(|master| info(master, deadline));
            for reply in join_all(asked).await {
                match reply {
                    Ok(info) => check_server(&info)?,
                    // Only users in this master's slots have to wait.
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
        if found < OLDEST {
            let message = format!("the server is Redis {version}, and this needs 6.0 or later");
            return Err(Error::unsupported(message));
        }
    }
    match info.get("maxmemory_policy").map(String::as_str) {
        Some("noeviction") => {}
        Some(policy) => warn!(
            policy,
            "this Redis evicts keys when its memory is full, and with them users and sessions: set \
             maxmemory-policy to noeviction"
        ),
        None => debug!("the server does not tell its maxmemory-policy, which should be noeviction"),
    }
    Ok(())
}

/// Returns what the server reports about itself, or nothing if the store's user has no permission
/// to ask.
async fn info(link: &Arc<Link>, deadline: Instant) -> Result<HashMap<String, String>, Error> {
    let text = match link.send(&redis::cmd("INFO"), deadline).await {
        Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
        Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) => String::new(),
        Err(error) if error.mentions("NOPERM") => {
            debug!(?error, "the server does not tell its settings");
            String::new()
        }
        Err(error) => return Err(error),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}
