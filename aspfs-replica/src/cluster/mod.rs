//! `cluster`: who belongs to it, and how a node knows. The room for identities, certificates and the node list (promise G30).
//!
//! The first node makes the cluster: an **authority** (a key and a certificate), its own identity, and the node list with itself in it.
//! Where the authority's key is, nodes are added: [`Cluster::add_node`] makes an identity for the new node and gives a [`Bundle`], from
//! which the new node makes its own folder with [`Cluster::join`]. Revoking, renewing and changing addresses are changes of the list.
//!
//! Invariants:
//!
//! - A node's identity, and the cluster's, are drawn once and never change. A name may be used again once its node is revoked.
//! - A certificate counts only if the authority issued it, it is in date, **and** the node list has it with a node that is not revoked.
//! - A list counts only with the authority's signature. Of two lists the one with the higher serial number is right. Two with one number
//!   and different content come of an authority that was restored from a copy; all nodes then settle on the same one of them (the
//!   greater BLAKE3), and say so.
//! - What is in the folder is there whole and durable before it counts, except a list from a peer: it counts at once, because it may revoke.
//! - Wall time is looked at for the dates of certificates, and for nothing else.
//!
//! Nothing here opens a socket: [`crate::net`] shows certificates, checks them with [`Cluster::admit`], and carries lists. Locks, in order:
//! `changing` (held over a write to disk), `observers`, `list` and `identity` (for moments).
//!
//! ```
//! # use std::sync::Arc;
//! use aspfs_replica::cluster::Cluster;
//! use vefs::clock::SystemClock;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let top = tempfile::tempdir()?;
//! # let (here, there) = (top.path().join("one"), top.path().join("two"));
//! let clock = Arc::new(SystemClock);
//! let one = Cluster::init(&here, &"example".parse()?, &"one".parse()?, &["10.0.0.1:7400".parse()?], clock.clone())?;
//! let bundle = one.add_node(&"two".parse()?, &["10.0.0.2:7400".parse()?])?;
//! let two = Cluster::join(&there, &bundle, clock)?;
//! assert_eq!(two.list(), one.list());
//! # Ok(())
//! # }
//! ```

mod bundle;
pub mod certificate;
mod change;
mod error;
mod files;
pub mod list;
mod names;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::{CertificateDer, UnixTime};
use vefs::clock::Clock;
use vefs::entropy::{Entropy, SystemEntropy};
use vefs::ids::Hash;

pub use bundle::{BUNDLE_MAX, Bundle, PemError};
pub use certificate::{Fault, Role};
pub use change::Adopted;
pub use error::ClusterError;
pub use list::{Issued, ListError, Node, NodeList, Signed};
pub use names::{Address, NAME_MAX, Name, WordError};

use crate::node::{ClusterId, NodeId};
use certificate::{Authority, AuthorityKey, Credentials, Identity};
use files::{Folder, Secrecy};

/// The authority's certificate, of every member.
const AUTHORITY: &str = "authority.pem";
/// The authority's key, of one node.
const AUTHORITY_KEY: &str = "authority-key.pem";
/// The node's certificate and key. It is written last: where it is, there is a member.
const NODE: &str = "node.pem";
/// The signed node list.
const LIST: &str = "nodes";

type Observer = Box<dyn Fn() -> bool + Send + Sync>;

/// A node's membership of a cluster. One process at a time has it open.
pub struct Cluster {
    folder: Folder,
    clock: Arc<dyn Clock>,
    authority: Authority,
    authority_key: Option<AuthorityKey>,
    node: NodeId,
    /// Held while a change is made durable.
    changing: Mutex<()>,
    observers: Mutex<Vec<Observer>>,
    list: RwLock<Arc<Signed>>,
    identity: RwLock<Arc<Identity>>,
}

/// Everything that a folder has, checked against each other.
struct Parts {
    authority: Authority,
    authority_key: Option<AuthorityKey>,
    identity: Identity,
    list: Signed,
}

fn seconds(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.wall().secs).unwrap_or(0)
}

/// Checks the signature of a list, and reads it.
fn open_list(bytes: Vec<u8>, authority: &Authority) -> Result<Signed, ListError> {
    let parts = list::split(&bytes)?;
    if !authority.has_signed(&list::signed_message(parts.body), parts.signature) {
        return Err(ListError::Signature);
    }
    let list = NodeList::decode(parts.body)?;
    if list.cluster != authority.cluster() { Err(ListError::Cluster(list.cluster)) } else { Ok(Signed { list, bytes }) }
}

impl Cluster {
    /// Makes a new cluster with this node as its first, and the only one with the authority's key. The folder is made if it is not there.
    pub fn init(
        dir: &Path,
        cluster: &Name,
        node: &Name,
        addresses: &[Address],
        clock: Arc<dyn Clock>,
    ) -> Result<Cluster, ClusterError> {
        let folder = Folder::create(dir)?;
        Self::is_free(&folder)?;
        change::few(addresses)?;
        let (id, now) = (ClusterId(SystemEntropy.bytes16()), seconds(&*clock));
        let (key, certificate) = AuthorityKey::generate(id, now)?;
        let own = NodeId(SystemEntropy.bytes16());
        let (credentials, issued) = key.issue(own, node, now)?;
        let first = Node {
            id: own,
            name: node.clone(),
            addresses: addresses.to_vec(),
            certificates: vec![issued],
            revoked: false,
        };
        let list = NodeList { cluster: id, name: cluster.clone(), serial: 1, nodes: vec![first] };
        let list = change::sign(&key, list)?;
        folder.set_aside(AUTHORITY_KEY)?;
        folder.write(AUTHORITY_KEY, bundle::authority_key(&key.to_pkcs8()).as_bytes(), Secrecy::Secret)?;
        Self::settle(folder, &credentials, &certificate, list.bytes, Some(key), clock)
    }

    /// Makes this node a member by what [`Cluster::add_node`] gave. The folder is made if it is not there.
    pub fn join(dir: &Path, bundle: &Bundle, clock: Arc<dyn Clock>) -> Result<Cluster, ClusterError> {
        let folder = Folder::create(dir)?;
        Self::is_free(&folder)?;
        Self::settle(folder, &bundle.credentials, &bundle.authority, bundle.list.clone(), None, clock)
    }

    /// Whether the folder is a member's. One that an interrupted or refused [`Cluster::init`] or [`Cluster::join`] left is not.
    pub fn is_member(dir: &Path) -> bool {
        dir.join(NODE).exists()
    }

    /// Opens the folder of a member.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Cluster, ClusterError> {
        let folder = Folder::open(dir)?;
        let pem = |name: &str, source| ClusterError::Pem { place: folder.place(name).display().to_string(), source };
        let read = |name: &str, max, secrecy| match folder.read(name, max, secrecy) {
            Ok(None) => Err(ClusterError::NotHere(folder.path().to_owned())),
            Ok(Some(bytes)) => Ok(bytes),
            Err(e) => Err(e),
        };
        let node = read(NODE, bundle::CREDENTIALS_MAX, Secrecy::Secret)?;
        let credentials = bundle::parse_credentials(&node).map_err(|e| pem(NODE, e))?;
        let authority = read(AUTHORITY, bundle::CREDENTIALS_MAX, Secrecy::Open)?;
        let authority = bundle::parse_authority(&authority).map_err(|e| pem(AUTHORITY, e))?;
        let list = read(LIST, list::LIST_MAX, Secrecy::Open)?;
        let key = match folder.read(AUTHORITY_KEY, bundle::CREDENTIALS_MAX, Secrecy::Secret)? {
            Some(text) => Some(bundle::parse_authority_key(&text).map_err(|e| pem(AUTHORITY_KEY, e))?),
            None => None,
        };
        let mut parts = Self::check(folder.path(), &credentials, &authority, list, &*clock)?;
        if let Some(pkcs8) = key {
            let key = AuthorityKey::from_pkcs8(parts.authority.cluster(), &pkcs8)?;
            // A key of another authority would sign what nobody takes.
            if !parts.authority.has_signed(LIST.as_bytes(), &key.sign(LIST.as_bytes())?) {
                let place = folder.place(AUTHORITY_KEY).display().to_string();
                return Err(ClusterError::Certificate { place, source: Fault::WrongAuthority });
            }
            parts.authority_key = Some(key);
        }
        Ok(Self::assemble(folder, parts, clock))
    }

    fn is_free(folder: &Folder) -> Result<(), ClusterError> {
        match folder.read(NODE, bundle::CREDENTIALS_MAX, Secrecy::Open)? {
            Some(_) => Err(ClusterError::Taken(folder.path().to_owned())),
            None => Ok(()),
        }
    }

    /// Checks what a new member is made of, writes it, and opens it.
    fn settle(
        folder: Folder,
        credentials: &Credentials,
        authority: &CertificateDer<'static>,
        list: Vec<u8>,
        key: Option<AuthorityKey>,
        clock: Arc<dyn Clock>,
    ) -> Result<Cluster, ClusterError> {
        let mut parts = Self::check(Path::new("bundle"), credentials, authority, list, &*clock)?;
        parts.authority_key = key;
        let faulty = |source| ClusterError::Certificate { place: "bundle".to_owned(), source };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(&*clock)));
        parts.authority.check(&credentials.certificate, Role::Listener, now).map_err(faulty)?;
        let own = parts.list.list.standing(parts.identity.node, &parts.identity.fingerprint, seconds(&*clock));
        own.map_err(faulty)?;
        if parts.authority_key.is_none() {
            // Of an `init` that was interrupted, or of a cluster whose member this node was: not this one's, and never thrown away.
            folder.set_aside(AUTHORITY_KEY)?;
        }
        folder.write(AUTHORITY, bundle::authority(authority).as_bytes(), Secrecy::Open)?;
        folder.write(LIST, &parts.list.bytes, Secrecy::Open)?;
        folder.write(NODE, bundle::credentials(credentials).as_bytes(), Secrecy::Secret)?;
        Ok(Self::assemble(folder, parts, clock))
    }

    fn check(
        place: &Path,
        credentials: &Credentials,
        authority: &CertificateDer<'static>,
        list: Vec<u8>,
        clock: &dyn Clock,
    ) -> Result<Parts, ClusterError> {
        let at = |name: &str| place.join(name).display().to_string();
        let list_error = |source| ClusterError::List { place: at(LIST), source };
        let authority = Authority::new(authority.clone())
            .map_err(|source| ClusterError::Certificate { place: at(AUTHORITY), source })?;
        let list = open_list(list, &authority).map_err(list_error)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(clock)));
        let identity = Identity::new(&authority, credentials, now)
            .map_err(|source| ClusterError::Certificate { place: at(NODE), source })?;
        Ok(Parts { authority, authority_key: None, identity, list })
    }

    fn assemble(folder: Folder, parts: Parts, clock: Arc<dyn Clock>) -> Cluster {
        Cluster {
            folder,
            clock,
            authority: parts.authority,
            authority_key: parts.authority_key,
            node: parts.identity.node,
            changing: Mutex::new(()),
            observers: Mutex::new(Vec::new()),
            list: RwLock::new(Arc::new(parts.list)),
            identity: RwLock::new(Arc::new(parts.identity)),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether the authority's key is here, so that nodes can be added and revoked.
    pub fn has_authority(&self) -> bool {
        self.authority_key.is_some()
    }

    /// The node list as it is now.
    pub fn list(&self) -> Arc<Signed> {
        self.list.read().clone()
    }

    /// What this node shows to its peers.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().clone()
    }

    /// The clock that it was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Which node shows this certificate, if it may: issued by the authority, in date, and in the node list with a node that is not
    /// revoked.
    pub fn admit(&self, shown: &CertificateDer<'_>, role: Role) -> Result<NodeId, Fault> {
        let now = seconds(&*self.clock);
        let node = self.authority.check(shown, role, UnixTime::since_unix_epoch(Duration::from_secs(now)))?;
        self.standing(node, &certificate::fingerprint(shown)).map(|()| node)
    }

    /// What [`Cluster::admit`] says without the node list: the node that the authority vouched for at some time, unless it is revoked.
    /// Such a peer may know a newer list, and may do nothing but show it.
    pub fn vouched(&self, shown: &CertificateDer<'_>, role: Role) -> Result<NodeId, Fault> {
        match self.admit(shown, role) {
            Err(Fault::UnknownNode | Fault::UnknownCertificate) => {
                let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(&*self.clock)));
                self.authority.check(shown, role, now)
            }
            other => other,
        }
    }

    /// Whether a node may show this certificate, by the node list as it is now.
    pub fn standing(&self, node: NodeId, fingerprint: &Hash) -> Result<(), Fault> {
        self.list.read().list.standing(node, fingerprint, seconds(&*self.clock))
    }

    /// Calls `observer` after each change of the node list, until it answers that it wants no more. It must not call back into
    /// [`Cluster::observe`].
    pub fn observe(&self, observer: impl Fn() -> bool + Send + Sync + 'static) {
        self.observers.lock().push(Box::new(observer));
    }
}

#[cfg(test)]
mod tests;
