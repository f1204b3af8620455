//! What an NRI plugin sends: the wire, and its answers.
#![no_main]

use prost::Message as _;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut messages = Vec::new();
    let mut whole = nri::frame::Decoder::default();
    let broken = whole.push(bytes, &mut messages);
    // However it is cut, the same comes out.
    let (mut again, mut decoder) = (Vec::new(), nri::frame::Decoder::default());
    let cut = bytes.chunks(3).try_for_each(|piece| decoder.push(piece, &mut again));
    assert_eq!((broken, &messages), (cut, &again));
    for message in &messages {
        let mut same = Vec::new();
        nri::frame::Decoder::default().push(&message.encode().expect("it came in"), &mut same).expect("it came in");
        assert_eq!(same, [message.clone()]);
    }
    if nri::check_bounds(bytes).is_ok()
        && let Ok(response) = nri::proto::CreateContainerResponse::decode(bytes)
    {
        let mut adjusting = nri::Adjusting::new(Default::default(), Default::default());
        if adjusting.add("00-a", response.clone()).is_ok() {
            adjusting.add("00-a", response).ok();
            adjusting.finish();
        }
    }
});
