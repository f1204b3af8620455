//! TLS: one provider, the system's authorities, and what `hosts.toml` adds to them.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{
    ConfigError,
    endpoint::{TlsSettings, read_limited},
    failure::chain,
    hosts::ClientPair,
};

/// The one place that decides whose cryptography is used.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration. Without settings (plain http) no authority is loaded: the system's are 140 certificates
/// that a daemon without https pulls need not hold. Reads files: not for the async threads.
pub(crate) fn client_config(settings: Option<&TlsSettings>) -> Result<ClientConfig, ConfigError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(ConfigError::Tls)?;
    let Some(settings) = settings else {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    };
    let verified = if settings.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerifier(Arc::clone(&provider))))
    } else {
        builder.with_root_certificates(authorities(settings)?)
    };
    let keys = settings.client.iter().map(|pair| client_key(pair, &provider).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    Ok(if keys.is_empty() {
        verified.with_no_client_auth()
    } else {
        verified.with_client_cert_resolver(Arc::new(ClientKeys(keys)))
    })
}

fn authorities(settings: &TlsSettings) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    for path in &settings.ca {
        let bad = |why: String| ConfigError::Pem { path: path.clone(), why };
        let bytes = read_limited(path)?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|e| bad(chain(&e)))?;
            roots.add(certificate).map_err(|e| bad(chain(&e)))?;
            count += 1;
        }
        if count == 0 {
            return Err(bad("no PEM certificate in it".to_owned()));
        }
    }
    match system.errors.first() {
        Some(error) if roots.is_empty() => {
            Err(ConfigError::Pem { path: "system certificates".into(), why: format!("none usable: {}", chain(error)) })
        }
        _ => Ok(roots),
    }
}

fn client_key(pair: &ClientPair, provider: &CryptoProvider) -> Result<CertifiedKey, ConfigError> {
    let bad = |path: &std::path::Path, why: String| ConfigError::Pem { path: path.to_owned(), why };
    let certificates = CertificateDer::pem_slice_iter(&read_limited(&pair.cert)?).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|e| bad(&pair.cert, chain(&e)))?;
    if certificates.is_empty() {
        return Err(bad(&pair.cert, "no PEM certificate in it".to_owned()));
    }
    let path = pair.key.as_ref().unwrap_or(&pair.cert);
    let key = PrivateKeyDer::from_pem_slice(&read_limited(path)?).map_err(|e| bad(path, chain(&e)))?;
    CertifiedKey::from_der(certificates, key, provider).map_err(|e| bad(path, chain(&e)))
}

/// The configured client certificates: the first whose kind of key the server knows is shown.
#[derive(Debug)]
struct ClientKeys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientKeys {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// `skip_verify = true`: the certificate may be anybody's, but the peer must hold its key.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
