//! Compiles the messages of `proto/nri` with protox, which needs no protoc. Its services are ttrpc and written by hand.

use std::{env, error::Error, path::PathBuf};

const FILE: &str = "nri/v1alpha1/api.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.join(FILE).display());
    let descriptors = protox::compile([FILE], [&proto])?;
    // Maps are sent in one order, so that equal messages are equal bytes.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
