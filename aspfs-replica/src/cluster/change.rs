//! Changes of the node list: by the administrator, where the authority's key is, and by what a peer has.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use vefs::entropy::{Entropy, SystemEntropy};

use super::certificate::{AuthorityKey, Credentials, Fault, Identity};
use super::files::Secrecy;
use super::list::{self, ADDRESSES_MAX, CERTIFICATES_MAX, LIST_MAX, ListError, NODES_MAX, Node, NodeList, Signed};
use super::names::{Address, Name};
use super::{Bundle, Cluster, ClusterError, LIST, NODE, bundle, open_list, seconds};
use crate::node::NodeId;

/// What became of a list that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It was newer, and is the list now.
    Newer,
    /// It is the list that was there.
    Same,
    /// It is older than what is there.
    Older,
    /// It has the number of the list that is there and another content, and lost. The authority was restored from a copy.
    ForkLost,
    /// The same, and it won.
    ForkWon,
}

/// Signs a list.
pub(super) fn sign(key: &AuthorityKey, list: NodeList) -> Result<Signed, ClusterError> {
    let body = list.encode();
    let signature = key.sign(&list::signed_message(&body))?;
    let bytes = list::join(list::Parts { body: &body, signature: &signature });
    Ok(Signed { list, bytes })
}

/// Refuses more addresses than a node has.
pub(super) fn few(addresses: &[Address]) -> Result<(), ClusterError> {
    match addresses.len() > ADDRESSES_MAX {
        true => Err(ClusterError::TooMany { what: "addresses", max: ADDRESSES_MAX }),
        false => Ok(()),
    }
}

impl NodeList {
    /// Whether a node may show the certificate of this fingerprint. `now` is wall time in seconds since 1970.
    pub fn standing(&self, node: NodeId, fingerprint: &vefs::ids::Hash, now: u64) -> Result<(), Fault> {
        let node = self.node(node).ok_or(Fault::UnknownNode)?;
        if node.revoked {
            return Err(Fault::Revoked);
        }
        match node.certificates.iter().find(|c| c.fingerprint == *fingerprint) {
            None => Err(Fault::UnknownCertificate),
            Some(c) if c.not_after < now => Err(Fault::Expired),
            Some(_) => Ok(()),
        }
    }

    fn member(&mut self, which: &str) -> Result<&mut Node, ClusterError> {
        let Some(id) = self.find(which).map(|n| n.id) else {
            return Err(ClusterError::UnknownNode(which.chars().take(80).collect()));
        };
        match self.nodes.iter_mut().find(|n| n.id == id) {
            Some(node) if node.revoked => Err(ClusterError::Revoked(id)),
            Some(node) => Ok(node),
            None => Err(ClusterError::UnknownNode(id.to_string())),
        }
    }
}

impl Cluster {
    /// Adds a node and gives what it joins with. It can be given again only by [`Cluster::renew`].
    pub fn add_node(&self, name: &Name, addresses: &[Address]) -> Result<Bundle, ClusterError> {
        few(addresses)?;
        let mut credentials = None;
        let signed = self.change(|key, list, now| {
            if list.nodes.iter().any(|n| !n.revoked && n.name == *name) {
                return Err(ClusterError::NameTaken(name.clone()));
            }
            if list.nodes.len() >= NODES_MAX {
                return Err(ClusterError::TooMany { what: "nodes", max: NODES_MAX });
            }
            let id = NodeId(SystemEntropy.bytes16());
            let (made, issued) = key.issue(id, name, now)?;
            let (name, addresses) = (name.clone(), addresses.to_vec());
            list.nodes.push(Node { id, name, addresses, certificates: vec![issued], revoked: false });
            credentials = Some(made);
            Ok(())
        })?;
        self.bundle(credentials, signed)
    }

    /// Changes where a node listens. `which`: a name or an identity.
    pub fn set_addresses(&self, which: &str, addresses: &[Address]) -> Result<(), ClusterError> {
        few(addresses)?;
        self.change(|_, list, _| {
            list.member(which)?.addresses = addresses.to_vec();
            Ok(())
        })?;
        Ok(())
    }

    /// Throws a node out, for ever: its peers break with it as soon as they have the list, and never speak to it again. `which`: a name
    /// or an identity.
    pub fn revoke(&self, which: &str) -> Result<NodeId, ClusterError> {
        let mut id = NodeId::default();
        self.change(|_, list, _| {
            let node = list.member(which)?;
            if node.id == self.node {
                return Err(ClusterError::Own);
            }
            (id, node.revoked) = (node.id, true);
            Ok(())
        })?;
        Ok(id)
    }

    /// Makes a new key and certificate for a node, which takes it with [`Cluster::install`]. The certificate before it stays good until it
    /// expires or until the next renewal, so that the node can be given the new one in peace. `which`: a name or an identity.
    pub fn renew(&self, which: &str) -> Result<Bundle, ClusterError> {
        let mut credentials = None;
        let signed = self.change(|key, list, now| {
            let node = list.member(which)?;
            let (made, issued) = key.issue(node.id, &node.name, now)?;
            node.certificates.push(issued);
            let old = node.certificates.len().saturating_sub(CERTIFICATES_MAX);
            node.certificates.drain(..old);
            credentials = Some(made);
            Ok(())
        })?;
        self.bundle(credentials, signed)
    }

    /// [`Cluster::renew`] for this node itself, where the authority's key is, taken at once.
    pub fn renew_own(&self) -> Result<(), ClusterError> {
        let bundle = self.renew(&self.node.to_string())?;
        self.install(&bundle)
    }

    /// Takes a new certificate for this node. It is shown from the next connection on.
    pub fn install(&self, bundle: &Bundle) -> Result<(), ClusterError> {
        if bundle.authority != *self.authority.der() {
            return Err(ClusterError::OtherCluster(self.authority.cluster()));
        }
        let faulty = |source| ClusterError::Certificate { place: "bundle".to_owned(), source };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(&*self.clock)));
        let identity = Identity::new(&self.authority, &bundle.credentials, now).map_err(faulty)?;
        if identity.node != self.node {
            return Err(ClusterError::OtherNode(identity.node));
        }
        self.adopt(&bundle.list)?;
        self.standing(self.node, &identity.fingerprint).map_err(faulty)?;
        let _changing = self.changing.lock();
        self.folder.write(NODE, bundle::credentials(&bundle.credentials).as_bytes(), Secrecy::Secret)?;
        *self.identity.write() = Arc::new(identity);
        Ok(())
    }

    /// Takes a list from a peer, if it is signed and newer. It counts at once, even when it cannot be written: it may revoke somebody.
    pub fn adopt(&self, bytes: &[u8]) -> Result<Adopted, ClusterError> {
        let failed = |source| ClusterError::List { place: "list of a peer".to_owned(), source };
        if bytes.len() > LIST_MAX {
            return Err(failed(ListError::Field("length of the list")));
        }
        let now = self.list();
        if now.bytes == bytes {
            return Ok(Adopted::Same);
        }
        let signed = open_list(bytes.to_vec(), &self.authority).map_err(failed)?;
        let changing = self.changing.lock();
        let now = self.list();
        let adopted = judge(&now, &signed);
        if matches!(adopted, Adopted::ForkWon | Adopted::ForkLost) {
            let serial = now.list.serial;
            tracing::error!(serial, "ALARM: two node lists of one number: the authority was restored from a copy");
        }
        if !matches!(adopted, Adopted::Newer | Adopted::ForkWon) {
            return Ok(adopted);
        }
        let signed = Arc::new(signed);
        *self.list.write() = signed.clone();
        let written = self.folder.write(LIST, &signed.bytes, Secrecy::Open);
        drop(changing);
        self.tell();
        self.revoke_again(&now.list)?;
        written.map(|()| adopted)
    }

    /// Where the authority's key is, a list from elsewhere is one that this node has forgotten: it was restored from a copy. Whom it has revoked since
    /// stays revoked (promise G30).
    fn revoke_again(&self, former: &NodeList) -> Result<(), ClusterError> {
        let list = self.list();
        let back = |n: &&Node| !n.revoked && former.node(n.id).is_some_and(|was| was.revoked);
        let back: Vec<NodeId> = list.list.nodes.iter().filter(back).map(|n| n.id).collect();
        if self.authority_key.is_none() || back.is_empty() {
            return Ok(());
        }
        tracing::error!(nodes = ?back, "ALARM: the authority was restored from a copy: nodes that it revoked since are revoked once more");
        self.change(|_, list, _| {
            list.nodes.iter_mut().filter(|n| back.contains(&n.id)).for_each(|n| n.revoked = true);
            Ok(())
        })?;
        Ok(())
    }

    /// Makes a change of the list: signed, durable, and only then in force.
    fn change(
        &self,
        edit: impl FnOnce(&AuthorityKey, &mut NodeList, u64) -> Result<(), ClusterError>,
    ) -> Result<Arc<Signed>, ClusterError> {
        let key = self.authority_key.as_ref().ok_or(ClusterError::NoAuthority)?;
        let changing = self.changing.lock();
        let now = seconds(&*self.clock);
        let mut list = self.list().list.clone();
        // A revoked node has to be remembered only for as long as it could show a certificate; a day more for clocks that differ.
        list.nodes.retain(|n| !n.revoked || n.not_after().saturating_add(24 * 60 * 60) >= now);
        edit(key, &mut list, now)?;
        list.serial += 1;
        let signed = Arc::new(sign(key, list)?);
        self.folder.write(LIST, &signed.bytes, Secrecy::Open)?;
        *self.list.write() = signed.clone();
        drop(changing);
        self.tell();
        Ok(signed)
    }

    fn bundle(&self, credentials: Option<Credentials>, signed: Arc<Signed>) -> Result<Bundle, ClusterError> {
        let credentials = credentials.ok_or(ClusterError::NoAuthority)?;
        Ok(Bundle { credentials, authority: self.authority.der().clone(), list: signed.bytes.clone() })
    }

    fn tell(&self) {
        self.observers.lock().retain(|observer| observer());
    }
}

/// Which of two signed lists is right.
fn judge(now: &Signed, other: &Signed) -> Adopted {
    match other.list.serial.cmp(&now.list.serial) {
        std::cmp::Ordering::Greater => Adopted::Newer,
        std::cmp::Ordering::Less => Adopted::Older,
        // ECDSA signatures differ from time to time: only the content tells a fork.
        std::cmp::Ordering::Equal if other.list == now.list => Adopted::Same,
        std::cmp::Ordering::Equal => {
            let rank = |s: &Signed| *blake3::hash(&s.list.encode()).as_bytes();
            if rank(other) > rank(now) { Adopted::ForkWon } else { Adopted::ForkLost }
        }
    }
}
