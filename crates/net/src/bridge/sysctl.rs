//! The sysctls that forwarding needs (kernel: Documentation/networking/ip-sysctl.rst).
//!
//! What /proc/sys/net shows depends on the network namespace of the thread that opens it.

use std::{fs, io, path::Path};

use crate::Error;

/// Sets a sysctl below /proc/sys if it has another value. Returns whether it had.
pub(super) fn set(name: &str, value: &'static str) -> Result<bool, Error> {
    let path = Path::new("/proc/sys").join(name);
    let failed = |source| Error::Sysctl { path: path.clone(), value, source };
    if fs::read_to_string(&path).map_err(failed)?.trim_end() == value {
        return Ok(false);
    }
    fs::write(&path, value).map_err(failed)?;
    Ok(true)
}

/// Whether the kernel knows IPv6.
pub(super) fn knows_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether new interfaces in this namespace may have IPv6 addresses.
pub(super) fn uses_ipv6() -> bool {
    let disabled = |which| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6")).map(|v| v.trim_end() != "0");
    !disabled("all").unwrap_or(true) && !disabled("default").unwrap_or(true)
}

/// Turns IPv4 forwarding on.
pub(super) fn forward_v4() -> Result<bool, Error> {
    set("net/ipv4/ip_forward", "1")
}

/// Turns IPv6 forwarding on. A forwarding host ignores router advertisements unless `accept_ra` is 2; interfaces that
/// learn their addresses and routes that way must not lose them.
pub(super) fn forward_v6() -> Result<bool, Error> {
    let all = "net/ipv6/conf/all/forwarding";
    let failed = |source: io::Error| Error::Sysctl { path: Path::new("/proc/sys").join(all), value: "1", source };
    if fs::read_to_string(Path::new("/proc/sys").join(all)).map_err(failed)?.trim_end() == "1" {
        return Ok(false);
    }
    for interface in fs::read_dir("/proc/sys/net/ipv6/conf").map_err(failed)? {
        let interface = interface.map_err(failed)?.file_name();
        let name = interface.to_string_lossy();
        if name == "all" || name == "default" || name == "lo" {
            continue;
        }
        let accept_ra = format!("net/ipv6/conf/{name}/accept_ra");
        // An interface that goes away meanwhile has nothing to lose.
        if fs::read_to_string(Path::new("/proc/sys").join(&accept_ra)).is_ok_and(|value| value.trim_end() == "1") {
            let _gone = set(&accept_ra, "2");
        }
    }
    set(all, "1")
}

/// The bridge's own, set before it is up: no routes from pods' advertisements (CVE-2020-10749), only packets that the
/// routing table would send back the same way, no redirects to pods that use a host port of their neighbour.
pub(super) fn harden(bridge: &str) -> Result<bool, Error> {
    let mut changed = set(&format!("net/ipv4/conf/{bridge}/rp_filter"), "1")?;
    changed |= set(&format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    if knows_ipv6() {
        changed |= set(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
    }
    Ok(changed)
}

/// Lets (or no longer lets) packets with addresses of 127.0.0.0/8 be routed over the bridge.
pub(super) fn route_localnet(bridge: &str, value: &'static str) -> Result<bool, Error> {
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), value)
}
