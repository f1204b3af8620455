//! hosts.toml.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        registry::parse_hosts_toml(text).ok();
    }
});
