//! The rules: two tables (families inet and bridge) of static rules over sets, and one element per pod and purpose.
//!
//! In family bridge everything that comes from an interface with our prefix is dropped unless a set says that this
//! interface may send with these addresses, so that a pod without elements (not yet set up, or on its way out) cannot
//! send at all. In family inet, maps lead host ports to pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::pod::Protocol;

use super::{
    Plug, Subnet,
    config::{AntiSpoof, Masquerade, Reach},
    nft::{Base, Element, Expressions, Field, Hook, Member, Meta, Op, Register, SetShape, Table, TableFamily},
    ports::Forward,
};
use crate::netlink::Message;

/// What the static rules are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    pub(super) table: &'a str,
    pub(super) bridge: &'a str,
    pub(super) interface_prefix: &'a str,
    pub(super) subnets: &'a [Subnet],
    pub(super) masquerade: Masquerade,
    pub(super) anti_spoof: AntiSpoof,
    pub(super) reach: &'a Reach,
}

const FORWARD: Hook = Hook { kind: "filter", number: 2, priority: -10 };
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const PORTS_V4: SetShape = SetShape { name: "ports_v4", key: &[Field::Protocol, Field::Port], data: &[Field::Ip4, Field::Port] };
const PORTS_V4_AT: SetShape =
    SetShape { name: "ports_v4_at", key: &[Field::Ip4, Field::Protocol, Field::Port], data: &[Field::Ip4, Field::Port] };
const PORTS_V6: SetShape = SetShape { name: "ports_v6", key: &[Field::Protocol, Field::Port], data: &[Field::Ip6, Field::Port] };
const PORTS_V6_AT: SetShape =
    SetShape { name: "ports_v6_at", key: &[Field::Ip6, Field::Protocol, Field::Port], data: &[Field::Ip6, Field::Port] };
const INET_SETS: [SetShape; 4] = [PORTS_V4, PORTS_V4_AT, PORTS_V6, PORTS_V6_AT];

const PODS_MAC: SetShape = SetShape { name: "pods_mac", key: &[Field::Interface, Field::Mac], data: &[] };
const PODS_V4: SetShape = SetShape { name: "pods_v4", key: &[Field::Interface, Field::Ip4], data: &[] };
const PODS_V6: SetShape = SetShape { name: "pods_v6", key: &[Field::Interface, Field::Ip6], data: &[] };
const BRIDGE_SETS: [SetShape; 3] = [PODS_MAC, PODS_V4, PODS_V6];

/// Writes a rule's expressions.
type Fill<'a> = &'a dyn Fn(&mut Expressions<'_>);

fn r(number: u32) -> Register {
    Register(number)
}

/// An interface name as `meta` loads it.
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

impl<'a> Layout<'a> {
    /// The table in family inet.
    pub(super) fn inet(&self) -> Table<'a> {
        Table { family: TableFamily::Inet, name: self.table }
    }

    /// The table in family bridge.
    pub(super) fn bridge_table(&self) -> Table<'a> {
        Table { family: TableFamily::Bridge, name: self.table }
    }

    /// The tables there should be.
    pub(super) fn tables(&self) -> Vec<Table<'a>> {
        match self.anti_spoof {
            AntiSpoof::Enforce => vec![self.inet(), self.bridge_table()],
            AntiSpoof::Off => vec![self.inet()],
        }
    }

    /// Everything that does not depend on pods.
    pub(super) fn static_rules(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        let inet = self.inet();
        messages.extend(INET_SETS.iter().zip(1..).map(|(shape, id)| inet.set(shape, id)));
        self.guard_loopback(&mut messages);
        self.host_ports(&mut messages);
        self.source_addresses(&mut messages);
        self.borders(&mut messages);
        if self.anti_spoof == AntiSpoof::Enforce {
            let bridge = self.bridge_table();
            messages.extend(BRIDGE_SETS.iter().zip(11..).map(|(shape, id)| bridge.set(shape, id)));
            self.anti_spoof(&mut messages);
        }
        messages
    }

    /// `route_localnet` is set on the bridge while a host port may be reached by 127.0.0.1; what comes from pods to or
    /// from such addresses is dropped before connection tracking could turn it into something else (CVE-2020-8558).
    fn guard_loopback(&self, messages: &mut Vec<Message>) {
        let inet = self.inet();
        messages.push(inet.chain("guard", Some(Hook { kind: "filter", number: 0, priority: -300 })));
        for offset in [12, 16] {
            messages.push(inet.rule("guard", |e| {
                e.meta(Meta::InName, r(0)).cmp(r(0), Op::Eq, &padded(self.bridge));
                e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[NFPROTO_IPV4]);
                e.payload(Base::Network, offset, 1, r(0)).cmp(r(0), Op::Eq, &[127]).drop();
            }));
        }
    }

    fn host_ports(&self, messages: &mut Vec<Message>) {
        let inet = self.inet();
        messages.push(inet.chain("ports", None));
        for (proto, offset, length, at, everywhere) in
            [(NFPROTO_IPV4, 16, 4, PORTS_V4_AT, PORTS_V4), (NFPROTO_IPV6, 24, 16, PORTS_V6_AT, PORTS_V6)]
        {
            let registers = length / 4;
            messages.push(inet.rule("ports", |e| {
                e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[proto]);
                e.payload(Base::Network, offset, length, r(0)).meta(Meta::L4Proto, r(registers));
                e.payload(Base::Transport, 2, 2, r(registers + 1));
                e.map(r(0), at.name, r(0)).dnat(proto, r(0), r(registers));
            }));
            messages.push(inet.rule("ports", |e| {
                e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[proto]);
                e.meta(Meta::L4Proto, r(0)).payload(Base::Transport, 2, 2, r(1));
                e.map(r(0), everywhere.name, r(0)).dnat(proto, r(0), r(registers));
            }));
        }
        for (name, number) in [("prerouting", 0), ("output", 3)] {
            messages.push(inet.chain(name, Some(Hook { kind: "nat", number, priority: -100 })));
            messages.push(inet.rule(name, |e| {
                e.local_destination().jump("ports");
            }));
        }
    }

    fn source_addresses(&self, messages: &mut Vec<Message>) {
        let inet = self.inet();
        messages.push(inet.chain("postrouting", Some(Hook { kind: "nat", number: 4, priority: 100 })));
        let bridge = padded(self.bridge);
        // From the node by a loopback address through a host port: the answer has to come back to the bridge.
        messages.push(inet.rule("postrouting", |e| {
            e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Eq, &bridge);
            e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[NFPROTO_IPV4]);
            e.payload(Base::Network, 12, 1, r(0)).cmp(r(0), Op::Eq, &[127]).masquerade();
        }));
        messages.push(inet.rule("postrouting", |e| {
            e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Eq, &bridge);
            e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[NFPROTO_IPV6]);
            e.payload(Base::Network, 8, 16, r(0)).cmp(r(0), Op::Eq, &Ipv6Addr::LOCALHOST.octets()).masquerade();
        }));
        for subnet in self.subnets {
            // From pod to pod (or itself) through a host port: without this, the answer would go straight back over
            // the bridge, from an address that the asker never wrote to.
            messages.push(inet.rule("postrouting", |e| {
                e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Eq, &bridge);
                from_subnet(e, subnet);
                e.was_dnatted().masquerade();
            }));
            if self.masquerade == Masquerade::On {
                messages.push(inet.rule("postrouting", |e| {
                    e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Ne, &bridge);
                    from_subnet(e, subnet);
                    e.masquerade();
                }));
            }
        }
    }

    /// Who may cross the node from or to this bridge. What comes by a host port was let in by whoever published it.
    fn borders(&self, messages: &mut Vec<Message>) {
        let inet = self.inet();
        let ours = padded(self.bridge);
        let out = |e: &mut Expressions<'_>| {
            e.meta(Meta::InName, r(0)).cmp(r(0), Op::Eq, &ours).meta(Meta::OutName, r(0)).cmp(r(0), Op::Ne, &ours);
        };
        let into = |e: &mut Expressions<'_>| {
            e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Eq, &ours).meta(Meta::InName, r(0)).cmp(r(0), Op::Ne, &ours);
        };
        match self.reach {
            Reach::All => {}
            Reach::Inside => {
                messages.push(inet.chain("borders", Some(FORWARD)));
                messages.push(inet.rule("borders", |e| {
                    out(e);
                    e.drop();
                }));
                messages.push(inet.rule("borders", |e| {
                    into(e);
                    e.drop();
                }));
            }
            Reach::Apart { prefix, others } => {
                messages.push(inet.chain("borders", Some(FORWARD)));
                messages.push(inet.rule("borders", |e| {
                    e.was_dnatted().accept();
                }));
                // A prefix is compared only as far as it goes.
                let names = others.iter().map(|name| padded(name).to_vec()).chain([prefix.as_bytes().to_vec()]);
                for name in names.filter(|name| !name.is_empty()) {
                    messages.push(inet.rule("borders", |e| {
                        out(e);
                        e.meta(Meta::OutName, r(0)).cmp(r(0), Op::Eq, &name).drop();
                    }));
                    messages.push(inet.rule("borders", |e| {
                        into(e);
                        e.meta(Meta::InName, r(0)).cmp(r(0), Op::Eq, &name).drop();
                    }));
                }
            }
        }
    }

    fn anti_spoof(&self, messages: &mut Vec<Message>) {
        const ARP: [u8; 2] = [0x08, 0x06];
        const IPV4: [u8; 2] = [0x08, 0x00];
        const IPV6: [u8; 2] = [0x86, 0xdd];
        let table = self.bridge_table();
        let first = Hook { kind: "filter", number: 0, priority: -300 };
        for (name, hook) in [("pod", None), ("arp", None), ("ip6", None), ("prerouting", Some(first))] {
            messages.push(table.chain(name, hook));
        }
        let mut rule = |chain: &str, fill: Fill<'_>| messages.push(table.rule(chain, |e| fill(e)));

        rule("prerouting", &|e| {
            // Compared only as far as the prefix goes.
            e.meta(Meta::InName, r(0)).cmp(r(0), Op::Eq, self.interface_prefix.as_bytes()).jump("pod");
        });
        rule("pod", &|e| {
            e.meta(Meta::InName, r(0)).payload(Base::Link, 6, 6, r(4)).lookup(r(0), Member::No, PODS_MAC.name).drop();
        });
        rule("pod", &|e| {
            e.meta(Meta::EtherType, r(0)).cmp(r(0), Op::Eq, &IPV4);
            e.meta(Meta::InName, r(0)).payload(Base::Network, 12, 4, r(4)).lookup(r(0), Member::Yes, PODS_V4.name).accept();
        });
        rule("pod", &|e| {
            e.meta(Meta::EtherType, r(0)).cmp(r(0), Op::Eq, &IPV6).jump("ip6");
        });
        rule("pod", &|e| {
            e.meta(Meta::EtherType, r(0)).cmp(r(0), Op::Eq, &ARP).jump("arp");
        });
        rule("pod", &|e| {
            e.drop();
        });
        // ARP: sender hardware address at 8, sender protocol address at 14 (RFC 826).
        rule("arp", &|e| {
            e.meta(Meta::InName, r(0)).payload(Base::Network, 8, 6, r(4)).lookup(r(0), Member::No, PODS_MAC.name).drop();
        });
        rule("arp", &|e| {
            e.meta(Meta::InName, r(0)).payload(Base::Network, 14, 4, r(4)).lookup(r(0), Member::Yes, PODS_V4.name).accept();
        });
        self.anti_spoof_v6(messages);
    }

    fn anti_spoof_v6(&self, messages: &mut Vec<Message>) {
        const ICMPV6: u8 = 58;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        let table = self.bridge_table();
        let mut rule = |chain: &str, fill: Fill<'_>| messages.push(table.rule(chain, |e| fill(e)));
        for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
            rule("ip6", &|e| {
                e.meta(Meta::L4Proto, r(0)).cmp(r(0), Op::Eq, &[ICMPV6]);
                e.payload(Base::Transport, 0, 1, r(0)).cmp(r(0), Op::Eq, &[kind]).drop();
            });
        }
        // A pod advertises only addresses of its own: the target follows 8 bytes of header (RFC 4861, 4.4).
        rule("ip6", &|e| {
            e.meta(Meta::L4Proto, r(0)).cmp(r(0), Op::Eq, &[ICMPV6]);
            e.payload(Base::Transport, 0, 1, r(0)).cmp(r(0), Op::Eq, &[NEIGHBOUR_ADVERTISEMENT]);
            e.meta(Meta::InName, r(0)).payload(Base::Transport, 8, 16, r(4)).lookup(r(0), Member::No, PODS_V6.name).drop();
        });
        rule("ip6", &|e| {
            e.meta(Meta::InName, r(0)).payload(Base::Network, 8, 16, r(4)).lookup(r(0), Member::Yes, PODS_V6.name).accept();
        });
        // Duplicate address detection and multicast listener reports have no source address yet (RFC 4862, RFC 3590).
        rule("ip6", &|e| {
            e.payload(Base::Network, 8, 16, r(0)).cmp(r(0), Op::Eq, &[0; 16]);
            e.meta(Meta::L4Proto, r(0)).cmp(r(0), Op::Eq, &[ICMPV6]).accept();
        });
    }
}

/// Matches packets whose source is in the subnet.
fn from_subnet(e: &mut Expressions<'_>, subnet: &Subnet) {
    let (proto, offset, network) = match subnet.network() {
        IpAddr::V4(ip) => (NFPROTO_IPV4, 12, ip.octets().to_vec()),
        IpAddr::V6(ip) => (NFPROTO_IPV6, 8, ip.octets().to_vec()),
    };
    let bits = usize::from(subnet.length());
    let mask: Vec<u8> =
        (0..network.len()).map(|i| u8::MAX.checked_shl(8 - bits.saturating_sub(i * 8).min(8) as u32).unwrap_or(0)).collect();
    let length = u32::try_from(network.len()).expect("an address is short");
    e.meta(Meta::NfProto, r(0)).cmp(r(0), Op::Eq, &[proto]);
    e.payload(Base::Network, offset, length, r(0)).mask(r(0), &mask).cmp(r(0), Op::Eq, &network);
}

/// The address that the kernel makes from a MAC (RFC 4291, appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The elements of a pod in family bridge: what its interface may send with.
pub(super) fn sender_elements(plug: &Plug) -> Vec<Element> {
    let name = padded(&plug.interface);
    let element = |set, value: &[u8]| Element { set, key: [&name, value].concat(), data: Vec::new() };
    let mut mac = plug.mac.to_vec();
    mac.extend([0; 2]);
    let mut elements = vec![element(PODS_MAC.name, &mac)];
    if plug.ips.iter().any(IpAddr::is_ipv6) {
        elements.push(element(PODS_V6.name, &link_local(plug.mac).octets()));
    }
    elements.extend(plug.ips.iter().map(|ip| element(if ip.is_ipv4() { PODS_V4.name } else { PODS_V6.name }, &octets(*ip))));
    elements
}

/// The elements of a pod in family inet: its host ports.
pub(super) fn port_elements(forwards: &[Forward]) -> Vec<Element> {
    forwards.iter().map(port_element).collect()
}

fn port_element(forward: &Forward) -> Element {
    let number = protocol_number(forward.from.protocol);
    let port = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    };
    let (set, at) = match forward.from.host_ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (PORTS_V4.name, Vec::new()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (PORTS_V6.name, Vec::new()),
        ip @ IpAddr::V4(_) => (PORTS_V4_AT.name, octets(ip)),
        ip @ IpAddr::V6(_) => (PORTS_V6_AT.name, octets(ip)),
    };
    let key = [&at[..], &[number, 0, 0, 0], &port(forward.from.port)].concat();
    Element { set, key, data: [&octets(forward.to_ip)[..], &port(forward.to_port)].concat() }
}

/// IANA's protocol number.
pub(super) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_those_of_the_kernel() {
        assert_eq!(link_local([0x52, 0x54, 0, 0x12, 0x34, 0x56]).to_string(), "fe80::5054:ff:fe12:3456");
    }
}
