//! WebSocket: the upgrade's headers, messages and channels, SPDY inside of them, and sizes of terminals.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    streaming::fuzz::upgrade(bytes);
    streaming::fuzz::channels(bytes);
    streaming::fuzz::resize(bytes);
});
