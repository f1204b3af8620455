//! Image names, digests and signals: what parses prints the same again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<model::ImageRef>() {
        assert_eq!(name.to_string().parse::<model::ImageRef>().as_ref(), Ok(&name));
        assert_eq!(name.familiar().parse::<model::ImageRef>().as_ref(), Ok(&name));
    }
    if let Ok(digest) = text.parse::<model::Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(signal) = text.parse::<model::Signal>() {
        assert_eq!(signal.to_string().parse::<model::Signal>(), Ok(signal));
    }
});
