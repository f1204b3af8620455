//! seccomp profiles.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    seccomp::parse_and_compile(bytes, &seccomp::Target::native((6, 1), 0xa804_25fb)).ok();
});
