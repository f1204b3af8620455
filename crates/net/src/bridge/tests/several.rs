//! Several bridges on one node.

use super::*;
use crate::bridge::{PortBook, Reach};

fn named(name: &str, subnet: &str, reach: Reach) -> BridgeConfig {
    let subnets = Subnets::Fixed(vec![subnet.parse().unwrap()]);
    let (bridge, table, interface_prefix) = (format!("crl-{name}"), format!("creel_{name}"), format!("n{name}"));
    BridgeConfig { bridge, table, interface_prefix, subnets, reach, ..BridgeConfig::for_instance("test") }
}

fn apart() -> Reach {
    Reach::Apart { prefix: "crl-".to_owned(), others: vec!["pods".to_owned()] }
}

impl Host {
    /// A further bridge in the same host.
    fn another(&self, config: BridgeConfig) -> Arc<Bridge> {
        let ports = self.bridge.ports();
        self.namespace.run(move || Arc::new(Bridge::with_ports(config, ports).unwrap()))
    }

    fn pod_on(&self, bridge: &Arc<Bridge>, number: u16, order: (&[PortMapping], Option<&str>)) -> Result<Pod, Error> {
        let (namespace, id) = (Namespace::new(), pod_id(number));
        let (path, bridge, ports, wanted) = (namespace.path().to_owned(), bridge.clone(), order.0.to_vec(), order.1.map(ip));
        let attached = self.namespace.run(move || {
            let key = key("p");
            bridge.attach_as(
                &AttachRequest { pod: id, key: &key, netns: &path, ports: &ports, dns: None },
                crate::bridge::Interface { ip: wanted, ..Default::default() },
            )
        })?;
        Ok(Pod { namespace, id, attached })
    }
}

#[test]
fn they_do_not_reach_each_other_but_by_ports() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(BridgeConfig { bridge: "pods".into(), ..config(&["10.201.0.0/24"]) });
    let one = host.another(named("one", "10.202.0.0/24", apart()));
    let two = host.another(named("two", "10.203.0.0/24", apart()));
    let inside = host.another(named("in", "10.204.0.0/24", Reach::Inside));
    let open = [port(Protocol::Tcp, 8080, None)];
    let a = host.pod_on(&one, 1, (&open, None)).unwrap();
    let b = host.pod_on(&two, 2, (&[], None)).unwrap();
    let neighbour = host.pod_on(&one, 3, (&[], Some("10.202.0.99"))).unwrap();
    let closed = host.pod_on(&inside, 4, (&[], None)).unwrap();
    let plain = host.pod(5, &[]);
    assert_eq!(neighbour.attached.ip, ip("10.202.0.99"));
    for pod in [&a, &b, &closed, &plain] {
        pod.serve(80, "pod");
    }
    let at = |pod: &Pod| SocketAddr::new(pod.attached.ip, 80);
    assert!(ask_tcp(&neighbour.namespace, at(&a)).is_some(), "in one network");
    // Packets that are dropped are waited for in vain: short, and all at once.
    let silent = |from: &Pod, to: SocketAddr| from.namespace.run(move || TcpStream::connect_timeout(&to, SILENCE).is_err());
    for (from, to) in [(&a, &b), (&b, &a), (&a, &plain), (&plain, &a), (&closed, &a), (&a, &closed), (&closed, &plain)] {
        assert!(silent(from, at(to)), "{} reaches {}", from.attached.ip, to.attached.ip);
    }
    let published = SocketAddr::new(ip("10.203.0.1"), 8080);
    assert!(ask_tcp(&b.namespace, published).is_some(), "by a port of the node");
    assert!(ask_tcp(&host.namespace, at(&closed)).is_some(), "the node reaches everybody");
    let missing = closed.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().connect("192.0.2.1:9").is_err());
    assert!(missing, "no route leads out of a closed network");
}

#[test]
fn they_share_the_nodes_ports_and_leave_nothing() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&["10.201.0.0/24"]));
    let one = host.another(named("one", "10.202.0.0/24", apart()));
    let open = [port(Protocol::Tcp, 8080, None)];
    let holder = host.pod(1, &open);
    let error = host.pod_on(&one, 2, (&open, None)).err().unwrap();
    assert!(matches!(error, Error::PortTaken { .. }), "{error}");
    assert_ne!(host.bridge.ports().free(Protocol::Tcp, None), Some(8080));
    host.detach(holder.id);
    let now = host.pod_on(&one, 2, (&open, Some("10.202.0.7"))).unwrap();
    for (wanted, taken) in [("10.202.0.7", true), ("10.202.0.1", false), ("10.99.0.1", false)] {
        let error = host.pod_on(&one, 3, (&[], Some(wanted))).err().unwrap();
        assert_eq!(matches!(error, Error::AddressTaken { .. }), taken, "{error}");
        assert_eq!(matches!(error, Error::AddressOutside { .. }), !taken, "{error}");
    }
    let endpoints = one.endpoints();
    assert_eq!((endpoints.len(), endpoints[0].pod, endpoints[0].addresses[0]), (1, now.id, (ip("10.202.0.7"), 24)));
    let bridge = one.clone();
    host.namespace.run(move || {
        bridge.detach(now.id).unwrap();
        bridge.remove().unwrap();
        bridge.remove().unwrap();
        assert!(Links::open().unwrap().find("crl-one").unwrap().is_none());
        assert!(bridge.heal().unwrap(), "it can be made anew");
    });
    assert!(PortBook::default().free(Protocol::Udp, None).is_some());
}
