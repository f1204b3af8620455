//! Against a bus of our own, which answers as dbus-daemon and systemd do; the real ones are met in the guest (hack/test-vm).

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread::JoinHandle,
};

use super::*;

/// What the fake answers to a method: errors have a name, jobs a result.
#[derive(Clone, Copy)]
enum Answer {
    Job(&'static str),
    Error(&'static str),
    Silence,
}

/// Serves one connection; the names of the methods that were called.
fn bus(answer: Answer) -> (tempfile::TempDir, Manager, JoinHandle<Vec<String>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || serve(listener.accept().unwrap().0, answer));
    (dir, Manager::at(&path), server)
}

fn serve(mut stream: UnixStream, answer: Answer) -> Vec<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert!(line.starts_with(b"\0AUTH EXTERNAL 3"), "{line:?}");
    stream.write_all(b"OK 1234\r\n").unwrap();
    let mut begin = [0; 7];
    stream.read_exact(&mut begin).unwrap();
    let mut called = Vec::new();
    loop {
        let mut head = [0; 16];
        if stream.read_exact(&mut head).is_err() {
            return called;
        }
        let mut rest = vec![0; crate::message::rest(&head).unwrap()];
        stream.read_exact(&mut rest).unwrap();
        let text = String::from_utf8_lossy(&rest).into_owned();
        let known = ["Hello", "AddMatch", "Subscribe", "StartTransientUnit", "StopUnit", "Get"];
        let name = known.into_iter().find(|name| text.contains(&format!("{name}\0"))).unwrap();
        called.push(name.to_owned());
        let serial = u32::from_le_bytes(head[8..12].try_into().unwrap());
        match (name, answer) {
            ("StartTransientUnit" | "StopUnit", Answer::Job(result)) => {
                // The end of another's job comes first, then ours, and only then the answer.
                stream.write_all(&removed("/job/1", "failed")).unwrap();
                stream.write_all(&removed("/job/2", result)).unwrap();
                stream.write_all(&message(2, serial, "", &strings(&["/job/2"]))).unwrap();
            }
            ("StartTransientUnit" | "StopUnit", Answer::Error(name)) => {
                stream.write_all(&message(3, serial, name, &strings(&["because"]))).unwrap();
            }
            ("StartTransientUnit" | "StopUnit", Answer::Silence) => return called,
            _ => stream.write_all(&message(2, serial, "", &strings(&[":1.1"]))).unwrap(),
        }
    }
}

fn strings(all: &[&str]) -> Vec<u8> {
    let mut body = Writer::default();
    all.iter().for_each(|text| body.string(text));
    body.finish()
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(7);
    [job, "x.scope", result].iter().for_each(|text| body.string(text));
    message(4, 0, "", &body.finish())
}

fn message(kind: u8, to: u32, error: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(u32::from_le_bytes([b'l', kind, 0, 1]));
    out.u32(u32::try_from(body.len()).unwrap());
    out.u32(1);
    out.array(8, |out| {
        let mut text = |code: u8, value: &str| {
            out.align(8);
            // A field's code and the signature "s" of its value.
            out.u32(u32::from_le_bytes([code, 1, b's', 0]));
            out.string(value);
        };
        if kind == 4 {
            text(2, MANAGER.2);
            text(3, "JobRemoved");
        }
        if kind == 3 {
            text(4, error);
        }
        out.align(8);
        out.u32(u32::from_le_bytes([5, 1, b'u', 0]));
        out.u32(to);
    });
    out.align(8);
    let mut bytes = out.finish();
    bytes.extend_from_slice(body);
    bytes
}

fn scope() -> Scope {
    Scope { name: "creel-1.scope".into(), slice: "creel.slice".into(), description: "pod".into(), pid: 77 }
}

#[test]
fn a_scope_is_there_when_its_job_is_done() {
    let (_dir, manager, server) = bus(Answer::Job("done"));
    manager.start(&scope()).unwrap();
    assert_eq!(server.join().unwrap(), ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]);
}

#[test]
fn jobs_that_fail_and_requests_that_are_refused_say_why() {
    let (_dir, manager, _server) = bus(Answer::Job("failed"));
    assert_eq!(manager.start(&scope()).unwrap_err().to_string(), "job for creel-1.scope ended as \"failed\"");
    let (_dir, manager, _server) = bus(Answer::Error("org.freedesktop.systemd1.UnitExists"));
    let error = manager.start(&scope()).unwrap_err().to_string();
    assert_eq!(error, "StartTransientUnit: org.freedesktop.systemd1.UnitExists: because");
    let (_dir, manager, _server) = bus(Answer::Silence);
    assert!(matches!(manager.start(&scope()), Err(Error::Io { .. })));
    let nowhere = tempfile::tempdir().unwrap().path().join("bus");
    assert!(matches!(Manager::at(&nowhere).check(), Err(Error::Connect { .. })));
}

#[test]
fn stopping_what_is_not_there_is_fine() {
    let (_dir, manager, _server) = bus(Answer::Error("org.freedesktop.systemd1.NoSuchUnit"));
    manager.stop("x.scope").unwrap();
    let (_dir, manager, _server) = bus(Answer::Error("org.freedesktop.systemd1.Other"));
    assert!(manager.stop("x.scope").is_err());
    let (_dir, manager, _server) = bus(Answer::Job("done"));
    manager.stop("x.scope").unwrap();
}

/// Properties by the hand of the specification: name, signature of the variant, value.
#[test]
fn the_request_says_all_properties() {
    let body = start_body(&scope());
    let text = String::from_utf8_lossy(&body).into_owned();
    for part in ["creel-1.scope\0", "fail\0", "Description\0\u{1}s\0", "Slice\0", "Delegate\0\u{1}b\0", "PIDs\0\u{2}au\0"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(body.windows(8).any(|w| w == [4, 0, 0, 0, 77, 0, 0, 0]), "one pid of four bytes");
    assert_eq!(body[body.len() - 4..], [0; 4], "no auxiliary units");
}
