//! TLS: authorities, client certificates, names, dates, stalls (F-43, IM-03).

use std::{
    fs,
    sync::{Arc, Mutex},
};

use model::ErrorKind;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use super::{
    config,
    farm::{Farm, Reply, Store, noise},
    hosts, layers, resolve, told,
};
use crate::{Config, Credentials, Error, Registry, tls::provider};

/// An authority of our own.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
pub(super) struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn certify(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        adjust(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    pub(super) fn server(&self, name: &str) -> ServerConfig {
        self.certify(name, |_| {}).server(None)
    }
}

impl Pair {
    fn server(&self, clients: Option<&Authority>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(self.chain.clone(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

/// A client for which every `*.example` in the list is here.
pub(super) fn client(config: Config, names: &[&str]) -> Registry {
    let names = names.iter().map(|n| ((*n).to_owned(), [127, 0, 0, 1].into())).collect();
    Registry::with(config, |clients| clients.fixed = Arc::new(names))
}

fn good() -> (Store, impl Fn(&super::farm::Seen) -> Reply + Send + Sync + 'static) {
    let mut store = Store::default();
    store.image("lab/x", "1", &[noise(300_000, 1), noise(200_000, 2)]);
    let copy = store.clone();
    (store, move |seen| copy.reply(seen))
}

async fn attempt(server: ServerConfig, hosts_toml: &str) -> (Farm, Result<(), Error>) {
    let directory = tempfile::tempdir().unwrap();
    let farm = Farm::start_tls(server, good().1).await;
    let registry = client(config(&directory), &["reg.example"]);
    let host = format!("reg.example:{}", farm.address.port());
    hosts(&directory, &host, hosts_toml);
    let result = async {
        let resolved = resolve(&registry, &format!("{host}/lab/x:1"), &Credentials::anonymous()).await?;
        let all = layers(&registry, &resolved).await?;
        assert_eq!(all.iter().map(bytes::Bytes::len).sum::<usize>(), 500_000);
        Ok(())
    }
    .await;
    (farm, result)
}

#[tokio::test]
async fn an_authority_of_the_configuration_is_trusted_for_its_host_only() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (mine, other) = (
        Farm::start_tls(authority.server("reg.example"), good().1).await,
        Farm::start_tls(authority.server("other.example"), good().1).await,
    );
    let host = format!("reg.example:{}", mine.address.port());
    // The file is named relative to its directory.
    hosts(&directory, &host, "ca = 'our-ca.pem'");
    fs::write(directory.path().join(&host).join("our-ca.pem"), &authority.pem).unwrap();
    let registry = client(config(&directory), &["reg.example", "other.example"]);
    let resolved = resolve(&registry, &format!("{host}/lab/x:1"), &Credentials::anonymous()).await.unwrap();
    layers(&registry, &resolved).await.unwrap();
    assert_eq!(mine.connections(), 1, "HTTP/2: one connection for all");
    let elsewhere = format!("other.example:{}/lab/x:1", other.address.port());
    let error = resolve(&registry, &elsewhere, &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(told(&error).contains("TLS: certificate signed by unknown authority"), "{}", told(&error));
    assert_eq!((other.seen().len(), other.connections()), (0, 1), "not tried again");
}

#[tokio::test]
async fn f_43_bad_certificates_are_named() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &authority.pem).unwrap();
    let trusting = format!("ca = {ca:?}");
    let expired = authority.certify("reg.example", |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let future = authority.certify("reg.example", |p| p.not_before = rcgen::date_time_ymd(2900, 1, 1));
    for (server, text, why) in [
        (authority.server("reg.example"), "", "certificate signed by unknown authority"),
        (authority.server("other.example"), trusting.as_str(), "certificate not valid for name reg.example"),
        (expired.server(None), trusting.as_str(), "certificate has expired"),
        (future.server(None), trusting.as_str(), "certificate is not valid yet"),
    ] {
        let (farm, result) = attempt(server, text).await;
        let error = result.unwrap_err();
        assert!(told(&error).contains(&format!("TLS: {why}")), "{why}: {}", told(&error));
        assert_eq!(farm.seen().len(), 0);
    }
    // skip_verify takes them all, for this name.
    attempt(authority.server("other.example"), "skip_verify = true").await.1.unwrap();
}

#[tokio::test]
async fn client_certificates_are_shown_in_all_spellings() {
    let authority = Authority::new();
    let me = authority.certify("client", |_| {});
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        format!("{path:?}")
    };
    let (ca, cert, key) = (path("ca", &authority.pem), path("c", &me.pem), path("k", &me.key.serialize_pem()));
    let both = path("both", &format!("{}{}", me.pem, me.key.serialize_pem()));
    let server = || authority.certify("reg.example", |_| {}).server(Some(&authority));
    for client in [format!("[[{cert}, {key}]]"), both.clone(), format!("[{both}]"), format!("[[{both}, \"\"]]")] {
        attempt(server(), &format!("ca = {ca}\nclient = {client}")).await.1.unwrap_or_else(|e| panic!("{client}: {}", told(&e)));
    }
    let error = attempt(server(), &format!("ca = {ca}")).await.1.unwrap_err();
    assert!(told(&error).contains("the server requires a client certificate"), "{}", told(&error));
    for (client, why) in [(format!("[[{cert}, {ca}]]"), "configuration: "), ("'/no/such'".to_owned(), "read /no/such")] {
        let error = attempt(server(), &format!("ca = {ca}\nclient = {client}")).await.1.unwrap_err();
        assert!(told(&error).contains(why), "{}", told(&error));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let empty = attempt(server(), &format!("ca = {key}")).await.1.unwrap_err();
    assert!(told(&empty).contains("no PEM certificate in it"), "{}", told(&empty));
}

#[tokio::test]
async fn f_43_a_stalled_handshake_ends_in_time_and_is_never_repeated_without_tls() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut start = [0];
            stream.readable().await.unwrap();
            drop(stream.try_read(&mut start));
            ear.lock().unwrap().push(start[0]);
            held.push(stream);
        }
    });
    let host = format!("reg.example:{port}");
    hosts(&directory, &host, "dial_timeout = '200ms'");
    let registry = client(config(&directory), &["reg.example"]);
    let error = resolve(&registry, &format!("{host}/x"), &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(told(&error).contains("no connection within 200ms"), "{}", told(&error));
    // 22 = a TLS handshake record.
    assert_eq!(*heard.lock().unwrap(), [22]);
    server.abort();
}
