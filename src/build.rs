//! Writes the client and the server of what peers' caches say to each other beside the Remote Execution API. The messages are in `src/cache/peers/wire.rs`.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn main() {
    tell_cargo("rerun-if-changed=src/build.rs");
    let service = Service::builder()
        .name("Peers")
        .package("mesh.cache.v1")
        .comment(" What peers' caches say to each other beside the Remote Execution API.")
        .method(
            method("watch", "Watch", ["WatchRequest", "WatchEvent"])
                .comment(" What this runner has, and what is news, until one of the two ends.")
                .server_streaming()
                .build(),
        )
        .method(
            method("look", "Look", ["LookRequest", "LookResponse"]).comment(" Which of many names are there.").build(),
        )
        .method(
            method("lease", "Lease", ["LeaseRequest", "LeaseEvent"])
                .comment(" Who of many does the work that makes a record.")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(
            method("take_over", "TakeOver", ["TakeOverRequest", "TakeOverResponse"])
                .comment(" Fetch what else would leave with the caller.")
                .build(),
        )
        .method(
            method("lost", "Lost", ["LostRequest", "LostResponse"])
                .comment(" Who does not have a blob any more that it is said to have.")
                .build(),
        )
        .build();
    Builder::new().build_transport(false).compile(&[service]);
}

fn method(name: &str, route: &str, [input, output]: [&str; 2]) -> MethodBuilder {
    let message = |name: &str| format!("crate::cache::peers::wire::{name}");
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(message(input))
        .output_type(message(output))
        .codec_path("tonic_prost::ProstCodec")
}

fn tell_cargo(what: &str) {
    println!("cargo::{what}");
}
