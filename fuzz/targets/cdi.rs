//! CDI specifications in JSON and YAML: what is JSON means the same in both.
#![no_main]

use cdi::{Format, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let yaml = parse(bytes, Format::Yaml);
    if let (Ok(json), Ok(yaml)) = (parse(bytes, Format::Json), &yaml) {
        assert_eq!(&json, yaml);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = cdi::Name::parse(text);
    }
});
