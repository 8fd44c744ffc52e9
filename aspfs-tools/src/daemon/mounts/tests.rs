use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::super::holder::fake::{Said, link, nothing, row, say};
use super::*;
use aspfs_holder::protocol::{Ask, Reply};

/// Mounts over an empty store, with a holder that answers as the script says, else that it is done; and what it was asked to forget.
fn bed(
    mut script: impl FnMut(&Ask) -> Option<Said> + Send + 'static,
) -> (tempfile::TempDir, Mounts, Arc<Mutex<Vec<u32>>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    Store::create(&path).unwrap();
    let store = Arc::new(Store::open(&path, vefs::Options::default()).unwrap());
    let forgotten: Arc<Mutex<Vec<u32>>> = Arc::default();
    let told = forgotten.clone();
    let link = link(folder.path(), Duration::from_secs(30), move |ask| {
        if let Ask::Forget { ve, .. } = ask {
            told.lock().push(ve);
        }
        script(&ask).unwrap_or_else(|| say(Reply::Done))
    });
    (folder, Mounts::new(link, store), forgotten)
}

/// A device whose mount is gone: its poll(2) says so.
fn dead() -> OwnedFd {
    UnixStream::pair().unwrap().0.into()
}

fn broken(ve: u32, device: OwnedFd) -> Slot {
    Slot::Broken(Held { row: row(ve), device, kept: nothing() }, "its journal cannot be read".into(), 1)
}

/// An answer of the holder's was lost with its connection: it held a mount that nobody had, and refused to mount that VE for as long as the
/// daemon ran. It is told to forget what is dead and in nobody's hands, and nothing else.
#[test]
fn a_holder_that_is_found_again_forgets_what_nobody_has() {
    let (_folder, mounts, forgotten) = bed(|ask| match ask {
        Ask::Mount(_) => Some(say(Reply::End)),
        Ask::List => {
            let held = |ve, device| (Reply::Mount(row(ve)), vec![device, nothing()]);
            Some(vec![held(1, dead()), held(2, dead()), held(3, nothing()), (Reply::End, vec![])])
        }
        _ => None,
    });
    let _claim = mounts.claim(Target::live(VeId(2))).unwrap();
    assert!(mounts.link.mount(row(1)).is_err() && mounts.link.is_lost());
    mounts.keep_held();
    assert!(!mounts.link.is_lost());
    assert_eq!(*forgotten.lock(), [1]);
}

/// A mount that could not be taken over stayed in the table when it was unmounted: its VE was busy for ever, and umount looked for its device
/// number, which the kernel had given to another VE's mount by then.
#[test]
fn a_mount_that_is_not_served_ends_when_it_is_unmounted() {
    let (_folder, mounts, forgotten) = bed(|_| None);
    mounts.insert(Target::live(VeId(1)), broken(1, dead()));
    mounts.insert(Target::live(VeId(2)), broken(2, nothing()));
    assert_eq!(mounts.rows().len(), 2);
    mounts.sweep();
    assert_eq!(*forgotten.lock(), [1]);
    assert_eq!(mounts.rows().iter().map(|r| r.ve.0).collect::<Vec<_>>(), [VeId(2)], "the other one is mounted still");
    assert!(mounts.claim_alone(VeId(1)).is_ok());
    assert!(mounts.claim_alone(VeId(2)).is_err());
}

/// The holder did not answer when it was to forget an unmounted version: the version was kept from collection, and its VE from being destroyed,
/// until the daemon was started again.
#[test]
fn an_unmounted_version_is_released_whatever_the_holder_says() {
    let (_folder, mounts, _) = bed(|ask| matches!(ask, Ask::Forget { .. }).then(|| say(Reply::Refused("no".into()))));
    let base = vefs::base::BaseTree::empty().hash();
    let ve = mounts.store.create_ve(VeId(1), base, Default::default()).unwrap();
    let txn = ve.position().txn;
    drop(ve.hold_mounted("0", txn).unwrap());
    drop(ve);
    assert!(mounts.store.destroy_ve(VeId(1)).is_err(), "a version of it is mounted");
    let slot = mounts.store.mounted_versions().unwrap()[0].0;
    let version = Some(VersionOf { slot: slot.0, txn: txn.0, label: "0".into() });
    assert!(mounts.forget(&Target { ve: VeId(1), version }).is_err());
    mounts.store.destroy_ve(VeId(1)).unwrap();
}

/// What could not be served was put aside without a claim while it was tried again. One that had been unmounted meanwhile was neither mounted nor free for as long
/// as the daemon ran; and while others were tried, the holder could be ended under them.
#[test]
fn what_is_tried_again_is_claimed_meanwhile() {
    let (_folder, mounts, _) = bed(|_| None);
    let target = Target::live(VeId(1));
    mounts.insert(target.clone(), broken(1, nothing()));
    assert_eq!(mounts.broken_for("its journal cannot be read"), std::slice::from_ref(&target));
    assert!(mounts.broken_for("replication did not start").is_empty());
    let (claim, held, holder) = mounts.take_broken(target.clone()).unwrap();
    assert_eq!(holder, 1, "the holder that has it, whichever there is now");
    assert!(mounts.take_broken(target).is_none() && mounts.claim_alone(VeId(1)).is_err());
    assert!(mounts.end_holder().is_err());
    // It was unmounted.
    drop((claim, held));
    assert!(mounts.end_holder().is_ok() && mounts.claim_alone(VeId(1)).is_ok());
}
