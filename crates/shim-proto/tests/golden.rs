//! Golden bytes of every message: an old supervisor must understand a new daemon, so none of these lines ever changes.
//! A new message or field adds lines to `golden.txt`; the failure message shows what they have to be.
#![forbid(unsafe_code)]

mod samples;

use std::collections::BTreeMap;

use shim_proto::{Error, ExitRecord, Incoming, Reply, Request};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    include_str!("golden.txt").lines().filter_map(|line| line.split_once(' ')).map(|(name, text)| (name, unhex(text))).collect()
}

#[test]
fn bytes_never_change() {
    let golden = golden();
    let now = samples::encoded();
    let wrong: Vec<String> = now
        .iter()
        .filter(|(name, bytes)| golden.get(name.as_str()) != Some(bytes))
        .map(|(name, bytes)| format!("{name} {}", hex(bytes)))
        .collect();
    assert!(wrong.is_empty(), "not as in golden.txt:\n{}", wrong.join("\n"));
    assert_eq!(golden.len(), now.len(), "golden.txt has lines that no sample makes");
}

#[test]
fn old_bytes_are_understood() {
    let golden = golden();
    for (name, request) in samples::requests() {
        assert_eq!(shim_proto::decode_request(&golden[format!("request.{name}").as_str()]).unwrap(), (7, request), "{name}");
    }
    for (name, reply) in samples::replies() {
        let got = shim_proto::decode_incoming(&golden[format!("reply.{name}").as_str()]).unwrap();
        assert_eq!(got, Incoming::Reply { number: 7, reply }, "{name}");
    }
    for (name, event) in samples::events() {
        let got = shim_proto::decode_incoming(&golden[format!("event.{name}").as_str()]).unwrap();
        assert_eq!(got, Incoming::Event(event), "{name}");
    }
    assert_eq!(ExitRecord::from_bytes(&golden["record"]).unwrap(), samples::record());
}

#[test]
fn what_a_newer_side_adds() {
    // Request variant 99 with a field: the number comes out, so that it can be answered.
    assert!(matches!(shim_proto::decode_request(&unhex("820782186381f5")), Err(Error::Body { number: 7, .. })));
    // A further field (9: null) of Ack is skipped.
    assert_eq!(shim_proto::decode_request(&unhex("8207820c8205f6")).unwrap(), (7, Request::Ack { sequence: 5 }));
    // An unknown kind of failure is a failure.
    let reply = shim_proto::decode_incoming(&unhex("82078202818361736166186f"));
    let Ok(Incoming::Reply { reply: Reply::Failed(failure), .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.kind, model::ErrorKind::Internal);
    // Not an envelope; bytes after it.
    assert!(matches!(shim_proto::decode_request(b""), Err(Error::Envelope(_))));
    assert!(matches!(shim_proto::decode_request(&unhex("820b820b8000")), Err(Error::Body { number: 11, .. })));
}
