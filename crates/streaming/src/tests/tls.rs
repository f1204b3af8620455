//! The same over TLS, and what is no certificate.

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::Error;

fn client(trusted: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn sessions_are_served_over_tls_with_a_certificate_from_files() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let dir = std::env::temp_dir().join(format!("creel-streaming-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Tls::from_files(&certificate, &key).unwrap();
    let ground = ground_with(Some(tls), Duration::from_secs(3600)).await;
    let url = ground.server.exec(exec("cat", false)).unwrap();
    let rest = url.strip_prefix("https://").unwrap();
    let (address, path) = rest.split_at(rest.find('/').unwrap());
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut socket = client(made.cert.der().clone()).connect(name, socket).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let mut client = Client::new(socket);
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.send_all(3, &[b'x'; 300_000]).await;
    client.fin(3).await;
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert_eq!((got[&5].len(), got[&7].as_slice()), (300_000, &b"300000"[..]));
    // Whoever does not speak TLS gets nothing.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1"), "{answer:?}");
    std::fs::write(&certificate, "nonsense").unwrap();
    assert!(matches!(Tls::from_files(&certificate, &key), Err(Error::Tls(_) | Error::Certificate { what: "certificate", .. })));
    assert!(matches!(Tls::from_files(&key, &certificate), Err(Error::Certificate { .. } | Error::Tls(_))));
    let missing = Tls::from_files(&dir.join("none"), &key).unwrap_err();
    assert!(missing.to_string().starts_with("certificate /"), "{missing}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_certificate_of_its_own_will_do() {
    let ground = ground_with(Some(Tls::self_signed().unwrap()), Duration::from_secs(3600)).await;
    assert!(ground.server.exec(exec("cat", false)).unwrap().starts_with("https://127.0.0.1:"));
}
