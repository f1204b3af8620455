//! Forgets connections to host ports that changed hands.
//!
//! Rules of type nat see only the first packet of a connection. A UDP client that keeps sending never makes a new one,
//! so that its packets would go to where the port led before, for ever (kubernetes/kubernetes#59368).

use model::pod::Protocol;
use rustix::io::Errno;

use super::{ports::Forward, rules::protocol_number};
use crate::{
    Error,
    netlink::{Attributes, Family, Message, Socket},
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_ID: u16 = 12;
const NLA_F_NESTED: u16 = 0x8000;

/// Deletes the entries of UDP connections to these host ports, whoever they lead to.
pub(super) fn forget(forwards: &[Forward]) -> Result<(), Error> {
    let mut udp: Vec<&Forward> = forwards.iter().filter(|f| f.from.protocol == Protocol::Udp).collect();
    udp.sort_by_key(|f| f.to_ip.is_ipv6());
    if udp.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::Netlink { action: "forget connections to host ports".into(), source };
    let mut socket = Socket::open(Family::Netfilter).map_err(failed)?;
    for of_family in udp.chunk_by(|a, b| a.to_ip.is_ipv6() == b.to_ip.is_ipv6()) {
        let family = if of_family[0].to_ip.is_ipv6() { 10 } else { 2 };
        let ports: Vec<u16> = of_family.iter().map(|f| f.from.port).collect();
        let replies =
            match socket.query(&Message::new(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[family, 0, 0, 0])) {
                Ok(replies) => replies,
                // Without the ctnetlink module nothing can be done, and nothing could be seen either.
                Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP)) => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
        for reply in replies {
            let Some((tuple, id)) = udp_tuple_to(&reply, &ports) else { continue };
            let mut request = Message::new(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0, &[family, 0, 0, 0]);
            request.put(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple).put(CTA_ID, id);
            match socket.execute(&[request]) {
                Ok(()) => {}
                Err((_, error)) if error.errno() == Some(Errno::NOENT) => {}
                Err((_, error)) => return Err(failed(error)),
            }
        }
    }
    Ok(())
}

/// The original tuple and id of an entry, if it is UDP to one of these ports.
fn udp_tuple_to<'a>(reply: &'a [u8], ports: &[u16]) -> Option<(&'a [u8], &'a [u8])> {
    let entry = Attributes(reply.get(4..)?);
    let tuple = entry.get(CTA_TUPLE_ORIG)?;
    let protocol = Attributes(Attributes(tuple).get(CTA_TUPLE_PROTO)?);
    let port = u16::from_be_bytes(protocol.get(CTA_PROTO_DST_PORT)?.try_into().ok()?);
    let matches = protocol.get(CTA_PROTO_NUM)? == [protocol_number(Protocol::Udp)] && ports.contains(&port);
    matches.then_some((tuple, entry.get(CTA_ID)?))
}
