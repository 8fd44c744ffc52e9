//! Node lists and bundles: samples, and what hostile bytes are run through (promise G29).

use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::cluster::certificate::{Authority, Credentials, Identity};
use aspfs_replica::cluster::list::{self, Parts};
use aspfs_replica::cluster::{Bundle, Cluster, Issued, Node, NodeList, Role};
use aspfs_replica::node::{ClusterId, NodeId};
use rustls::pki_types::UnixTime;
use vefs::clock::SystemClock;
use vefs::ids::Hash;

use crate::golden::Entries;
use crate::samples::counting;

/// A list with everything in it.
pub fn node_list() -> NodeList {
    let issued = |first, not_after| Issued { fingerprint: Hash(counting(first)), not_after };
    let node = |first, name: &str, addresses: &[&str], revoked| Node {
        id: NodeId(counting(first)),
        name: name.parse().expect("a name"),
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        certificates: vec![issued(first, 2_000_000_000), issued(first + 1, 1 << 40)],
        revoked,
    };
    NodeList {
        cluster: ClusterId(counting(0x11)),
        name: "example".parse().expect("a name"),
        serial: 0x1234,
        nodes: vec![
            node(0x21, "one", &["one.example.org:7400", "[fd00::1]:7400"], false),
            node(0x41, "two", &[], false),
            node(0x61, "two", &["10.0.0.3:7400"], true),
        ],
    }
}

/// The list with a signature that nobody made.
pub fn signed_list() -> Vec<u8> {
    list::join(Parts { body: &node_list().encode(), signature: &counting::<70>(1) })
}

/// A bundle whose certificates are none.
pub fn bundle() -> Bundle {
    let credentials = Credentials { certificate: counting::<120>(1).to_vec().into(), key: counting::<60>(2).to_vec() };
    Bundle { credentials, authority: counting::<100>(3).to_vec().into(), list: signed_list() }
}

/// The samples as bytes.
pub fn encoded() -> Entries {
    Entries::from([
        ("bundle".to_owned(), bundle().to_text().into_bytes()),
        ("node-list".to_owned(), signed_list()),
        ("signed-message".to_owned(), list::signed_message(b"list")),
    ])
}

/// The samples, and what a real authority makes: another one each time.
pub fn seeds() -> Entries {
    let top = tempfile::tempdir().expect("a folder");
    let name = "example".parse().expect("a name");
    let cluster =
        Cluster::init(&top.path().join("cluster"), &name, &name, &[], Arc::new(SystemClock)).expect("a cluster");
    let bundle = cluster.add_node(&"two".parse().expect("a name"), &[]).expect("a bundle");
    let mut all = encoded();
    all.insert("real-bundle".to_owned(), bundle.to_text().into_bytes());
    all.insert("real-list".to_owned(), bundle.list.clone());
    all.insert("real-certificate".to_owned(), bundle.credentials.certificate.to_vec());
    all.insert("real-authority".to_owned(), bundle.authority.to_vec());
    all
}

/// Gives bytes to the decoder of node lists: as they are, and as a list whose header and signature are not looked at.
pub fn run_list(data: &[u8]) {
    if let Ok(parts) = list::split(data) {
        assert_eq!(list::join(parts), data);
        run_body(parts.body);
    }
    run_body(data);
}

fn run_body(data: &[u8]) {
    if let Ok(list) = NodeList::decode(data) {
        assert_eq!(NodeList::decode(&list.encode()).ok(), Some(list));
    }
}

/// Gives bytes to the reader of bundles, and what comes out to those who look at certificates and keys; and as a certificate and a key.
pub fn run_bundle(data: &[u8]) {
    certificates(data, data);
    let Ok(bundle) = Bundle::parse(data) else { return };
    let text = bundle.to_text();
    let again = Bundle::parse(text.as_bytes()).expect("what was written is read");
    assert_eq!(again.to_text(), text);
    certificates(&bundle.credentials.certificate, &bundle.credentials.key);
    certificates(&bundle.authority, &bundle.credentials.key);
    run_list(&bundle.list);
}

fn certificates(certificate: &[u8], key: &[u8]) {
    let Ok(authority) = Authority::new(certificate.to_vec().into()) else { return };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
    let credentials = Credentials { certificate: certificate.to_vec().into(), key: key.to_vec() };
    for role in [Role::Dialler, Role::Listener] {
        // An authority's certificate is no node's.
        assert!(authority.check(&credentials.certificate, role, now).is_err());
    }
    assert!(Identity::new(&authority, &credentials, now).is_err());
    assert!(!authority.has_signed(b"message", key));
}
