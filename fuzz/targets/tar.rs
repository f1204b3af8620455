//! Layers: any bytes as a tar stream, into memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    layer::fuzz_tar(bytes).ok();
});
