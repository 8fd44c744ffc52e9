//! A bundle: what a new node is given to become a member, as text that can be copied: four PEM sections (RFC 7468), in any order and
//! with anything between them. Whoever has a bundle is that node: it is a secret.

use std::fmt;

use pem::Pem;
use rustls::pki_types::CertificateDer;

use super::certificate::Credentials;
use super::list::LIST_MAX;

/// Longest bundle in bytes: the longest list in base64, and the rest.
pub const BUNDLE_MAX: usize = LIST_MAX / 3 * 4 + LIST_MAX / 48 + (64 << 10);
/// Longest certificate or key in bytes.
const DER_MAX: usize = 8 << 10;

const NODE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";
const AUTHORITY: &str = "ASPFS AUTHORITY";
const LIST: &str = "ASPFS NODE LIST";

/// Why text is not a bundle, or a file of a cluster's folder not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Too much of it.
    #[error("{len} bytes, more than {max}")]
    Long {
        /// Bytes there are.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Not PEM.
    #[error("malformed PEM: {0}")]
    Malformed(String),
    /// A section is not there.
    #[error("no section {0}")]
    Missing(&'static str),
    /// A section is there twice.
    #[error("section {0} is there twice")]
    Twice(&'static str),
    /// A section that does not belong there.
    #[error("section {0:?} does not belong here")]
    Unknown(String),
}

/// What a new node, or a node with a new certificate, is given. Nothing of it was checked but the form.
#[derive(Clone)]
pub struct Bundle {
    /// The node's certificate and key.
    pub credentials: Credentials,
    /// The certificate of the cluster's authority.
    pub authority: CertificateDer<'static>,
    /// The signed node list.
    pub list: Vec<u8>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({:?})", self.credentials)
    }
}

impl Bundle {
    /// The text. It holds the node's key.
    pub fn to_text(&self) -> String {
        let list = pem(LIST, &self.list);
        ["A node of a cluster. Secret: whoever has this is that node.\n\n", &credentials(&self.credentials)].concat()
            + &pem(AUTHORITY, &self.authority)
            + &list
    }

    /// Reads the text.
    pub fn parse(text: &[u8]) -> Result<Bundle, PemError> {
        let [certificate, key, authority, list] = sections(text, BUNDLE_MAX, [NODE, KEY, AUTHORITY, LIST])?;
        let (certificate, key) = (der(certificate)?, der(key)?);
        if list.len() > LIST_MAX {
            return Err(PemError::Long { len: list.len(), max: LIST_MAX });
        }
        Ok(Bundle {
            credentials: Credentials { certificate: certificate.into(), key },
            authority: der(authority)?.into(),
            list,
        })
    }
}

fn pem(tag: &str, bytes: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&Pem::new(tag, bytes), config)
}

fn der(bytes: Vec<u8>) -> Result<Vec<u8>, PemError> {
    if bytes.len() > DER_MAX { Err(PemError::Long { len: bytes.len(), max: DER_MAX }) } else { Ok(bytes) }
}

/// The contents of the sections of these tags, each of which is there once, and no other.
fn sections<const N: usize>(text: &[u8], max: usize, tags: [&'static str; N]) -> Result<[Vec<u8>; N], PemError> {
    if text.len() > max {
        return Err(PemError::Long { len: text.len(), max });
    }
    let mut found: [Option<Vec<u8>>; N] = std::array::from_fn(|_| None);
    for section in pem::parse_many(text).map_err(|e| PemError::Malformed(e.to_string().chars().take(200).collect()))? {
        let Some(at) = tags.iter().position(|t| *t == section.tag()) else {
            return Err(PemError::Unknown(section.tag().chars().take(80).collect()));
        };
        if found[at].replace(section.into_contents()).is_some() {
            return Err(PemError::Twice(tags[at]));
        }
    }
    if let Some(at) = found.iter().position(Option::is_none) {
        return Err(PemError::Missing(tags[at]));
    }
    Ok(found.map(Option::unwrap_or_default))
}

/// Certificate and key in one text, so that they change together.
pub fn credentials(of: &Credentials) -> String {
    pem(NODE, &of.certificate) + &pem(KEY, &of.key)
}

/// Longest text of credentials in bytes.
pub const CREDENTIALS_MAX: usize = 64 << 10;

/// Reads the text of credentials.
pub fn parse_credentials(text: &[u8]) -> Result<Credentials, PemError> {
    let [certificate, key] = sections(text, CREDENTIALS_MAX, [NODE, KEY])?;
    Ok(Credentials { certificate: der(certificate)?.into(), key: der(key)? })
}

/// The authority's certificate as text.
pub fn authority(certificate: &CertificateDer<'_>) -> String {
    pem(NODE, certificate)
}

/// Reads the text of the authority's certificate.
pub fn parse_authority(text: &[u8]) -> Result<CertificateDer<'static>, PemError> {
    let [certificate] = sections(text, CREDENTIALS_MAX, [NODE])?;
    Ok(der(certificate)?.into())
}

/// The authority's key as text.
pub fn authority_key(pkcs8: &[u8]) -> String {
    pem(KEY, pkcs8)
}

/// Reads the text of the authority's key.
pub fn parse_authority_key(text: &[u8]) -> Result<Vec<u8>, PemError> {
    let [key] = sections(text, CREDENTIALS_MAX, [KEY])?;
    der(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let credentials = Credentials { certificate: vec![1; 500].into(), key: vec![2; 138] };
        Bundle { credentials, authority: vec![3; 400].into(), list: vec![4; 1000] }
    }

    #[test]
    fn there_and_back() {
        let text = bundle().to_text();
        let back = Bundle::parse(text.as_bytes()).unwrap();
        assert_eq!(back.to_text(), text);
        assert_eq!((back.list, back.credentials.key), (vec![4; 1000], vec![2; 138]));
        // As it looks after a mail program.
        let text = format!("Hello,\r\n\r\n{}\r\n-- \r\n", bundle().to_text().replace('\n', "\r\n"));
        assert_eq!(Bundle::parse(text.as_bytes()).unwrap().list, vec![4; 1000]);
        let longest = Bundle { list: vec![0; LIST_MAX], ..bundle() }.to_text();
        assert!(longest.len() <= BUNDLE_MAX);
        Bundle::parse(longest.as_bytes()).unwrap();
    }

    /// checks G29
    #[test]
    fn what_is_wrong_is_named() {
        let text = bundle().to_text();
        let error = |text: &str| Bundle::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error(""), PemError::Missing(NODE));
        assert_eq!(error(&text.replace("PRIVATE KEY", "CERTIFICATE")), PemError::Twice(NODE));
        assert_eq!(error(&text.replace("PRIVATE KEY", "X")), PemError::Unknown("X".to_owned()));
        assert_eq!(error(&text[..text.len() - 100]), PemError::Missing(LIST));
        assert!(matches!(error(&text.replace("AQEB", "A!EB")), PemError::Malformed(_)));
        assert!(matches!(error(&"x".repeat(BUNDLE_MAX + 1)), PemError::Long { .. }));
        let thick = Bundle { authority: vec![0; DER_MAX + 1].into(), ..bundle() };
        assert_eq!(error(&thick.to_text()), PemError::Long { len: DER_MAX + 1, max: DER_MAX });
        assert!(matches!(Bundle::parse(&[0xff; 100]), Err(PemError::Missing(_))));
    }
}
