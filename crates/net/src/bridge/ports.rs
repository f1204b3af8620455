//! Which pod has which port of the host.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{
    PodId,
    pod::{PortMapping, Protocol},
};

use crate::Error;

/// A port of the host in one family, as the rules know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostPort {
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// The one host address; unspecified: all of the family.
    pub(super) host_ip: IpAddr,
}

/// A host port and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) from: HostPort,
    pub(super) to_ip: IpAddr,
    pub(super) to_port: u16,
}

impl HostPort {
    fn text(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        format!("{}/{protocol}", std::net::SocketAddr::new(self.host_ip, self.port))
    }

    /// The same port with all addresses.
    fn everywhere(self) -> Self {
        let host_ip = match self.host_ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { host_ip, ..self }
    }
}

/// What a pod's mappings mean for its addresses. A mapping without a host address is for all families that the pod has.
pub(super) fn forwards(ports: &[PortMapping], ips: &[IpAddr]) -> Result<Vec<Forward>, Error> {
    let mut all = Vec::new();
    for mapping in ports {
        let invalid = |why| Error::PortInvalid { host_port: mapping.host_port, protocol: mapping.protocol, why };
        if mapping.host_port == 0 || mapping.container_port == 0 {
            return Err(invalid("port 0 cannot be mapped"));
        }
        let host_ip = mapping.host_ip.map(|ip| ip.to_canonical());
        // 0.0.0.0 and :: are what docker and kubectl users write for "all".
        let wanted = host_ip.filter(|ip| !ip.is_unspecified());
        let before = all.len();
        for ip in ips.iter().filter(|ip| wanted.is_none_or(|wanted| wanted.is_ipv4() == ip.is_ipv4())) {
            let port = HostPort { protocol: mapping.protocol, port: mapping.host_port, host_ip: wanted.unwrap_or(*ip) };
            let from = if wanted.is_some() { port } else { port.everywhere() };
            all.push(Forward { from, to_ip: *ip, to_port: mapping.container_port });
        }
        if all.len() == before {
            return Err(invalid("the pod has no address of the host address's family"));
        }
        // Two containers of a pod may name the very same mapping.
        let (known, new) = all.split_at(before);
        if new.iter().all(|forward| known.contains(forward)) {
            all.truncate(before);
        }
    }
    Ok(all)
}

/// How often a port is asked for that turns out to lead into a pod.
const TRIES: usize = 100;

/// The host ports of a node, which all of its bridges share.
#[derive(Clone, Debug, Default)]
pub struct PortBook(Arc<Mutex<Ports>>);

impl PortBook {
    /// A port of this machine that no pod has and no program listens on; it may be taken by somebody in the next moment.
    pub fn free(&self, protocol: Protocol, host_ip: Option<IpAddr>) -> Option<u16> {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let candidates = std::iter::repeat_with(|| match protocol {
            Protocol::Udp => UdpSocket::bind((host_ip.unwrap_or(any), 0)).and_then(|socket| socket.local_addr()),
            Protocol::Tcp | Protocol::Sctp => TcpListener::bind((host_ip.unwrap_or(any), 0)).and_then(|socket| socket.local_addr()),
        });
        let families = [any, IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let held = |port: u16| {
            let addresses = host_ip.map_or_else(|| families.to_vec(), |ip| vec![ip]);
            addresses.into_iter().any(|host_ip| self.lock().holder(HostPort { protocol, port, host_ip }).is_some())
        };
        candidates.take(TRIES).flatten().map(|address| address.port()).find(|port| !held(*port))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection to 127.0.0.0/8 can lead by one of these.
pub(super) fn any_on_v4_loopback<'f>(mut forwards: impl Iterator<Item = &'f Forward>) -> bool {
    forwards.any(|forward| match forward.from.host_ip {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_loopback(),
        IpAddr::V6(_) => false,
    })
}

/// All host ports in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    held: HashMap<HostPort, PodId>,
    /// How often a port is held with some particular address, so that "all addresses" is checked without a search.
    particular: HashMap<HostPort, HashMap<IpAddr, PodId>>,
}

impl Ports {
    /// Reserves all of a pod's ports, or none. A port with all addresses excludes the same port with any one.
    pub(super) fn take(&mut self, pod: PodId, forwards: &[Forward]) -> Result<(), Error> {
        let mut mine = HashSet::new();
        for forward in forwards {
            let port = forward.from;
            if !mine.insert(port) {
                return Err(Error::PortTwice { port: port.text() });
            }
            if let Some(holder) = self.holder(port) {
                return Err(Error::PortTaken { port: port.text(), holder });
            }
        }
        self.mark(pod, forwards);
        Ok(())
    }

    fn holder(&self, port: HostPort) -> Option<PodId> {
        let everywhere = port.everywhere();
        let same = self.held.get(&port).or_else(|| self.held.get(&everywhere));
        let part = || self.particular.get(&everywhere).filter(|_| port == everywhere).and_then(|m| m.values().next());
        same.or_else(part).copied()
    }

    /// Notes what a pod has.
    pub(super) fn mark(&mut self, pod: PodId, forwards: &[Forward]) {
        for port in forwards.iter().map(|f| f.from) {
            self.held.insert(port, pod);
            if port != port.everywhere() {
                self.particular.entry(port.everywhere()).or_default().insert(port.host_ip, pod);
            }
        }
    }

    /// Frees a pod's ports.
    pub(super) fn give_back(&mut self, pod: PodId, forwards: &[Forward]) {
        for port in forwards.iter().map(|f| f.from) {
            if self.held.get(&port) != Some(&pod) {
                continue;
            }
            self.held.remove(&port);
            if let Some(parts) = self.particular.get_mut(&port.everywhere()) {
                parts.remove(&port.host_ip);
                if parts.is_empty() {
                    self.particular.remove(&port.everywhere());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::ErrorKind;

    use super::*;

    fn mapping(host_port: u16, host_ip: Option<&str>) -> PortMapping {
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: host_ip.map(|t| t.parse().unwrap()) }
    }

    fn ips() -> Vec<IpAddr> {
        vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]
    }

    #[test]
    fn mappings_become_forwards_of_the_right_family() {
        let both = forwards(&[mapping(8080, None)], &ips()).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(forwards(&[mapping(8080, Some("0.0.0.0"))], &ips()).unwrap(), both);
        let one = forwards(&[mapping(8080, Some("192.0.2.1"))], &ips()).unwrap();
        assert_eq!((one.len(), one[0].to_ip), (1, ips()[0]));
        assert_eq!(forwards(&[mapping(8080, Some("::1"))], &ips()).unwrap()[0].to_ip, ips()[1]);
        assert_eq!(forwards(&[mapping(0, None)], &ips()).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(forwards(&[mapping(1, Some("::1"))], &ips()[..1]).is_err());
    }

    #[test]
    fn free_ports_are_free() {
        let book = PortBook::default();
        let port = book.free(Protocol::Tcp, None).unwrap();
        assert!(port > 0 && book.free(Protocol::Udp, Some("127.0.0.1".parse().unwrap())).is_some());
        assert_eq!(book.free(Protocol::Tcp, Some("203.0.113.77".parse().unwrap())), None, "no address of this machine");
    }

    #[test]
    fn conflicts_name_the_port_and_the_holder() {
        let (a, b) = (PodId::from_bytes([1; 32]), PodId::from_bytes([2; 32]));
        let make = |port, ip| forwards(&[mapping(port, ip)], &ips()).unwrap();
        let mut ports = Ports::default();
        ports.take(a, &make(80, Some("192.0.2.1"))).unwrap();
        ports.take(b, &make(80, Some("192.0.2.2"))).unwrap();
        let error = ports.take(b, &make(80, None)).unwrap_err();
        assert!(error.to_string().contains("80/tcp"), "{error}");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        ports.take(b, &make(81, None)).unwrap();
        let error = ports.take(a, &make(81, Some("192.0.2.1"))).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:81/tcp") && error.contains(&b.to_string()), "{error}");
        assert!(any_on_v4_loopback(make(81, None).iter()) && !any_on_v4_loopback(make(81, Some("192.0.2.1")).iter()));
        ports.give_back(a, &make(81, None));
        assert!(ports.take(a, &make(81, None)).is_err(), "a pod cannot free what another one holds");
        ports.give_back(b, &make(81, None));
        ports.take(a, &make(81, None)).unwrap();
        let other = PortMapping { container_port: 81, ..mapping(90, None) };
        let twice = forwards(&[mapping(90, None), other], &ips()).unwrap();
        assert!(matches!(ports.take(a, &twice), Err(Error::PortTwice { .. })));
        let same = forwards(&[mapping(90, None), mapping(90, None), mapping(90, Some("192.0.2.1"))], &ips()).unwrap();
        assert_eq!(same.len(), 3);
        ports.take(a, &same).unwrap();
    }
}
