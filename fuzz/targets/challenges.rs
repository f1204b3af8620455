//! WWW-Authenticate headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    registry::parse_challenge(bytes).ok();
});
