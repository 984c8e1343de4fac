//! What tools need to reach the cache, as variables: for COMMAND and for `eval`.

use std::net::SocketAddr;

use crate::config::Env;

/// Other caches that sccache may have been told to use.
const SCCACHE: [&str; 8] = [
    "SCCACHE_BUCKET",
    "SCCACHE_GCS_BUCKET",
    "SCCACHE_GHA_ENABLED",
    "SCCACHE_AZURE_CONNECTION_STRING",
    "SCCACHE_MEMCACHED",
    "SCCACHE_MEMCACHED_ENDPOINT",
    "SCCACHE_REDIS",
    "SCCACHE_REDIS_ENDPOINT",
];

/// The token is in the URL where a tool knows no other place that all its versions read.
pub(super) fn variables(addr: SocketAddr, token: &str) -> Vec<(&'static str, String)> {
    let with_token = format!("http://mesh:{token}@{addr}");
    vec![
        ("MESH_CACHE_URL", format!("http://{addr}")),
        ("MESH_CACHE_TOKEN", token.to_owned()),
        ("MESH_CACHE_METRICS", format!("http://{addr}/metrics")),
        ("CCACHE_REMOTE_STORAGE", format!("{with_token}/ccache")),
        ("SCCACHE_WEBDAV_ENDPOINT", format!("http://{addr}/webdav")),
        ("SCCACHE_WEBDAV_KEY_PREFIX", "/sccache".to_owned()),
        ("SCCACHE_WEBDAV_TOKEN", token.to_owned()),
        ("MESH_BAZEL_CACHE", format!("{with_token}/bazel")),
        ("MESH_REMOTE_CACHE", format!("grpc://{addr}")),
    ]
}

/// For `eval`.
pub(super) fn shell(variables: &[(&str, String)]) -> String {
    variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect()
}

/// Those of tools for which the user has chosen no other cache. What an earlier mesh has set is none that the user chose.
pub(super) fn unclaimed(mut variables: Vec<(&'static str, String)>, env: Env<'_>) -> Vec<(&'static str, String)> {
    let ours = |value: &str| value.starts_with("http://mesh:") || value.starts_with("http://127.0.0.1:");
    let is_claimed = |name: &str| env(name).is_some_and(|value| !ours(&value));
    let sccache = is_claimed("SCCACHE_WEBDAV_ENDPOINT") || SCCACHE.iter().any(|name| env(name).is_some());
    variables.retain(|(name, _)| match *name {
        "CCACHE_REMOTE_STORAGE" => !is_claimed(name) && env("CCACHE_SECONDARY_STORAGE").is_none(),
        _ => !(sccache && name.starts_with("SCCACHE_")),
    });
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(&'static str, String)> {
        variables("127.0.0.1:4000".parse().expect("an address"), "rw.main.abc")
    }

    #[test]
    fn what_is_printed_is_for_a_shell() {
        let text = shell(&all());

        assert!(
            text.contains("export CCACHE_REMOTE_STORAGE='http://mesh:rw.main.abc@127.0.0.1:4000/ccache'\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.starts_with("export ") && line.ends_with('\'')), "{text}");
    }

    #[test]
    fn a_tool_for_which_the_user_has_another_cache_keeps_it() {
        let names = |set: (&str, &str)| {
            let env = |name: &str| (name == set.0).then(|| set.1.to_owned());
            unclaimed(all(), &env).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };

        assert_eq!(names(("X", "")).len(), all().len());
        assert!(!names(("CCACHE_REMOTE_STORAGE", "redis://elsewhere")).contains(&"CCACHE_REMOTE_STORAGE"));
        assert!(
            names(("CCACHE_REMOTE_STORAGE", "http://mesh:old@127.0.0.1:1/ccache")).contains(&"CCACHE_REMOTE_STORAGE")
        );
        for name in ["SCCACHE_BUCKET", "SCCACHE_GHA_ENABLED", "SCCACHE_WEBDAV_ENDPOINT"] {
            let left = names((name, "on"));
            assert!(
                left.iter().all(|left| !left.starts_with("SCCACHE_")) && left.contains(&"MESH_CACHE_URL"),
                "{name}"
            );
        }
    }
}
