//! What is done inside of a pod's network namespace.

use std::{fs::File, os::fd::AsFd, path::Path, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Interface, Plug, link::Links};
use crate::Error;

/// Brings `lo` up and gives the pod's interface its addresses and routes.
///
/// On a thread that ends afterwards: setns(2) moves the calling thread, and a thread that could not move back would
/// carry its next task out in the wrong network.
pub(super) fn configure(namespace: &File, path: &Path, plug: &Plug, interface: Interface<'_>) -> Result<(), Error> {
    within(namespace, path, || configure_here(plug, interface))
}

fn within<T: Send>(namespace: &File, path: &Path, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("net-configure".into()).stack_size(256 * 1024);
        let handle = thread
            .spawn_scoped(scope, || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|e| Error::EnterNamespace { path: path.to_owned(), source: e.into() })?;
                work()
            })
            .map_err(|source| Error::Thread { path: path.to_owned(), source })?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Default routes by an interface that is there.
pub(super) fn lead_out(path: &Path, plug: &Plug, interface: &str) -> Result<(), Error> {
    let namespace = File::open(path).map_err(|source| Error::OpenNamespace { path: path.to_owned(), source })?;
    within(&namespace, path, || {
        let mut links = Links::open()?;
        let link = links.find(interface)?.ok_or_else(|| missing(interface))?;
        links.lead_out(&link, &plug.subnets)
    })
}

/// Brings `lo` up in a namespace that gets nothing else.
///
/// # Errors
/// The namespace cannot be entered, or the kernel refuses.
pub fn loopback(path: &Path) -> Result<(), Error> {
    let namespace = File::open(path).map_err(|source| Error::OpenNamespace { path: path.to_owned(), source })?;
    within(&namespace, path, || loopback_here(&mut Links::open()?))
}

fn loopback_here(links: &mut Links) -> Result<(), Error> {
    match links.find("lo")? {
        Some(lo) if !lo.up => links.set_up(&lo),
        _ => Ok(()),
    }
}

fn missing(interface: &str) -> Error {
    Error::Netlink {
        action: format!("look for interface {interface} in the pod"),
        source: crate::NetlinkError::Refused { errno: rustix::io::Errno::NODEV, message: String::new() },
    }
}

fn configure_here(plug: &Plug, interface: Interface<'_>) -> Result<(), Error> {
    let mut links = Links::open()?;
    loopback_here(&mut links)?;
    let link = links.find(interface.name)?.ok_or_else(|| missing(interface.name))?;
    let addresses: Vec<_> = plug.ips.iter().copied().zip(plug.subnets.iter().copied()).collect();
    links.configure_pod(&link, &addresses, interface.way_out)
}
