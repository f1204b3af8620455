//! `creel port-forward`: ports of this machine that lead into a pod, to a server that listens on loopback there.

use std::net::{IpAddr, SocketAddr};

use api::creel::{self as own, port_forward_request::Message as To, port_forward_response::Message as From};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    args::PortForward,
    client::Client,
    error::{self, Error, Exit},
    find, output, session,
};

/// Bytes of a message.
const CHUNK: usize = 16 << 10;
/// Messages on their way.
const AHEAD: usize = 4;

/// Forwards until it is interrupted.
pub(crate) async fn forward(client: &mut Client, args: PortForward) -> Result<Exit, Error> {
    let pod = find::pod(client, &args.target).await?;
    let ports = args.ports.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let mut listeners = Vec::new();
    for (local, remote) in ports {
        let address = SocketAddr::new(args.address, local);
        let listener = TcpListener::bind(address).await.map_err(error::io(format!("listen on {address}")))?;
        let bound = listener.local_addr().map_err(error::io("ask for the port"))?;
        output::print(&format!("Forwarding from {bound} -> {remote}\n"))?;
        listeners.push((listener, remote));
    }
    let mut serving = JoinSet::new();
    for (listener, remote) in listeners {
        serving.spawn(accept(client.clone(), listener, pod.clone(), remote));
    }
    let mut terminated = signal(SignalKind::terminate()).map_err(error::io("wait for signals"))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Ok(Exit(0))
}

/// `LOCAL:REMOTE`, `REMOTE`, `:REMOTE` (any local port that is free).
fn parse(text: &str) -> Result<(u16, u16), Error> {
    let refused = || Error::Option { option: "PORT", value: text.to_owned(), why: "not [[LOCAL]:]REMOTE".to_owned() };
    let port = |text: &str| text.parse::<u16>().map_err(|_| refused());
    let (local, remote) = match text.split_once(':') {
        None => (port(text)?, port(text)?),
        Some(("", remote)) => (0, port(remote)?),
        Some((local, remote)) => (port(local)?, port(remote)?),
    };
    if remote == 0 { Err(refused()) } else { Ok((local, remote)) }
}

async fn accept(client: Client, listener: TcpListener, pod: String, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(client.clone(), socket, pod.clone(), port));
                }
                Err(error) => {
                    output::note(&format!("creel: accept a connection: {error}"));
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    output::note(&format!("creel: {}", error.chain()));
                }
            }
        }
    }
}

/// One connection: bytes both ways, until both have ended.
async fn connection(mut client: Client, socket: TcpStream, pod: String, port: u16) -> Result<(), Error> {
    let what = format!("forward to port {port}");
    let _ = socket.set_nodelay(true);
    let (to, requests) = mpsc::channel(AHEAD);
    let start = own::PortForwardStart { pod_sandbox_id: pod, port: port.into() };
    let first = tokio_stream::once(To::Start(start));
    let requests = first.chain(ReceiverStream::new(requests)).map(|message| own::PortForwardRequest { message: Some(message) });
    let mut from = client.creel.port_forward(requests).await.map_err(session::failed(&what))?.into_inner();
    let (mut read, mut write) = socket.into_split();
    let inward = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(got @ 1..) = read.read(&mut chunk).await {
            if to.send(To::Data(chunk[..got].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = to.send(To::End(true)).await;
        std::future::pending::<()>().await;
    };
    let outward = async {
        while let Some(response) = from.message().await.map_err(session::failed(&what))? {
            match response.message {
                // A client that reads no more has gone.
                Some(From::Data(bytes)) if write.write_all(&bytes).await.is_err() => break,
                Some(From::End(_)) => drop(write.shutdown().await),
                Some(From::Data(_)) | None => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        result = outward => result,
        () = inward => Ok(()),
    }
}

/// Where it listens if nobody says otherwise.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        assert_eq!(parse("80").unwrap(), (80, 80));
        assert_eq!(parse("8080:80").unwrap(), (8080, 80));
        assert_eq!(parse(":80").unwrap(), (0, 80));
        for wrong in ["", "0", ":", "80:", "80:0", "65536", "a", "1:2:3", "-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
