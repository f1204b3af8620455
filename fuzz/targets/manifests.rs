//! Manifests and indexes of registries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    registry::parse_manifest(bytes, None).ok();
});
