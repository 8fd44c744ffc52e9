//! Identities, the list, and how both are refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use vefs::clock::ManualClock;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Bed {
    top: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Bed {
    fn new() -> Bed {
        Bed { top: tempfile::tempdir().unwrap(), clock: Arc::default() }
    }

    fn init(&self, dir: &str) -> Cluster {
        let (cluster, node) = ("test".parse().unwrap(), dir.parse().unwrap());
        Cluster::init(&self.top.path().join(dir), &cluster, &node, &["10.0.0.1:7400".parse().unwrap()], self.clock())
            .unwrap()
    }

    fn clock(&self) -> Arc<ManualClock> {
        self.clock.clone()
    }

    fn join(&self, dir: &str, bundle: &Bundle) -> Result<Cluster, ClusterError> {
        Cluster::join(&self.top.path().join(dir), bundle, self.clock())
    }

    fn open(&self, dir: &str) -> Result<Cluster, ClusterError> {
        Cluster::open(&self.top.path().join(dir), self.clock())
    }

    fn added(&self, one: &Cluster, name: &str) -> Cluster {
        self.join(name, &one.add_node(&name.parse().unwrap(), &[]).unwrap()).unwrap()
    }
}

fn shown(of: &Cluster) -> CertificateDer<'static> {
    of.identity().certified.cert[0].clone()
}

/// What `judge` thinks of `other`'s certificate, in both roles.
fn admits(judge: &Cluster, other: &Cluster) -> Result<NodeId, Fault> {
    let (a, b) = (judge.admit(&shown(other), Role::Listener), judge.admit(&shown(other), Role::Dialler));
    assert_eq!(a, b);
    a
}

fn faulty<T>(result: Result<T, ClusterError>) -> Fault {
    match result.err() {
        Some(ClusterError::Certificate { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// checks G30
#[test]
fn members_know_one_another_and_nobody_else() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    assert_eq!(two.list(), one.list());
    assert_eq!((one.list().list.serial, one.list().list.nodes.len()), (2, 2));
    assert_eq!(admits(&one, &two), Ok(two.node()));
    assert_eq!(admits(&two, &one), Ok(one.node()));
    assert_ne!(one.node(), two.node());
    // Another cluster of the same name is another cluster.
    let stranger = Bed::new().init("one");
    assert_eq!(admits(&one, &stranger), Err(Fault::WrongAuthority));
    assert_eq!(admits(&stranger, &two), Err(Fault::WrongAuthority));
    // A third one is vouched for by the authority, but two has not heard of it yet.
    let three = bed.added(&one, "three");
    assert_eq!(admits(&two, &three), Err(Fault::UnknownNode));
    assert_eq!(two.vouched(&shown(&three), Role::Dialler), Ok(three.node()));
    assert_eq!(two.adopt(&three.list().bytes).unwrap(), Adopted::Newer);
    assert_eq!(admits(&two, &three), Ok(three.node()));
    assert_eq!(two.adopt(&one.list().bytes).unwrap(), Adopted::Same);
}

#[test]
fn what_was_made_is_opened_again() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    let (id, list) = (one.node(), one.list());
    assert!(matches!(bed.open("one"), Err(ClusterError::Locked(_))));
    drop((one, two));
    let (one, two) = (bed.open("one").unwrap(), bed.open("two").unwrap());
    assert_eq!((one.node(), one.list()), (id, list));
    assert_eq!((one.has_authority(), two.has_authority()), (true, false));
    assert!(matches!(two.add_node(&"x".parse().unwrap(), &[]), Err(ClusterError::NoAuthority)));
    one.add_node(&"three".parse().unwrap(), &[]).unwrap();
    assert_eq!(admits(&one, &two), Ok(two.node()));
    drop(one);
    assert_eq!(bed.open("one").unwrap().list().list.nodes.len(), 3);
    assert!(matches!(bed.open("nowhere"), Err(ClusterError::NotHere(_))));
    std::fs::create_dir(bed.top.path().join("empty")).unwrap();
    assert!(matches!(bed.open("empty"), Err(ClusterError::NotHere(_))));
}

#[test]
fn a_folder_holds_one_member() {
    let bed = Bed::new();
    let one = bed.init("one");
    let bundle = one.add_node(&"two".parse().unwrap(), &[]).unwrap();
    drop(one);
    assert!(matches!(bed.join("one", &bundle), Err(ClusterError::Taken(_))));
    let path = bed.top.path().join("one");
    let again = Cluster::init(&path, &"x".parse().unwrap(), &"y".parse().unwrap(), &[], bed.clock());
    assert!(matches!(again, Err(ClusterError::Taken(_))));
    // An attempt that was cut short leaves no member, and does not stand in the way of the next.
    std::fs::remove_file(path.join(NODE)).unwrap();
    std::fs::write(path.join("node.pem.new"), b"half").unwrap();
    assert!(matches!(bed.open("one"), Err(ClusterError::NotHere(_))));
    bed.join("one", &bundle).unwrap();
}

/// checks G30
#[test]
fn the_revoked_stay_out() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    let three = bed.added(&one, "three");
    assert!(matches!(one.revoke("one"), Err(ClusterError::Own)));
    assert!(matches!(one.revoke("four"), Err(ClusterError::UnknownNode(_))));
    assert_eq!(one.revoke("two").unwrap(), two.node());
    assert!(matches!(one.revoke("two"), Err(ClusterError::UnknownNode(_))), "a revoked node has no name");
    assert!(matches!(one.revoke(&two.node().to_string()), Err(ClusterError::Revoked(_))));
    assert!(matches!(one.renew(&two.node().to_string()), Err(ClusterError::Revoked(_))));
    assert_eq!(admits(&one, &two), Err(Fault::Revoked));
    assert_eq!(one.vouched(&shown(&two), Role::Dialler), Err(Fault::Revoked));
    assert_eq!(admits(&three, &two), Ok(two.node()), "it has not heard of it");
    three.adopt(&one.list().bytes).unwrap();
    assert_eq!(admits(&three, &two), Err(Fault::Revoked));
    // An old list does not bring it back.
    assert_eq!(three.adopt(&two.list().bytes).unwrap(), Adopted::Older);
    assert_eq!(admits(&three, &two), Err(Fault::Revoked));
    // Its name is free, for another identity.
    let again = bed.join("again", &one.add_node(&"two".parse().unwrap(), &[]).unwrap()).unwrap();
    assert_ne!(again.node(), two.node());
    assert_eq!(one.list().list.find("two").unwrap().id, again.node());
    assert_eq!(admits(&one, &two), Err(Fault::Revoked));
}

/// A bundle of a node that was revoked before it joined is worth nothing where its list says so; and where it was made before, its
/// peers know better (checks G30).
#[test]
fn a_bundle_can_be_revoked_before_it_is_used() {
    let bed = Bed::new();
    let one = bed.init("one");
    let mut bundle = one.add_node(&"two".parse().unwrap(), &[]).unwrap();
    one.revoke("two").unwrap();
    let two = bed.join("two", &bundle).unwrap();
    assert_eq!(admits(&one, &two), Err(Fault::Revoked));
    bundle.list = one.list().bytes.clone();
    assert_eq!(faulty(bed.join("three", &bundle)), Fault::Revoked);
}

#[test]
fn names_are_taken_once() {
    let bed = Bed::new();
    let one = bed.init("one");
    assert!(matches!(one.add_node(&"one".parse().unwrap(), &[]), Err(ClusterError::NameTaken(_))));
    let nine: Vec<Address> = (1..=9).map(|n| format!("h:{n}").parse().unwrap()).collect();
    assert!(matches!(one.add_node(&"two".parse().unwrap(), &nine), Err(ClusterError::TooMany { max: 8, .. })));
    assert_eq!(one.list().list.serial, 1, "a refused change is none");
    one.add_node(&"two".parse().unwrap(), &nine[..8]).unwrap();
    one.set_addresses("two", &nine[..1]).unwrap();
    assert_eq!(one.list().list.find("two").unwrap().addresses, nine[..1]);
    assert_eq!(one.list().list.serial, 3);
}

/// checks G30
#[test]
fn certificates_expire_and_are_renewed() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    let old = shown(&two);
    bed.clock.advance(4 * 365 * DAY);
    let bundle = one.renew("two").unwrap();
    assert_eq!(admits(&one, &two), Ok(two.node()), "the old one is good until it expires");
    bed.clock.advance(2 * 365 * DAY);
    assert_eq!(admits(&one, &two), Err(Fault::Expired));
    assert_eq!(one.standing(two.node(), &two.identity().fingerprint), Err(Fault::Expired));
    two.install(&bundle).unwrap();
    assert_eq!(admits(&one, &two), Ok(two.node()));
    assert_ne!(shown(&two), old);
    // Its own has expired too; and it can still be opened, to be renewed.
    assert_eq!(admits(&two, &one), Err(Fault::Expired));
    drop(one);
    let one = bed.open("one").unwrap();
    one.renew_own().unwrap();
    assert_eq!(admits(&one, &one), Ok(one.node()));
    assert_eq!(admits(&two, &one), Err(Fault::UnknownCertificate));
    two.adopt(&one.list().bytes).unwrap();
    assert_eq!(admits(&two, &one), Ok(one.node()));
    drop(two);
    assert_eq!(admits(&one, &bed.open("two").unwrap()), Ok(one.list().list.find("two").unwrap().id));
}

/// Two renewals withdraw a key that leaked (checks G30).
#[test]
fn the_certificate_before_the_last_is_not_taken() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    one.renew("two").unwrap();
    let bundle = one.renew("two").unwrap();
    assert_eq!(admits(&one, &two), Err(Fault::UnknownCertificate));
    two.install(&bundle).unwrap();
    assert_eq!(admits(&one, &two), Ok(two.node()));
    assert_eq!(one.list().list.find("two").unwrap().certificates.len(), 2);
}

#[test]
fn bundles_for_others_are_not_installed() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    let three = one.add_node(&"three".parse().unwrap(), &[]).unwrap();
    assert!(matches!(two.install(&three), Err(ClusterError::OtherNode(_))));
    let elsewhere = Bed::new();
    let stranger = elsewhere.init("one");
    let foreign = stranger.renew("one").unwrap();
    assert!(matches!(two.install(&foreign), Err(ClusterError::OtherCluster(_))));
    // Of a certificate and the key of another, nothing comes.
    let mut mixed = one.renew("two").unwrap();
    mixed.credentials.key = three.credentials.key.clone();
    assert_eq!(faulty(two.install(&mixed)), Fault::Malformed);
    assert_eq!(faulty(bed.join("x", &mixed)), Fault::Malformed);
}

#[test]
fn a_clock_that_is_far_off_is_named() {
    let bed = Bed::new();
    let ahead = Arc::new(ManualClock::default());
    ahead.advance(3 * DAY);
    let path = bed.top.path().join("one");
    let one = Cluster::init(&path, &"test".parse().unwrap(), &"one".parse().unwrap(), &[], ahead.clone()).unwrap();
    let bundle = one.add_node(&"two".parse().unwrap(), &[]).unwrap();
    assert_eq!(faulty(bed.join("two", &bundle)), Fault::NotYetValid);
    bed.clock.advance(2 * DAY + DAY / 2);
    bed.join("two", &bundle).unwrap();
}

/// A node list that the authority did not sign counts for nothing, whoever sends it (checks G30).
#[test]
fn only_the_authority_signs_lists() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    one.revoke("two").unwrap();
    let mut list = one.list().list.clone();
    list.nodes[1].revoked = false;
    list.serial += 1;
    let old = one.list();
    let signature = list::split(&old.bytes).unwrap().signature.to_vec();
    let forged = list::join(list::Parts { body: &list.encode(), signature: &signature });
    for (bytes, judge) in [(forged, &one), (Bed::new().init("one").list().bytes.clone(), &two)] {
        match judge.adopt(&bytes) {
            Err(ClusterError::List { source: ListError::Signature, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(one.list(), old);
}

/// An authority that was restored from a copy makes two lists of one number. All nodes settle on one of them, in whatever order they
/// hear of them.
#[test]
fn a_fork_ends_the_same_everywhere() {
    let bed = Bed::new();
    let one = bed.init("one");
    let (two, three) = (bed.added(&one, "two"), bed.added(&one, "three"));
    drop(one);
    let copy = bed.top.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(bed.top.path().join("one")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let (one, copy) = (bed.open("one").unwrap(), bed.open("copy").unwrap());
    one.set_addresses("two", &["a:1".parse().unwrap()]).unwrap();
    copy.set_addresses("two", &["b:1".parse().unwrap()]).unwrap();
    let (a, b) = (one.list(), copy.list());
    assert_eq!(a.list.serial, b.list.serial);
    two.adopt(&a.bytes).unwrap();
    three.adopt(&b.bytes).unwrap();
    let last = [two.adopt(&b.bytes).unwrap(), three.adopt(&a.bytes).unwrap()];
    assert!(last.contains(&Adopted::ForkWon) && last.contains(&Adopted::ForkLost), "{last:?}");
    assert_eq!(two.list(), three.list());
}

#[test]
fn observers_hear_of_every_change() {
    let bed = Bed::new();
    let one = bed.init("one");
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    one.observe(move || count.fetch_add(1, Ordering::Relaxed) < 2);
    for n in 0..5 {
        one.add_node(&format!("n{n}").parse().unwrap(), &[]).unwrap();
    }
    assert_eq!(heard.load(Ordering::Relaxed), 3, "it wanted no more");
}

#[test]
fn secrets_are_kept_from_others() {
    let bed = Bed::new();
    let one = bed.init("one");
    let mode = |name: &str| {
        let path = bed.top.path().join("one").join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode(""), mode(NODE), mode(AUTHORITY_KEY)], [0o700, 0o600, 0o600]);
    let text = format!("{:?} {:?}", one.identity(), one.add_node(&"two".parse().unwrap(), &[]).unwrap());
    assert!(!text.contains("key: ["), "{text}");
    drop(one);
    for name in [NODE, AUTHORITY_KEY] {
        let path = bed.top.path().join("one").join(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(bed.open("one"), Err(ClusterError::Exposed { mode: 0o640, .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    bed.open("one").unwrap();
}

/// What stands in a damaged folder is refused by name, and stays as it is.
#[test]
fn damage_is_named() {
    let bed = Bed::new();
    let one = bed.init("one");
    let other = Bed::new();
    let stranger = other.init("one");
    drop((one, stranger));
    let dir = bed.top.path().join("one");
    for name in [NODE, AUTHORITY, AUTHORITY_KEY, LIST] {
        let good = std::fs::read(dir.join(name)).unwrap();
        let foreign = std::fs::read(other.top.path().join("one").join(name)).unwrap();
        for bad in [&b""[..], &b"-----BEGIN X-----\nAAAA\n-----END X-----\n"[..], &good[..good.len() / 2], &foreign] {
            std::fs::write(dir.join(name), bad).unwrap();
            let error = bed.open("one").err().unwrap_or_else(|| panic!("{name} was taken"));
            assert!(!matches!(error, ClusterError::NotHere(_) | ClusterError::Io { .. }), "{name}: {error}");
            assert_eq!(std::fs::read(dir.join(name)).unwrap(), bad);
        }
        std::fs::write(dir.join(name), good).unwrap();
    }
    std::fs::write(dir.join(LIST), vec![0; list::LIST_MAX + 1]).unwrap();
    assert!(matches!(bed.open("one"), Err(ClusterError::Large { .. })));
}

/// A certificate out of date is looked at as thoroughly as one in date. It once was not: of a certificate that was not valid yet only the
/// names were read, so that one of another authority was taken as this node's own.
#[test]
fn a_wrong_clock_hides_nothing() {
    let elsewhere = Bed::new();
    let stranger = elsewhere.init("one");
    let bed = Bed::new();
    let one = bed.init("one");
    let mine = one.renew("one").unwrap();
    let foreign = stranger.renew("one").unwrap();
    for days in [0, 3 * 365, 6 * 365] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(999_800_000) + days * DAY);
        let identity = |credentials| Identity::new(&one.authority, credentials, now).map(|i| i.node);
        assert_eq!(identity(&mine.credentials), Ok(one.node()), "after {days} days");
        assert_eq!(identity(&foreign.credentials), Err(Fault::WrongAuthority), "after {days} days");
    }
}

/// The authority was restored from a copy, and revoked a node; then it heard a newer list, from before it was restored, and the node was a member again
/// (checks G30).
#[test]
fn whom_a_restored_authority_revoked_stays_revoked() {
    let bed = Bed::new();
    let one = bed.init("one");
    let two = bed.added(&one, "two");
    let (from, to) = (bed.top.path().join("one"), bed.top.path().join("copy"));
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(&from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    for n in 0..4 {
        one.set_addresses("one", &[format!("10.0.0.{n}:7400").parse().unwrap()]).unwrap();
    }
    let copy = bed.open("copy").unwrap();
    copy.revoke("two").unwrap();
    assert!(copy.list().list.serial < one.list().list.serial);
    assert_eq!(copy.adopt(&one.list().bytes).unwrap(), Adopted::Newer);
    assert_eq!(admits(&copy, &two), Err(Fault::Revoked));
    assert_eq!(copy.list().list.serial, one.list().list.serial + 1);
    assert_eq!(one.adopt(&copy.list().bytes).unwrap(), Adopted::Newer);
    assert_eq!(admits(&one, &two), Err(Fault::Revoked));
}

/// Who joined with a clock that was wrong was told so, and when the clock was right that it was in a cluster already (checks G30). The key that an interrupted
/// `init` left is no authority's, and is not thrown away: it may be another cluster's only one.
#[test]
fn a_folder_that_holds_no_member_is_used_again() {
    let bed = Bed::new();
    let one = bed.init("one");
    let bundle = one.add_node(&"two".parse().unwrap(), &[]).unwrap();
    let folder = bed.top.path().join("two");
    bed.clock.advance(DAY * 365 * 100);
    assert!(bed.join("two", &bundle).is_err());
    assert!(folder.exists() && !Cluster::is_member(&folder));
    std::fs::copy(bed.top.path().join("one").join(AUTHORITY_KEY), folder.join(AUTHORITY_KEY)).unwrap();
    let other = Bed::new();
    let two = Cluster::join(&folder, &bundle, other.clock()).unwrap();
    assert!(Cluster::is_member(&folder) && !two.has_authority());
    let key = |dir: &str, name: &str| std::fs::read(bed.top.path().join(dir).join(name)).ok();
    assert_eq!(key("two", AUTHORITY_KEY), None);
    assert_eq!(key("two", "authority-key.pem.1"), key("one", AUTHORITY_KEY));
    drop(two);
    assert!(!Cluster::open(&folder, other.clock()).unwrap().has_authority());
}
