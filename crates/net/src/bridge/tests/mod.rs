//! The bridge on the real kernel. A network namespace plays the host, so that the machine's own network stays as it is.

mod isolation;
mod life;
mod several;
mod traffic;

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use model::{
    ErrorKind, PodId,
    pod::{PortMapping, Protocol},
};

use super::{
    link::{Links, NewVeth},
    nft::{Table, TableFamily, batch_begin, batch_end},
    *,
};
use crate::{
    AttachRequest, Attached,
    netlink::{Family, Socket},
    testnet::{Namespace, key, pod_id},
};

/// For what must come about, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one attempt at it: a packet is lost where nobody has noticed yet that a new link has its carrier, and so is IPv6's
/// first route.
const ATTEMPT: Duration = Duration::from_secs(1);
/// For what must not arrive.
const SILENCE: Duration = Duration::from_millis(400);

struct Host {
    namespace: Namespace,
    bridge: Arc<Bridge>,
}

struct Pod {
    namespace: Namespace,
    id: PodId,
    attached: Attached,
}

fn config(subnets: &[&str]) -> BridgeConfig {
    let subnets = Subnets::UntilPodCidr(subnets.iter().map(|t| t.parse().unwrap()).collect());
    BridgeConfig { subnets, ..BridgeConfig::for_instance("test") }
}

fn attach(bridge: &Bridge, id: PodId, netns: PathBuf, ports: &[PortMapping]) -> Result<Attached, Error> {
    bridge.attach(&AttachRequest { pod: id, key: &key("p"), netns: &netns, ports, dns: None })
}

impl Host {
    fn new(config: BridgeConfig) -> Self {
        let namespace = Namespace::new();
        let bridge = namespace.run(|| {
            let mut links = Links::open().unwrap();
            let lo = links.find("lo").unwrap().unwrap();
            links.set_up(&lo).unwrap();
            Arc::new(Bridge::new(config).unwrap())
        });
        Self { namespace, bridge }
    }

    fn with<T: Send + 'static>(&self, job: impl FnOnce(&Bridge) -> T + Send + 'static) -> T {
        let bridge = Arc::clone(&self.bridge);
        self.namespace.run(move || job(&bridge))
    }

    fn try_pod(&self, number: u16, ports: &[PortMapping]) -> Result<Pod, Error> {
        let (namespace, id, ports) = (Namespace::new(), pod_id(number), ports.to_vec());
        let path = namespace.path().to_owned();
        let attached = self.with(move |bridge| attach(bridge, id, path, &ports))?;
        Ok(Pod { namespace, id, attached })
    }

    fn pod(&self, number: u16, ports: &[PortMapping]) -> Pod {
        self.try_pod(number, ports).unwrap_or_else(|e| panic!("{}", crate::error::chain(&e)))
    }

    fn detach(&self, id: PodId) {
        self.with(move |bridge| bridge.detach(id)).unwrap();
    }

    /// A machine beside the host, at 192.0.2.2 and 2001:db8::2; the host is at .1 and ::1.
    fn neighbour(&self) -> Namespace {
        let outside = Namespace::new();
        let path = outside.path().to_owned();
        self.namespace.run(move || {
            let namespace = std::fs::File::open(path).unwrap();
            let mut links = Links::open().unwrap();
            let veth = NewVeth {
                name: "uplink",
                bridge: 0,
                peer_name: "eth0",
                peer_mac: [2, 0, 0, 0, 0, 9],
                peer_namespace: namespace.as_fd(),
                mtu: None,
            };
            links.create_veth(&veth).unwrap();
            let link = links.find("uplink").unwrap().unwrap();
            links.add_address(&link, ip("192.0.2.1"), 24).unwrap();
            links.add_address(&link, ip("2001:db8::1"), 64).unwrap();
        });
        outside.run(|| {
            let mut links = Links::open().unwrap();
            let link = links.find("eth0").unwrap().unwrap();
            links.set_up(&link).unwrap();
            links.add_address(&link, ip("192.0.2.2"), 24).unwrap();
            links.add_address(&link, ip("2001:db8::2"), 64).unwrap();
        });
        outside
    }
}

impl Pod {
    fn ip(&self, v6: bool) -> IpAddr {
        let mut all = std::iter::once(self.attached.ip).chain(self.attached.additional.iter().copied());
        all.find(|ip| ip.is_ipv6() == v6).unwrap()
    }

    /// Serves a port with the pod's name and the client's address; until the pod is gone.
    fn serve(&self, port: u16, name: &'static str) {
        self.namespace.run(move || {
            let tcp = TcpListener::bind(("::", port)).unwrap();
            let udp = UdpSocket::bind(("::", port)).unwrap();
            thread::spawn(move || {
                for mut stream in tcp.incoming().flatten() {
                    let client = stream.peer_addr().unwrap().ip().to_canonical();
                    let _sent = write!(stream, "{name} {client}");
                }
            });
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, client)) = udp.recv_from(&mut buffer) {
                    let text = format!("{name} {}", client.ip().to_canonical());
                    let _sent = udp.send_to(text.as_bytes(), client);
                }
            });
        });
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tries until it works.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
}

fn ask_tcp(from: &Namespace, to: SocketAddr) -> Option<String> {
    patiently(|| ask_tcp_once(from, to, ATTEMPT))
}

/// Whether nobody answers there.
fn silent(from: &Namespace, to: SocketAddr) -> bool {
    ask_tcp_once(from, to, SILENCE).is_none()
}

fn ask_tcp_once(from: &Namespace, to: SocketAddr, patience: Duration) -> Option<String> {
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

fn ask_udp(from: &Namespace, to: SocketAddr) -> Option<String> {
    patiently(|| {
        from.run(move || {
            let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
            socket.set_read_timeout(Some(ATTEMPT)).unwrap();
            socket.send_to(b"?", to).ok()?;
            let mut buffer = [0; 64];
            let (length, sender) = socket.recv_from(&mut buffer).ok()?;
            assert_eq!(sender, to, "an answer comes from whom was asked");
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    })
}

fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port: 80, host_port, host_ip: host_ip.map(ip) }
}

const BOTH: [&str; 2] = ["10.201.0.0/16", "fd00:201::/64"];
