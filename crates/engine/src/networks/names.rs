//! Answers questions for names in a network, on its bridge's addresses, port 53.
//!
//! Names of containers are answered by what is so now; everything else goes to the servers that the asking container wants, or
//! to the node's. Only what comes from the network's own addresses is answered, at most so many questions at a time. While the
//! daemon is away nobody answers, and resolvers ask again.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use model::{ContainerId, NetworkId};
use net::dns::{A, AAAA, Answer, Code, Question};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{Member, UserNetwork};
use crate::Inner;

const PORT: u16 = 53;
/// Questions at a time, and connections.
const QUESTIONS: usize = 256;
const CONNECTIONS: usize = 64;
/// How long one server may take, and how many are asked.
const PATIENCE: Duration = Duration::from_secs(3);
const SERVERS: usize = 3;
/// How long a connection may stand still.
const IDLE: Duration = Duration::from_secs(10);
/// Until it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(5);

/// Listens until it is aborted.
pub(super) async fn serve(inner: Weak<Inner>, id: NetworkId, addresses: Vec<IpAddr>) {
    let mut tasks = JoinSet::new();
    for ip in addresses {
        let here = Here { inner: inner.clone(), id, questions: Arc::new(Semaphore::new(QUESTIONS)) };
        tasks.spawn(here.listen(SocketAddr::new(ip, PORT)));
    }
    while tasks.join_next().await.is_some() {}
}

/// A network, as those see it that ask.
#[derive(Clone, Debug)]
struct Here {
    inner: Weak<Inner>,
    id: NetworkId,
    questions: Arc<Semaphore>,
}

impl Here {
    async fn listen(self, address: SocketAddr) {
        let mut told = false;
        let (udp, tcp) = loop {
            // Removed, before anybody could say so to this task.
            if self.inner.upgrade().is_none_or(|inner| inner.networks.get(self.id).is_none()) {
                return;
            }
            match (UdpSocket::bind(address).await, TcpListener::bind(address).await) {
                (Ok(udp), Ok(tcp)) => break (udp, tcp),
                (Err(e), _) | (_, Err(e)) if !told => {
                    tracing::warn!(%address, error = %e, network = %self.id.short(), "names of containers cannot be answered yet");
                    told = true;
                }
                _ => {}
            }
            tokio::time::sleep(AGAIN).await;
        };
        tokio::join!(self.datagrams(Arc::new(udp)), self.connections(tcp));
    }

    async fn datagrams(&self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 4096];
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                // An answer to somebody who has gone (ICMP); or the address is gone for a moment.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Who asks too much is not answered, and asks again.
            let Ok(permit) = self.questions.clone().try_acquire_owned() else { continue };
            let (here, socket, message) = (self.clone(), socket.clone(), buffer[..length].to_vec());
            tasks.spawn(async move {
                let _permit = permit;
                if let Some(answer) = here.answer(&message, from.ip(), By::Datagram).await {
                    socket.send_to(&answer, from).await.ok();
                }
            });
        }
    }

    async fn connections(&self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let (Ok(permit), accepted) = (room.clone().acquire_owned().await, listener.accept().await) else { return };
            let Ok((stream, from)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let here = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                here.connection(stream, from.ip()).await.ok();
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        loop {
            let message = timeout(IDLE, read(&mut stream)).await??;
            let Some(answer) = self.answer(&message, from, By::Connection).await else { return Ok(()) };
            timeout(IDLE, write(&mut stream, &answer)).await??;
        }
    }

    async fn answer(&self, message: &[u8], from: IpAddr, by: By) -> Option<Vec<u8>> {
        let from = from.to_canonical();
        let inner = self.inner.upgrade()?;
        let network = inner.networks.get(self.id)?;
        // Nobody else learns from us who is here: not another network, nor the world.
        if !network.subnets().iter().any(|subnet| subnet.contains(from)) {
            return None;
        }
        let question = match Question::read(message) {
            Ok(question) => question,
            Err(wrong) => return wrong.answer(),
        };
        if !question.is_internet() {
            return Some(question.answer(Code::Refused, &[]));
        }
        let members = inner.members(&network);
        if let Some((code, answers)) = known(&question, &network, &members) {
            return Some(question.answer(code, &answers));
        }
        let asker = members.into_iter().find(|member| member.addresses.iter().any(|(ip, _)| *ip == from));
        if let Some((code, answers)) = asker.as_ref().and_then(|asker| elsewhere(&inner, &question, asker.container)) {
            return Some(question.answer(code, &answers));
        }
        if network.is_internal() {
            return Some(question.answer(Code::Failed, &[]));
        }
        let servers = asker.map(|member| member.servers).filter(|servers| !servers.is_empty());
        drop(inner);
        for server in servers.unwrap_or_else(node_servers).iter().filter_map(|server| server.parse().ok()).take(SERVERS) {
            let asked = async {
                match by {
                    By::Datagram => ask_by_datagram(&question, message, server).await,
                    By::Connection => ask_by_connection(&question, message, server).await,
                }
            };
            if let Ok(Ok(answer)) = timeout(PATIENCE, asked).await {
                return Some(answer);
            }
        }
        Some(question.answer(Code::Failed, &[]))
    }
}

/// How a question came, and is asked on.
#[derive(Clone, Copy, Debug)]
enum By {
    Datagram,
    Connection,
}

/// What is known in the networks that the asker is in; `None`: others have to be asked.
fn elsewhere(inner: &Inner, question: &Question, asker: ContainerId) -> Option<(Code, Vec<Answer>)> {
    let networks = inner.users.get(asker)?.networks();
    networks.iter().filter_map(|network| inner.networks.find(&network.name).ok()).find_map(|network| {
        let members = inner.members(&network);
        // Only where it really is: one that runs may have come later than its run.
        let is_in = members.iter().any(|member| member.container == asker);
        is_in.then(|| known(question, &network, &members)).flatten()
    })
}

/// What is known here; `None`: others have to be asked.
fn known(question: &Question, network: &UserNetwork, members: &[Member]) -> Option<(Code, Vec<Answer>)> {
    if let Some(ip) = question.reverse() {
        let has = |member: &&Member| member.addresses.iter().any(|(own, _)| *own == ip);
        return match members.iter().find(has) {
            Some(member) => Some((Code::Fine, vec![Answer::Name(format!("{}.{}", member.name, network.name()))])),
            None if network.subnets().iter().any(|subnet| subnet.contains(ip)) => Some((Code::NoName, Vec::new())),
            None => None,
        };
    }
    let suffix = format!(".{}", network.name().to_lowercase());
    let name = question.name.strip_suffix(&suffix).unwrap_or(&question.name);
    let meant: Vec<&Member> = members.iter().filter(|member| member.names.iter().any(|own| own == name)).collect();
    if meant.is_empty() {
        return None;
    }
    let wanted = |ip: &IpAddr| match question.kind {
        A => ip.is_ipv4(),
        AAAA => ip.is_ipv6(),
        _ => false,
    };
    let mut addresses: Vec<IpAddr> =
        meant.iter().flat_map(|member| member.addresses.iter().map(|(ip, _)| *ip)).filter(wanted).collect();
    // Those who have one name together are asked in turn.
    if let Some(last) = addresses.len().checked_sub(1) {
        let [first, ..] = crate::random_id();
        addresses.rotate_left(usize::from(first) % (last + 1));
    }
    Some((Code::Fine, addresses.into_iter().map(Answer::Address).collect()))
}

/// resolv.conf(5) of the node as it is now.
fn node_servers() -> Vec<String> {
    servers_of(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// Domains in which the node looks for names.
pub(crate) fn node_searches() -> Vec<String> {
    searches_of(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The last line counts (resolv.conf(5)). What could not stand in a container's file is left out.
fn searches_of(text: &str) -> Vec<String> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("search")).unwrap_or_default();
    let plain = |domain: &&str| domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) && *domain != ".";
    line.split_whitespace().filter(plain).take(32).map(str::to_owned).collect()
}

fn servers_of(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned)).flatten()
    };
    text.lines().filter_map(server).collect()
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The question with an id that nobody but us knows.
fn anew(message: &[u8]) -> (Vec<u8>, [u8; 2]) {
    let [a, b, ..] = crate::random_id();
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&[a, b]);
    (message, [a, b])
}

async fn ask_by_datagram(question: &Question, message: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect((server, PORT)).await?;
    let (asked, id) = anew(message);
    socket.send(&asked).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if question.is_answered_by(&buffer[..length], id) {
            buffer.truncate(length);
            buffer[..2].copy_from_slice(&message[..2]);
            return Ok(buffer);
        }
    }
}

async fn ask_by_connection(question: &Question, message: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((server, PORT)).await?;
    let (asked, id) = anew(message);
    write(&mut stream, &asked).await?;
    let mut answer = read(&mut stream).await?;
    if !question.is_answered_by(&answer, id) {
        return Err(refused("an answer to something else"));
    }
    answer[..2].copy_from_slice(&message[..2]);
    Ok(answer)
}

/// A message with its length before it (RFC 1035, 4.2.2).
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| refused("too long"))?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_node() {
        let text = "# x\nsearch example.com\nnameserver 192.0.2.1 # y\n nameserver\t2001:db8::1\nnameserver\noptions ndots:1\n";
        assert_eq!(servers_of(text), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(searches_of(text), ["example.com"]);
        assert_eq!(searches_of("search . a;b c.d\n"), ["c.d"]);
    }

    #[test]
    fn ids_are_new() {
        let (asked, id) = anew(&[1, 2, 3]);
        assert_eq!((asked.len(), &asked[..2], asked[2]), (3, &id[..], 3));
    }
}
