//! Links, addresses and routes over rtnetlink (rtnetlink(7); include/uapi/linux/if_link.h).

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::Errno;

use super::Subnet;
use crate::{
    Error, NetlinkError,
    netlink::{Attributes, Family, Message, Socket, attribute_text, attribute_u32},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 0x02;

/// struct ifinfomsg and struct ifaddrmsg.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

/// An interface, as much of it as is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `bridge`, `veth`, ...; empty for physical devices.
    pub(super) kind: String,
    pub(super) up: bool,
    pub(super) master: Option<u32>,
}

/// One end of a new veth pair on the host, the other one in a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewVeth<'a> {
    pub(super) name: &'a str,
    pub(super) bridge: u32,
    pub(super) peer_name: &'a str,
    pub(super) peer_mac: [u8; 6],
    pub(super) peer_namespace: BorrowedFd<'a>,
    pub(super) mtu: Option<u32>,
}

/// Whether a pod can leave its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// By default routes to the bridge.
    Gateway,
    /// It cannot.
    None,
}

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn ip_header(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    }
}

fn parse_link(reply: &[u8]) -> Option<Link> {
    let number = |at: usize| Some(u32::from_ne_bytes(reply.get(at..at + 4)?.try_into().ok()?));
    let attributes = Attributes(reply.get(IFINFOMSG..)?);
    let info = attributes.get(IFLA_LINKINFO).map(Attributes);
    Some(Link {
        index: number(4)?,
        name: attributes.get(IFLA_IFNAME).map(attribute_text)?,
        kind: info.and_then(|i| i.get(IFLA_INFO_KIND)).map(attribute_text).unwrap_or_default(),
        up: number(8)? & IFF_UP != 0,
        master: attributes.get(IFLA_MASTER).and_then(attribute_u32),
    })
}

/// An rtnetlink socket in one network namespace.
#[derive(Debug)]
pub(super) struct Links(Socket);

fn failed(action: String) -> impl FnOnce(NetlinkError) -> Error {
    move |source| Error::Netlink { action, source }
}

impl Links {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Error> {
        Socket::open(Family::Route).map(Self).map_err(failed("open rtnetlink socket".into()))
    }

    /// The interface of this name, if there is one.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = Message::new(RTM_GETLINK, 0, &ifinfomsg(0, 0, 0));
        request.put_text(IFLA_IFNAME, name).put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        match self.0.query(&request) {
            Ok(replies) => Ok(replies.first().and_then(|reply| parse_link(reply))),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(failed(format!("look for interface {name}"))(error)),
        }
    }

    /// All interfaces.
    pub(super) fn list(&mut self) -> Result<Vec<Link>, Error> {
        let mut request = Message::new(RTM_GETLINK, NLM_F_DUMP, &ifinfomsg(0, 0, 0));
        request.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let replies = self.0.query(&request).map_err(failed("list interfaces".into()))?;
        Ok(replies.iter().filter_map(|reply| parse_link(reply)).collect())
    }

    /// All addresses of all interfaces, by interface index.
    pub(super) fn addresses(&mut self) -> Result<Vec<(u32, IpAddr)>, Error> {
        let request = Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG]);
        let replies = self.0.query(&request).map_err(failed("list addresses".into()))?;
        let parse = |reply: &Vec<u8>| {
            let index = u32::from_ne_bytes(reply.get(4..8)?.try_into().ok()?);
            let attributes = Attributes(reply.get(IFADDRMSG..)?);
            // IFA_LOCAL where there is one: IFA_ADDRESS is the peer's on point-to-point links.
            let value = attributes.get(2).or_else(|| attributes.get(1))?;
            let ip = match value.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
                _ => return None,
            };
            Some((index, ip))
        };
        Ok(replies.iter().filter_map(parse).collect())
    }

    /// Where packets go that do not go to the default gateway: the destinations of all routes.
    pub(super) fn routes(&mut self) -> Result<Vec<Subnet>, Error> {
        const RTM_GETROUTE: u16 = 26;
        const RTMSG: usize = 12;
        const RTA_DST: u16 = 1;
        let request = Message::new(RTM_GETROUTE, NLM_F_DUMP, &[0; RTMSG]);
        let replies = self.0.query(&request).map_err(failed("list routes".into()))?;
        let parse = |reply: &Vec<u8>| {
            let length = *reply.get(1)?;
            let value = Attributes(reply.get(RTMSG..)?).get(RTA_DST)?;
            let ip = match value.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
                _ => return None,
            };
            Subnet::new(ip, length).filter(|_| length > 0)
        };
        Ok(replies.iter().filter_map(parse).collect())
    }

    /// Creates a bridge, still down. Its MAC is set because a bridge without one of its own takes its ports' by turns.
    pub(super) fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: Option<u32>) -> Result<(), Error> {
        let mut request = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfomsg(0, 0, 0));
        request.put_text(IFLA_IFNAME, name).put(IFLA_ADDRESS, &mac).nest(IFLA_LINKINFO, |m| {
            m.put_text(IFLA_INFO_KIND, "bridge");
        });
        if let Some(mtu) = mtu {
            request.put_u32(IFLA_MTU, mtu);
        }
        self.run(request, || format!("create bridge {name}"))
    }

    /// Creates a veth pair in one request: host end in the bridge and up, pod's end in its
    /// namespace. That one stays down: the kernel brings it up before the other exists, and refuses (veth_open, ENOTCONN).
    pub(super) fn create_veth(&mut self, veth: &NewVeth<'_>) -> Result<(), Error> {
        let mut request = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfomsg(0, IFF_UP, IFF_UP));
        request.put_text(IFLA_IFNAME, veth.name).put_u32(IFLA_MASTER, veth.bridge);
        if let Some(mtu) = veth.mtu {
            request.put_u32(IFLA_MTU, mtu);
        }
        let fd = u32::try_from(veth.peer_namespace.as_raw_fd()).expect("an open file descriptor is not negative");
        request.nest(IFLA_LINKINFO, |info| {
            info.put_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.put_raw(&ifinfomsg(0, 0, 0)).put_text(IFLA_IFNAME, veth.peer_name);
                    peer.put(IFLA_ADDRESS, &veth.peer_mac).put_u32(IFLA_NET_NS_FD, fd);
                    if let Some(mtu) = veth.mtu {
                        peer.put_u32(IFLA_MTU, mtu);
                    }
                });
            });
        });
        let requests = [request, port_options(veth.name)];
        self.0.execute(if veth.bridge == 0 { &requests[..1] } else { &requests }).map_err(|(index, error)| {
            let what = if index == 0 { "create veth pair" } else { "set options of veth pair" };
            failed(format!("{what} {} and {}", veth.name, veth.peer_name))(error)
        })
    }

    /// Removes an interface; one that is not there is fine. Takes tens of milliseconds: the kernel waits until no CPU
    /// looks at the device any more.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), Error> {
        let mut request = Message::new(RTM_DELLINK, 0, &ifinfomsg(0, 0, 0));
        request.put_text(IFLA_IFNAME, name);
        match self.run(request, || format!("remove interface {name}")) {
            Err(Error::Netlink { source, .. }) if source.errno() == Some(Errno::NODEV) => Ok(()),
            other => other,
        }
    }

    /// Brings an interface up.
    pub(super) fn set_up(&mut self, link: &Link) -> Result<(), Error> {
        let request = Message::new(RTM_SETLINK, 0, &ifinfomsg(link.index, IFF_UP, IFF_UP));
        self.run(request, || format!("bring interface {} up", link.name))
    }

    fn run(&mut self, request: Message, action: impl FnOnce() -> String) -> Result<(), Error> {
        self.0.execute(&[request]).map_err(|(_, error)| failed(action())(error))
    }

    /// Gives an interface an address. Returns whether it did not have it yet.
    pub(super) fn add_address(&mut self, link: &Link, ip: IpAddr, length: u8) -> Result<bool, Error> {
        let request = new_address(link.index, ip, length);
        match self.run(request, || format!("give interface {} address {ip}/{length}", link.name)) {
            Ok(()) => Ok(true),
            Err(Error::Netlink { source, .. }) if source.errno() == Some(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an address from an interface.
    #[cfg(test)]
    pub(super) fn remove_address(&mut self, link: &Link, ip: IpAddr, length: u8) -> Result<(), Error> {
        const RTM_DELADDR: u16 = 21;
        let (family, octets) = ip_header(ip);
        let mut header = [0; IFADDRMSG];
        header[..2].copy_from_slice(&[family, length]);
        header[4..8].copy_from_slice(&link.index.to_ne_bytes());
        let mut request = Message::new(RTM_DELADDR, 0, &header);
        request.put(2, &octets);
        self.run(request, || format!("take address {ip} from interface {}", link.name))
    }

    /// Makes an interface a port of a bridge.
    pub(super) fn set_master(&mut self, link: &Link, bridge: u32) -> Result<(), Error> {
        let mut request = Message::new(RTM_SETLINK, 0, &ifinfomsg(link.index, 0, 0));
        request.put_u32(IFLA_MASTER, bridge);
        self.0
            .execute(&[request, port_options(&link.name)])
            .map_err(|(_, error)| failed(format!("put interface {} into the bridge", link.name))(error))
    }

    /// Gives a pod default routes by an interface that it has.
    pub(super) fn lead_out(&mut self, link: &Link, subnets: &[Subnet]) -> Result<(), Error> {
        let requests: Vec<_> = subnets.iter().map(|subnet| default_route(link.index, subnet.gateway())).collect();
        match self.0.execute(&requests) {
            // It has another one: as good.
            Err((_, error)) if error.errno() == Some(Errno::EXIST) => Ok(()),
            done => done.map_err(|(_, error)| failed(format!("lead out by interface {}", link.name))(error)),
        }
    }

    /// Brings a pod's interface up and gives it its addresses and default routes, in one system call.
    pub(super) fn configure_pod(&mut self, link: &Link, addresses: &[(IpAddr, Subnet)], out: WayOut) -> Result<(), Error> {
        let mut requests = vec![Message::new(RTM_SETLINK, 0, &ifinfomsg(link.index, IFF_UP, IFF_UP))];
        requests.extend(addresses.iter().map(|(ip, subnet)| new_address(link.index, *ip, subnet.length())));
        if out == WayOut::Gateway {
            requests.extend(addresses.iter().map(|(_, subnet)| default_route(link.index, subnet.gateway())));
        }
        self.0.execute(&requests).map_err(|(index, error)| {
            let what = match index.checked_sub(1).map(|index| (addresses.get(index), index)) {
                None => "up".to_owned(),
                Some((Some((ip, _)), _)) => format!("to have address {ip}"),
                Some((None, index)) => format!("to have a route by {}", addresses[index % addresses.len()].1.gateway()),
            };
            failed(format!("bring interface {} {what}", link.name))(error)
        })
    }
}

/// Options of a port of the bridge that can be set only once it is one.
///
/// Hairpin mode: where br_netfilter is on (Kubernetes nodes need it), a pod that reaches itself through a host port or
/// a service has its packets sent back by the port that they came from. And no IPv6 address on the port itself: only
/// the bridge speaks IP.
fn port_options(name: &str) -> Message {
    const IFLA_AF_SPEC: u16 = 26;
    const AF_INET6: u16 = 10;
    const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    const IFLA_BRPORT_MODE: u16 = 4;
    let mut request = Message::new(RTM_NEWLINK, 0, &ifinfomsg(0, 0, 0));
    request.put_text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
        info.put_text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
            data.put(IFLA_BRPORT_MODE, &[1]);
        });
    });
    if super::sysctl::knows_ipv6() {
        request.nest(IFLA_AF_SPEC, |spec| {
            spec.nest(AF_INET6, |inet6| {
                inet6.put(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    }
    request
}

/// Without duplicate address detection: the address is ours to give, and the pod can use it at once.
fn new_address(index: u32, ip: IpAddr, length: u8) -> Message {
    let (family, octets) = ip_header(ip);
    let mut header = [0; IFADDRMSG];
    header[..3].copy_from_slice(&[family, length, IFA_F_NODAD]);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header);
    request.put(1, &octets).put(2, &octets);
    if let IpAddr::V4(ip) = ip
        && length < 31
    {
        let broadcast = u32::from(ip) | u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        request.put(4, &broadcast.to_be_bytes());
    }
    request
}

fn default_route(index: u32, gateway: IpAddr) -> Message {
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_BOOT: u8 = 3;
    const RTN_UNICAST: u8 = 1;
    let (family, octets) = ip_header(gateway);
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let header = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    let mut request = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &header);
    request.put(5, &octets).put_u32(4, index);
    request
}
