//! TLS of both sides: 1.3 alone, both show a certificate, nothing is resumed and nothing is sent early, so that each connection is
//! checked anew (promise G30).

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use vefs::clock::Clock;
use webpki::ring::ECDSA_P256_SHA256;

use super::error::NetError;
use super::refusal::Refusal;
use crate::cluster::{Cluster, Fault, Role};
use crate::node::NodeId;

/// The protocol's name in the handshake (ALPN, RFC 7301). Another number is another protocol.
pub const ALPN: &[u8] = b"aspfs/1";
/// The name that QUIC wants of a server. Nobody looks at it: identities stand in certificates.
pub(super) const SERVER_NAME: &str = "node.aspfs";

/// The only signatures that the authority and the nodes make.
const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[ECDSA_P256_SHA256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256])],
};

/// AES-128-GCM first: the fastest where the processor has instructions for it, and QUIC's own first packets need it anyway.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites,
        signature_verification_algorithms: ALGORITHMS,
        ..ring::default_provider()
    })
}

struct WallTime(Arc<dyn Clock>);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().secs).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Why a check refused, for whoever started the handshake: the error that comes out of it says less.
pub(super) type Verdict = Arc<OnceLock<Refusal>>;

/// Checks the certificate of one peer, in one handshake.
pub(super) struct Check {
    cluster: Arc<Cluster>,
    role: Role,
    dialled: Option<NodeId>,
    verdict: Verdict,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({:?}, {:?})", self.role, self.dialled)
    }
}

impl Check {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let why = match self.cluster.vouched(shown, self.role) {
            Ok(node) if self.dialled.is_none_or(|d| d == node) => return Ok(()),
            Ok(_) => Refusal::NotDialled,
            Err(fault) => Refusal::Certificate(fault),
        };
        let _ = self.verdict.set(why);
        Err(Error::InvalidCertificate(match why {
            Refusal::Certificate(Fault::WrongAuthority) => CertificateError::UnknownIssuer,
            Refusal::Certificate(Fault::Expired) => CertificateError::Expired,
            Refusal::Certificate(Fault::NotYetValid) => CertificateError::NotValidYet,
            Refusal::Certificate(Fault::Revoked) => CertificateError::Revoked,
            Refusal::Certificate(Fault::Purpose) => CertificateError::InvalidPurpose,
            Refusal::NotDialled => CertificateError::ApplicationVerificationFailure,
            _ => CertificateError::BadEncoding,
        }))
    }
}

/// TLS 1.2 is not spoken.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken".to_owned()))
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

impl ClientCertVerifier for Check {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

fn trouble(e: impl fmt::Display) -> NetError {
    NetError::Tls(e.to_string())
}

/// The dialler's side of one handshake, with the node that was dialled.
pub(super) fn dialler(cluster: &Arc<Cluster>, dialled: NodeId) -> Result<(QuicClientConfig, Verdict), NetError> {
    let verdict = Verdict::default();
    let (role, node) = (Role::Listener, Some(dialled));
    let check = Check { cluster: cluster.clone(), role, dialled: node, verdict: verdict.clone() };
    let own = SingleCertAndKey::from(cluster.identity().certified.clone());
    let mut config =
        rustls::ClientConfig::builder_with_details(provider(), Arc::new(WallTime(cluster.clock().clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(trouble)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check))
            .with_client_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok((config.try_into().map_err(trouble)?, verdict))
}

/// The listener's side of one handshake.
pub(super) fn listener(cluster: &Arc<Cluster>) -> Result<(QuicServerConfig, Verdict), NetError> {
    let verdict = Verdict::default();
    let check = Check { cluster: cluster.clone(), role: Role::Dialler, dialled: None, verdict: verdict.clone() };
    let own = SingleCertAndKey::from(cluster.identity().certified.clone());
    let mut config =
        rustls::ServerConfig::builder_with_details(provider(), Arc::new(WallTime(cluster.clock().clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(trouble)?
            .with_client_cert_verifier(Arc::new(check))
            .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok((config.try_into().map_err(trouble)?, verdict))
}
