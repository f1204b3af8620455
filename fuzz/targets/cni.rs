//! Results of CNI plugins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    net::cni::parse_result(bytes).ok();
});
