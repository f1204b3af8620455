//! Who reaches whom.

use super::*;

#[test]
fn pods_reach_each_other_and_the_host() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let (a, b) = (host.pod(1, &[]), host.pod(2, &[]));
    assert_eq!((a.attached.ip, b.attached.ip), (ip("10.201.0.2"), ip("10.201.0.3")));
    assert_eq!(b.attached.additional, [ip("fd00:201::3")]);
    b.serve(80, "b");
    for v6 in [false, true] {
        let to = SocketAddr::new(b.ip(v6), 80);
        assert_eq!(ask_tcp(&a.namespace, to), Some(format!("b {}", a.ip(v6))));
        assert_eq!(ask_udp(&a.namespace, to), Some(format!("b {}", a.ip(v6))));
        assert!(ask_tcp(&host.namespace, to).unwrap().starts_with("b "));
    }
    let listener = host.namespace.run(|| TcpListener::bind("10.201.0.1:99").unwrap());
    let to = listener.local_addr().unwrap();
    assert!(patiently(|| a.namespace.run(move || TcpStream::connect_timeout(&to, ATTEMPT).ok())).is_some());
    assert!(a.namespace.run(|| TcpListener::bind("127.0.0.1:0").is_ok()), "lo is up");
    assert_eq!(host.with(Bridge::status), Status::Ready);
}

#[test]
fn host_ports_lead_to_pods_from_everywhere() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let outside = host.neighbour();
    let ports = [port(Protocol::Tcp, 8080, None), port(Protocol::Udp, 8080, None), port(Protocol::Tcp, 8081, Some("192.0.2.1"))];
    let (a, b) = (host.pod(1, &ports), host.pod(2, &[]));
    a.serve(80, "a");
    let at = |host: &str, port| SocketAddr::new(ip(host), port);
    for (to, client) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        // The client's address arrives as it is.
        assert_eq!(ask_tcp(&outside, at(to, 8080)), Some(format!("a {client}")));
        assert_eq!(ask_udp(&outside, at(to, 8080)), Some(format!("a {client}")));
        // From the host, from another pod and from the pod itself by the host's address.
        assert!(ask_tcp(&host.namespace, at(to, 8080)).is_some_and(|t| t.starts_with("a ")), "host {to}");
        assert!(ask_udp(&host.namespace, at(to, 8080)).is_some_and(|t| t.starts_with("a ")), "host {to}");
        assert!(ask_tcp(&b.namespace, at(to, 8080)).is_some_and(|t| t.starts_with("a ")), "pod {to}");
        assert!(ask_udp(&b.namespace, at(to, 8080)).is_some_and(|t| t.starts_with("a ")), "pod {to}");
        assert!(ask_tcp(&a.namespace, at(to, 8080)).is_some_and(|t| t.starts_with("a ")), "hairpin {to}");
    }
    assert!(ask_tcp(&host.namespace, at("127.0.0.1", 8080)).is_some_and(|t| t.starts_with("a ")), "loopback");
    assert!(ask_udp(&host.namespace, at("127.0.0.1", 8080)).is_some_and(|t| t.starts_with("a ")), "loopback");
    assert!(ask_tcp(&outside, at("192.0.2.1", 8081)).is_some());
    // A mapping with a host address is for that address alone.
    assert!(silent(&host.namespace, at("127.0.0.1", 8081)));
    assert!(silent(&b.namespace, at("10.201.0.1", 8081)));
    let localnet =
        || std::fs::read_to_string("/proc/sys/net/ipv4/conf/".to_owned() + &config(&BOTH).bridge + "/route_localnet").unwrap();
    assert_eq!(host.namespace.run(localnet).trim(), "1");
    host.detach(a.id);
    assert_eq!(host.namespace.run(localnet).trim(), "0");
    assert!(silent(&outside, at("192.0.2.1", 8080)));
}

#[test]
fn pods_reach_the_outside_by_the_hosts_address() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let outside = host.neighbour();
    let a = host.pod(1, &[]);
    let peers = outside.run(|| {
        let listener = TcpListener::bind(":::99").unwrap();
        thread::spawn(move || [0; 2].map(|_| listener.accept().unwrap().1.ip().to_canonical()))
    });
    for to in ["192.0.2.2", "2001:db8::2"] {
        let to = SocketAddr::new(ip(to), 99);
        assert!(patiently(|| a.namespace.run(move || TcpStream::connect_timeout(&to, ATTEMPT).ok())).is_some(), "{to}");
    }
    assert_eq!(peers.join().unwrap(), [ip("192.0.2.1"), ip("2001:db8::1")]);
}

#[test]
fn a_udp_client_that_never_stops_follows_the_port_to_its_new_pod() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let outside = host.neighbour();
    let client = outside.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    client.set_read_timeout(Some(ATTEMPT)).unwrap();
    // Answers to what was asked twice may come late.
    let answers = |wanted: String| {
        let mut buffer = [0; 64];
        client.send_to(b"?", "192.0.2.1:53").unwrap();
        let length = client.recv(&mut buffer).ok()?;
        (String::from_utf8_lossy(&buffer[..length]) == wanted).then_some(())
    };
    let ports = [port(Protocol::Udp, 53, None)];
    for (number, name) in [(1, "a"), (2, "b")] {
        let pod = host.pod(number, &ports);
        pod.serve(80, name);
        assert!(patiently(|| answers(format!("{name} 192.0.2.2"))).is_some(), "{name}");
        host.detach(pod.id);
    }
}
