//! What is done inside of a pod's network namespace.

use std::{fs::File, os::fd::AsFd, path::Path, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    Plug, Reach,
    link::{Links, WayOut},
};
use crate::{Error, network::POD_INTERFACE};

/// Brings `lo` up and gives the pod's interface its addresses and routes.
///
/// On a thread that ends afterwards: setns(2) moves the calling thread, and a thread that could not move back would
/// carry its next task out in the wrong network.
pub(super) fn configure(namespace: &File, path: &Path, plug: &Plug, reach: &Reach) -> Result<(), Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("net-configure".into()).stack_size(256 * 1024);
        let handle = thread
            .spawn_scoped(scope, || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|e| Error::EnterNamespace { path: path.to_owned(), source: e.into() })?;
                configure_here(plug, reach)
            })
            .map_err(|source| Error::Thread { path: path.to_owned(), source })?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Brings `lo` up in a namespace that gets nothing else.
///
/// # Errors
/// The namespace cannot be entered, or the kernel refuses.
pub fn loopback(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::EnterNamespace { path: path.to_owned(), source };
    let namespace = File::open(path).map_err(failed)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("net-loopback".into()).stack_size(256 * 1024);
        let handle = thread
            .spawn_scoped(scope, || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|e| failed(e.into()))?;
                loopback_here(&mut Links::open()?)
            })
            .map_err(|source| Error::Thread { path: path.to_owned(), source })?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn loopback_here(links: &mut Links) -> Result<(), Error> {
    match links.find("lo")? {
        Some(lo) if !lo.up => links.set_up(&lo),
        _ => Ok(()),
    }
}

fn configure_here(plug: &Plug, reach: &Reach) -> Result<(), Error> {
    let mut links = Links::open()?;
    loopback_here(&mut links)?;
    let missing = || Error::Netlink {
        action: format!("look for interface {POD_INTERFACE} in the pod"),
        source: crate::NetlinkError::Refused { errno: rustix::io::Errno::NODEV, message: String::new() },
    };
    let link = links.find(POD_INTERFACE)?.ok_or_else(missing)?;
    let addresses: Vec<_> = plug.ips.iter().copied().zip(plug.subnets.iter().copied()).collect();
    let out = if *reach == Reach::Inside { WayOut::None } else { WayOut::Gateway };
    links.configure_pod(&link, &addresses, out)
}
