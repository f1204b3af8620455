//! The real kernel takes the programs and does what they say. A filter is a thread's own, so each test uses one up.

use std::{process::Command, thread};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    net::{AddressFamily, SocketType, socket},
};

use super::*;

/// Runs `body` on a thread of its own under a filter.
fn under<T: Send + 'static>(program: Vec<u8>, body: impl FnOnce() -> T + Send + 'static) -> T {
    let filtered = move || {
        sys::seccomp::install(&program).unwrap_or_else(|errno| panic!("the kernel refuses {} bytes: {errno}", program.len()));
        body()
    };
    thread::spawn(filtered).join().unwrap()
}

fn opened(family: u16) -> Result<(), Errno> {
    socket(AddressFamily::from_raw(family), SocketType::DGRAM, None).map(drop)
}

#[test]
fn the_default_profile_filters_for_real() {
    let caps = model::capability::ALL & !model::capability::mask("SYS_ADMIN").unwrap();
    under(crate::default_program(caps), || {
        assert_eq!((opened(38), opened(40)), (Err(Errno::PERM), Err(Errno::PERM)));
        opened(1).unwrap();
        // Without the filter it would be ENOENT.
        assert_eq!(mount("none", "/nonexistent", "tmpfs", MountFlags::empty(), None).unwrap_err(), Errno::PERM);
        // The C library has to get by without clone3(2).
        assert!(Command::new("/bin/true").status().unwrap().success());
        assert!(thread::spawn(|| 7).join().unwrap() == 7);
    });
    let admin = crate::default_program(model::capability::ALL);
    let refused = under(admin, || mount("none", "/nonexistent", "tmpfs", MountFlags::empty(), None).unwrap_err());
    assert_eq!(refused, Errno::NOENT);
}

#[test]
fn the_kernel_takes_the_default_profile_for_every_capability() {
    for caps in (0..41).map(|bit| 1_u64 << bit).chain([0, model::capability::ALL]) {
        under(crate::default_program(caps), || ());
    }
}

#[test]
fn conditions_are_read_by_the_kernel_as_by_the_interpreter() {
    let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":77,
        "args":[{"index":0,"value":15,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_GE"}]}]}"#;
    let program = crate::parse_and_compile(json, &Target::native((6, 1), 0)).unwrap();
    let (unix, stream) = under(program, || (opened(1), socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop)));
    assert_eq!((unix, stream), (Err(Errno::from_raw_os_error(77)), Ok(())));
}
