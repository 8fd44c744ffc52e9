//! Certificates: the cluster's authority, which issues them and signs node lists, and what a node shows to its peers.
//!
//! ECDSA on P-256 throughout. Who a certificate speaks of stands in two URIs among its alternative names, `aspfs:cluster:HEX` and
//! `aspfs:node:HEX`, each exactly once; the subject is a label. Only the authority's own signature counts: there are no certificates
//! between it and a node's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use vefs::entropy::{Entropy, SystemEntropy};
use vefs::ids::Hash;
use webpki::EndEntityCert;
use webpki::ring::ECDSA_P256_SHA256;

use super::list::Issued;
use super::names::Name;
use crate::node::{ClusterId, NodeId};

/// A day in seconds.
const DAY: u64 = 24 * 60 * 60;
/// How long the authority's certificate is valid, in seconds.
const AUTHORITY_LIFE: u64 = 40 * 365 * DAY;
/// How long a node's certificate is valid, in seconds.
pub const NODE_LIFE: u64 = 5 * 365 * DAY;
/// Certificates are valid from so many seconds before they are issued: clocks of nodes differ.
const BACKDATED: u64 = DAY;
/// No date is made after this: the first second of the year 9000. X.509 ends with the year 9999.
const LAST_DATE: u64 = 221_845_392_000;
const CLUSTER_URI: &str = "aspfs:cluster:";
const NODE_URI: &str = "aspfs:node:";

/// What a peer is to be when its certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It was dialled.
    Listener,
    /// It dials.
    Dialler,
}

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Fault {
    /// Not a certificate, or one that says what none should.
    #[error("the certificate is malformed")]
    Malformed,
    /// Issued by somebody else.
    #[error("the certificate was not issued by this cluster's authority")]
    WrongAuthority,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come: somebody's clock is wrong.
    #[error("the certificate is not valid yet; is a clock wrong?")]
    NotYetValid,
    /// Not for what it was shown for.
    #[error("the certificate is for another purpose")]
    Purpose,
    /// It speaks of no node, or of several.
    #[error("the certificate does not name a node")]
    NoIdentity,
    /// It speaks of another cluster.
    #[error("the certificate is another cluster's")]
    OtherCluster,
    /// The node is not in the node list.
    #[error("the node is not in the node list")]
    UnknownNode,
    /// The node is, but this certificate of it is not.
    #[error("the node list does not have this certificate of the node")]
    UnknownCertificate,
    /// The node was thrown out.
    #[error("the node is revoked")]
    Revoked,
}

/// BLAKE3 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Hash {
    Hash(*blake3::hash(certificate.as_ref()).as_bytes())
}

/// The identity behind `prefix` among a certificate's alternative names, where there is one and no second.
fn named<T: FromStr>(certificate: &EndEntityCert<'_>, prefix: &str) -> Option<T> {
    let mut found = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(prefix));
    match (found.next(), found.next()) {
        (Some(hex), None) => hex.parse().ok(),
        _ => None,
    }
}

/// Which node a certificate speaks of; who issued it is not looked at.
fn node_in(certificate: &EndEntityCert<'_>, cluster: ClusterId) -> Result<NodeId, Fault> {
    if named::<ClusterId>(certificate, CLUSTER_URI).ok_or(Fault::NoIdentity)? != cluster {
        return Err(Fault::OtherCluster);
    }
    named(certificate, NODE_URI).ok_or(Fault::NoIdentity)
}

/// The certificate of a cluster's authority: what every node knows of it.
#[derive(Clone, Debug)]
pub struct Authority {
    der: CertificateDer<'static>,
    cluster: ClusterId,
}

impl Authority {
    /// Takes a certificate as the authority's. Whoever calls this trusts where it came from.
    pub fn new(der: CertificateDer<'static>) -> Result<Authority, Fault> {
        webpki::anchor_from_trusted_cert(&der).map_err(|_| Fault::Malformed)?;
        let parsed = EndEntityCert::try_from(&der).map_err(|_| Fault::Malformed)?;
        let cluster = named(&parsed, CLUSTER_URI).ok_or(Fault::NoIdentity)?;
        drop(parsed);
        Ok(Authority { der, cluster })
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Which node a certificate speaks of: issued by this authority, in date, for this role, of this cluster. Whether the node is in
    /// the node list is not looked at. `now` is wall time since 1970.
    pub fn check(&self, shown: &CertificateDer<'_>, role: Role, now: UnixTime) -> Result<NodeId, Fault> {
        let certificate = EndEntityCert::try_from(shown).map_err(|_| Fault::Malformed)?;
        self.verify(&certificate, role, now).map_err(fault)?;
        node_in(&certificate, self.cluster)
    }

    /// The same on the nearest day that is within its dates.
    fn check_in_its_time(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Result<NodeId, Fault> {
        let certificate = EndEntityCert::try_from(shown).map_err(|_| Fault::Malformed)?;
        let then = match self.verify(&certificate, Role::Dialler, now) {
            Err(webpki::Error::CertExpired { not_after, .. }) => not_after,
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
            _ => now,
        };
        self.check(shown, Role::Dialler, then)
    }

    fn verify(&self, certificate: &EndEntityCert<'_>, role: Role, now: UnixTime) -> Result<(), webpki::Error> {
        let anchor = [webpki::anchor_from_trusted_cert(&self.der)?];
        let usage = match role {
            Role::Listener => webpki::KeyUsage::server_auth(),
            Role::Dialler => webpki::KeyUsage::client_auth(),
        };
        certificate.verify_for_usage(&[ECDSA_P256_SHA256], &anchor, &[], now, usage, None, None).map(|_| ())
    }

    /// Whether the authority made this signature.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(&self.der) else { return false };
        certificate.verify_signature(ECDSA_P256_SHA256, message, signature).is_ok()
    }
}

fn fault(e: webpki::Error) -> Fault {
    use webpki::Error as E;
    match e {
        E::CertExpired { .. } => Fault::Expired,
        E::CertNotValidYet { .. } => Fault::NotYetValid,
        E::UnknownIssuer
        | E::InvalidSignatureForPublicKey
        | E::SignatureAlgorithmMismatch
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Fault::WrongAuthority,
        E::RequiredEkuNotFoundContext(_) | E::CaUsedAsEndEntity => Fault::Purpose,
        _ => Fault::Malformed,
    }
}

/// The authority's key: who has it can add and revoke nodes.
pub struct AuthorityKey {
    key: KeyPair,
    params: CertificateParams,
    cluster: ClusterId,
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey({})", self.cluster)
    }
}

/// What of the authority's certificate is the same whenever it is derived anew: its subject, which certificates name as their issuer.
fn authority_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("aspfs cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn validity(params: &mut CertificateParams, now: u64, life: u64) -> u64 {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let not_after = now.saturating_add(life).min(LAST_DATE);
    let not_before = now.saturating_sub(BACKDATED).min(not_after);
    params.not_before = epoch + Duration::from_secs(not_before);
    params.not_after = epoch + Duration::from_secs(not_after);
    not_after
}

fn uri(prefix: &str, id: impl fmt::Display) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(format!("{prefix}{id}").try_into()?))
}

impl AuthorityKey {
    /// Draws a key and makes the authority's certificate. `now` is wall time in seconds since 1970.
    pub fn generate(cluster: ClusterId, now: u64) -> Result<(AuthorityKey, CertificateDer<'static>), rcgen::Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params(cluster);
        params.subject_alt_names = vec![uri(CLUSTER_URI, cluster)?];
        params.serial_number = Some(random_serial());
        validity(&mut params, now, AUTHORITY_LIFE);
        let der = params.self_signed(&key)?.der().clone();
        Ok((AuthorityKey { key, params, cluster }, der))
    }

    /// Reads a key that was stored.
    pub fn from_pkcs8(cluster: ClusterId, der: &[u8]) -> Result<AuthorityKey, rcgen::Error> {
        let der = PrivatePkcs8KeyDer::from(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok(AuthorityKey { key, params: authority_params(cluster), cluster })
    }

    /// The key as PKCS #8, to be stored.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message)
    }

    /// Draws a key for a node and makes a certificate of it. `now` is wall time in seconds since 1970.
    pub fn issue(&self, node: NodeId, name: &Name, now: u64) -> Result<(Credentials, Issued), rcgen::Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.subject_alt_names = vec![uri(CLUSTER_URI, self.cluster)?, uri(NODE_URI, node)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(random_serial());
        let not_after = validity(&mut params, now, NODE_LIFE);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer)?.der().clone();
        let issued = Issued { fingerprint: fingerprint(&certificate), not_after };
        Ok((Credentials { certificate, key: key.serialize_der() }, issued))
    }
}

/// A positive serial number of 16 bytes (RFC 5280, 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut bytes = SystemEntropy.bytes16();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A node's certificate and its key, as they are stored.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The key, as PKCS #8.
    pub key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", fingerprint(&self.certificate))
    }
}

/// Who this node is: what it shows to its peers.
#[derive(Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// BLAKE3 of its certificate.
    pub fingerprint: Hash,
    /// Certificate and key, ready for a handshake.
    pub certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Takes credentials that this authority issued, the key being that of the certificate. A certificate out of date is taken: a
    /// node whose clock is wrong, or whose certificate has expired, has to be able to start. Its peers refuse it.
    pub fn new(authority: &Authority, credentials: &Credentials, now: UnixTime) -> Result<Identity, Fault> {
        let node = authority.check_in_its_time(&credentials.certificate, now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key.clone()));
        let chain = vec![credentials.certificate.clone()];
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|_| Fault::Malformed)?;
        Ok(Identity { node, fingerprint: fingerprint(&credentials.certificate), certified: Arc::new(certified) })
    }
}
