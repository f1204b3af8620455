//! Compiles `proto/` with protox, which needs no protoc, and lets tonic generate clients and servers.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "runtime/v1/api.proto",
    "creel/v1/creel.proto",
    "creel/v1/images.proto",
    "creel/v1/build.proto",
    "creel/v1/containers.proto",
    "creel/v1/volumes.proto",
    "creel/v1/networks.proto",
    "creel/v1/system.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", proto.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&proto])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Both ends are connected by hand over a unix socket.
        .build_transport(false)
        // Maps are sent in one order, so that equal answers are equal bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
