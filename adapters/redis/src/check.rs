//! What is looked at once, at the start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::Fault;
use crate::link::Link;
use crate::servers::{Servers, Topology};

/// Scripts need what came with it, and so do connections.
const OLDEST: (u32, u32) = (6, 0);

/// Connects, and finds out whether the servers are what the URL says.
pub(crate) async fn check(servers: &Servers, timeout: Duration) -> Result<(), Fault> {
    let deadline = Instant::now() + timeout;
    match &servers.topology {
        Topology::One(links) => {
            let info = info(&links.master, deadline).await?;
            if info.get("cluster_enabled").is_some_and(|is_enabled| is_enabled == "1") {
                return Err(Fault::is_of_a_cluster());
            }
            check_server(&info)
        }
        Topology::Cluster(cluster) => {
            cluster.learn(deadline).await.map_err(|fault| {
                if fault.says("cluster support disabled") {
                    let words = "this server is none of a cluster: let the URL begin with redis://";
                    return Fault::unsupported(words);
                }
                fault
            })?;
            let masters = cluster.masters();
            let asked = masters.iter().map(|master| info(master, deadline));
            for answer in join_all(asked).await {
                match answer {
                    Ok(info) => check_server(&info)?,
                    // Its users have to wait; those of other slots don't.
                    Err(fault) => warn!(?fault, "a master of the cluster does not answer"),
                }
            }
            Ok(())
        }
    }
}

fn check_server(info: &HashMap<String, String>) -> Result<(), Fault> {
    if let Some(version) = info.get("redis_version") {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < OLDEST {
            let words = format!("the server is Redis {version}, and this needs 6.0 or later");
            return Err(Fault::unsupported(words));
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

/// What the server tells of itself; nothing, if it does not let us ask.
async fn info(link: &Arc<Link>, deadline: Instant) -> Result<HashMap<String, String>, Fault> {
    let text = match link.send(&redis::cmd("INFO"), deadline).await {
        Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
        Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) => String::new(),
        Err(fault) if fault.says("NOPERM") => {
            debug!(?fault, "the server does not tell its settings");
            String::new()
        }
        Err(fault) => return Err(fault),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}
