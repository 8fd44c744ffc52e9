//! Lists as bytes, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn node(id: u8, name: &str) -> Node {
    Node {
        id: NodeId([id; 16]),
        name: name.parse().unwrap(),
        addresses: vec!["10.0.0.1:7400".parse().unwrap(), "[fd00::1]:7400".parse().unwrap()],
        certificates: vec![Issued { fingerprint: Hash([id; 32]), not_after: 2_000_000_000 }],
        revoked: false,
    }
}

fn sample() -> NodeList {
    let revoked = Node { revoked: true, ..node(3, "one") };
    NodeList {
        cluster: ClusterId([9; 16]),
        name: "test".parse().unwrap(),
        serial: 7,
        nodes: vec![node(1, "one"), node(2, "two"), revoked],
    }
}

fn joined() -> Vec<u8> {
    join(Parts { body: &sample().encode(), signature: &[5; 70] })
}

#[test]
fn there_and_back() {
    let bytes = joined();
    let parts = split(&bytes).unwrap();
    assert_eq!(parts.signature, [5; 70]);
    assert_eq!(NodeList::decode(parts.body).unwrap(), sample());
    assert_eq!(join(parts), bytes);
}

/// The longest list that the limits allow is within the bound of its bytes.
#[test]
fn the_longest_list_fits() {
    let host = "h".repeat(253);
    let longest = |n: usize| Node {
        id: NodeId((n as u128).to_be_bytes()),
        name: format!("{n:064}").parse().unwrap(),
        addresses: vec![format!("{host}:65535").parse().unwrap(); ADDRESSES_MAX],
        certificates: vec![Issued { fingerprint: Hash([7; 32]), not_after: COUNTER_MAX }; CERTIFICATES_MAX],
        revoked: true,
    };
    let list =
        NodeList { name: "c".repeat(64).parse().unwrap(), nodes: (0..NODES_MAX).map(longest).collect(), ..sample() };
    let body = list.encode();
    let bytes = join(Parts { body: &body, signature: &[1; SIGNATURE_MAX] });
    assert!(bytes.len() < LIST_MAX, "{}", bytes.len());
    assert_eq!(NodeList::decode(split(&bytes).unwrap().body).unwrap(), list);
}

/// Every flipped bit is noticed, and whatever is cut off or appended (checks G24, G29).
#[test]
fn damage_is_noticed() {
    let bytes = joined();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(split(&bad).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(matches!(split(&bytes[..len]), Err(ListError::Length { .. })), "cut at {len}");
    }
    assert!(matches!(split(&[&bytes[..], &[0]].concat()), Err(ListError::Length { .. })));
}

fn resealed(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = joined();
    change(&mut bytes);
    bytes[8..12].fill(0);
    let crc = crc32fast::hash(&bytes[..HEADER_LEN]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Honest headers of other programs and hostile ones are refused by name (checks G28, G29).
#[test]
fn what_is_not_known_is_named() {
    assert!(matches!(split(&resealed(|b| b[4] = 2)), Err(ListError::Format { found: 2 })));
    assert!(matches!(split(&resealed(|b| b[0] = b'X')), Err(ListError::Magic)));
    assert!(matches!(split(&resealed(|b| b[6] = 0)), Err(ListError::Field("length of the signature"))));
    assert!(matches!(split(&resealed(|b| b[6] = 73)), Err(ListError::Field("length of the signature"))));
    assert!(matches!(split(&resealed(|b| b[16..20].fill(0xff))), Err(ListError::Field("length of the list"))));
}

#[test]
fn fields_out_of_range_are_refused() {
    let with = |change: &dyn Fn(&mut NodeList)| {
        let mut list = sample();
        change(&mut list);
        match NodeList::decode(&list.encode()) {
            Err(ListError::Field(field)) => field,
            other => panic!("{other:?}"),
        }
    };
    // Words that no parser would make: they come from an encoding.
    let name = |s: &str| codec::decode(&codec::encode(&s.to_owned())).unwrap();
    let address = |s: &str| codec::decode(&codec::encode(&s.to_owned())).unwrap();
    assert_eq!(with(&|l| l.name = name("")), "name of the cluster");
    assert_eq!(with(&|l| l.serial = 0), "serial number");
    assert_eq!(with(&|l| l.serial = u64::MAX), "serial number");
    assert_eq!(with(&|l| l.nodes = vec![node(1, "one"); NODES_MAX + 1]), "number of nodes");
    assert_eq!(with(&|l| l.nodes[2].id = NodeId([1; 16])), "identity of a node");
    assert_eq!(with(&|l| l.nodes[2].revoked = false), "name of a node");
    assert_eq!(with(&|l| l.nodes[2].name = name("A")), "name of a node");
    assert_eq!(with(&|l| l.nodes[0].addresses = vec!["h:1".parse().unwrap(); 9]), "addresses");
    assert_eq!(with(&|l| l.nodes[0].addresses[0] = address("h:0")), "addresses");
    assert_eq!(with(&|l| l.nodes[0].certificates.clear()), "certificates");
    assert_eq!(with(&|l| l.nodes[0].certificates = vec![l.nodes[1].certificates[0]; 3]), "certificates");
    assert_eq!(with(&|l| l.nodes[0].certificates[0].not_after = u64::MAX), "certificates");
    assert!(matches!(NodeList::decode(&[]), Err(ListError::Codec(CodecError::Empty))));
}

proptest! {
    /// No bytes make a decoder panic, and what is accepted comes out again as it went in (checks G29).
    #[test]
    fn hostile_bodies(body in prop::collection::vec(any::<u8>(), 0..300), at in 0..400usize, byte: u8) {
        let _ = NodeList::decode(&body);
        let mut bad = sample().encode();
        let at = at % bad.len();
        bad[at] = byte;
        if let Ok(list) = NodeList::decode(&bad) {
            prop_assert_eq!(NodeList::decode(&list.encode()).unwrap(), list);
        }
    }
}
