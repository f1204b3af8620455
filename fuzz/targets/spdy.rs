//! SPDY frames, header blocks compressed and plain.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    streaming::fuzz::headers(bytes);
    streaming::fuzz::spdy(bytes);
});
