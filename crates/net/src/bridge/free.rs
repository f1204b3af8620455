//! A subnet that nobody on this machine has.

use std::net::IpAddr;

use super::{Subnet, link::Links};
use crate::Error;

/// Tried at most; far more than networks on one machine.
const TRIES: u64 = 65_536;

/// A subnet of this length out of `pool` that shares no address with `taken`, nor with an interface or a route of this machine.
/// The search begins at any number, so that those who search at the same time seldom find the same one.
///
/// # Errors
/// There is none; what the kernel says.
pub fn free_subnet(pool: Subnet, length: u8, taken: &[Subnet], begin: u64) -> Result<Subnet, Error> {
    let mut links = Links::open()?;
    let mut busy = links.routes()?;
    let host = |ip: IpAddr| Subnet::new(ip, if ip.is_ipv4() { 32 } else { 128 });
    busy.extend(links.addresses()?.into_iter().filter_map(|(_, ip)| host(ip)));
    busy.extend_from_slice(taken);
    let number = 1_u64.checked_shl(u32::from(length.saturating_sub(pool.length()))).unwrap_or(u64::MAX);
    let candidates = (0..number.min(TRIES)).filter_map(|step| pool.part(length, begin.wrapping_add(step) % number));
    candidates
        .into_iter()
        .find(|subnet| !busy.iter().any(|other| other.overlaps(subnet)))
        .ok_or_else(|| Error::SubnetsExhausted { pool: pool.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testnet::Namespace;

    #[test]
    fn what_is_in_use_is_not_free() {
        if !Namespace::possible() {
            return;
        }
        let host = Namespace::new();
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        let found = host.run(move || {
            let mut links = Links::open().unwrap();
            links.create_bridge("br0", [2, 0, 0, 0, 0, 1], None).unwrap();
            let link = links.find("br0").unwrap().unwrap();
            links.set_up(&link).unwrap();
            links.add_address(&link, "10.9.0.77".parse().unwrap(), 25).unwrap();
            let pool = subnet("10.9.0.0/22");
            let look = |taken: &[Subnet], begin| free_subnet(pool, 24, taken, begin).map(|subnet| subnet.to_string());
            (
                look(&[], 0).unwrap(),
                look(&[subnet("10.9.1.128/25")], 0).unwrap(),
                look(&[], 4 + 3).unwrap(),
                look(&[subnet("10.9.0.0/16")], 0).unwrap_err().to_string(),
            )
        });
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), ("10.9.1.0/24", "10.9.2.0/24", "10.9.3.0/24"));
        assert!(found.3.contains("10.9.0.0/22"), "{}", found.3);
    }
}
