//! The supervisor'\''s protocol, both ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((number, request)) = shim_proto::decode_request(bytes) {
        let again = shim_proto::encode_request(number, &request);
        assert_eq!(shim_proto::decode_request(&again).ok(), Some((number, request)));
    }
    shim_proto::decode_incoming(bytes).ok();
});
