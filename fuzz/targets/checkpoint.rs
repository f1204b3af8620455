//! Descriptions and criu images of checkpoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::checkpoint::archive::fuzz(bytes);
});
