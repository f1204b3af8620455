//! What is kept with a pod's record, as JSON.

use std::net::IpAddr;

use model::{PodId, pod::Protocol};
use serde::{Deserialize, Serialize};

use super::{
    Plug, Subnet,
    ports::{Forward, HostPort},
    rules::protocol_number,
};
use crate::Error;

/// Version 1. Fields are only ever added.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    interface: String,
    mac: [u8; 6],
    /// Address and prefix length.
    addresses: Vec<(IpAddr, u8)>,
    ports: Vec<Port>,
}

#[derive(Serialize, Deserialize)]
struct Port {
    /// IANA's number.
    protocol: u8,
    host_ip: IpAddr,
    host_port: u16,
    pod_ip: IpAddr,
    pod_port: u16,
}

pub(super) fn encode(pod: PodId, plug: &Plug) -> Result<Vec<u8>, Error> {
    let record = Record {
        version: 1,
        interface: plug.interface.clone(),
        mac: plug.mac,
        addresses: plug.ips.iter().zip(&plug.subnets).map(|(ip, subnet)| (*ip, subnet.length())).collect(),
        ports: plug
            .forwards
            .iter()
            .map(|f| Port {
                protocol: protocol_number(f.from.protocol),
                host_ip: f.from.host_ip,
                host_port: f.from.port,
                pod_ip: f.to_ip,
                pod_port: f.to_port,
            })
            .collect(),
    };
    serde_json::to_vec(&record).map_err(|source| Error::Record { pod, source })
}

pub(super) fn decode(pod: PodId, bytes: &[u8]) -> Result<Plug, Error> {
    let wrong = |why: &str| Error::Record { pod, source: serde::de::Error::custom(why) };
    let record: Record = serde_json::from_slice(bytes).map_err(|source| Error::Record { pod, source })?;
    if record.version != 1 {
        return Err(wrong("unknown version"));
    }
    if record.addresses.is_empty() || record.interface.is_empty() || record.interface.len() > 15 {
        return Err(wrong("no address or no interface"));
    }
    let mut plug =
        Plug { interface: record.interface, mac: record.mac, ips: Vec::new(), subnets: Vec::new(), forwards: Vec::new() };
    for (ip, length) in record.addresses {
        plug.ips.push(ip);
        plug.subnets.push(Subnet::new(ip, length).ok_or_else(|| wrong("prefix length out of range"))?);
    }
    for port in record.ports {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| protocol_number(*p) == port.protocol);
        let protocol = protocol.ok_or_else(|| wrong("unknown protocol"))?;
        if port.host_ip.is_ipv4() != port.pod_ip.is_ipv4() {
            return Err(wrong("port between families"));
        }
        let from = HostPort { protocol, port: port.host_port, host_ip: port.host_ip };
        plug.forwards.push(Forward { from, to_ip: port.pod_ip, to_port: port.pod_port });
    }
    Ok(plug)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"{"version":1,"interface":"c1234abcdefabcd","mac":[2,206,10,0,0,2],"addresses":[["10.0.0.2",16],["fd00::2",64]],"ports":[{"protocol":6,"host_ip":"0.0.0.0","host_port":8080,"pod_ip":"10.0.0.2","pod_port":80}]}"#;

    #[test]
    fn records_stay_readable() {
        let pod = PodId::from_bytes([1; 32]);
        let plug = decode(pod, GOLDEN.as_bytes()).unwrap();
        assert_eq!(plug.subnets[0].to_string(), "10.0.0.0/16");
        assert_eq!(String::from_utf8(encode(pod, &plug).unwrap()).unwrap(), GOLDEN);
        for (from, to) in
            [("\"version\":1", "\"version\":2"), ("16]", "33]"), (":6,", ":7,"), ("\"0.0.0.0\"", "\"::\""), ("{", "[")]
        {
            assert!(decode(pod, GOLDEN.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
