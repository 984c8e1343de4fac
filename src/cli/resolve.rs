//! Names of servers become addresses, all at once and within a time.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::literal;

/// Names that are not found by then have no server that could answer in time.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// More STUN servers than this tell nothing new.
const MAX_STUN: usize = 8;

/// Every IPv4 address of every server, as long as names can be resolved in time.
pub(super) async fn resolve(servers: &[String]) -> Vec<SocketAddr> {
    let mut lookups = JoinSet::new();
    for (order, server) in servers.iter().cloned().enumerate() {
        lookups.spawn(async move { (order, lookup(server).await) });
    }
    let mut found: Vec<(usize, Vec<SocketAddr>)> = lookups.join_all().await;
    found.sort();
    let mut addresses: Vec<SocketAddr> = vec![];
    for address in found.into_iter().flat_map(|(_, addresses)| addresses) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(MAX_STUN);
    addresses
}

async fn lookup(server: String) -> Vec<SocketAddr> {
    if let Some(address) = literal(&server) {
        return vec![SocketAddrV4::into(address)];
    }
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(&server)).await {
        Ok(Ok(found)) => found.filter(SocketAddr::is_ipv4).take(2).collect(),
        Ok(Err(error)) => {
            tracing::warn!(%server, %error, "this server has no address");
            vec![]
        }
        Err(_) => {
            tracing::warn!(%server, "this server's name was not resolved in time");
            vec![]
        }
    }
}
