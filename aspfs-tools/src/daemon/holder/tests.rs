use super::fake::{link, made, row, say};
use super::*;

const SHORT: Duration = Duration::from_millis(200);

/// The holder took longer than it may to make VE 1's mount. Its answer came when the daemon had asked for VE 2's on the same connection, and
/// was taken for the answer to that: VE 1's root would have been served for VE 2.
#[test]
fn an_answer_that_comes_late_is_not_taken_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let link = link(folder.path(), SHORT, |ask| match ask {
        Ask::Mount(row) => {
            if row.ve == 1 {
                std::thread::sleep(SHORT * 3);
            }
            made(row)
        }
        _ => say(Reply::Done),
    });
    assert!(matches!(link.mount(row(1)), Err(LinkError::Silent { .. })));
    assert!(link.is_lost(), "the connection is not used any more");
    // Also where the late answer is there before the next question.
    std::thread::sleep(SHORT * 4);
    assert!(matches!(link.mount(row(2)), Err(LinkError::Silent { .. })));
    link.renew().unwrap();
    assert!(!link.is_lost());
    assert_eq!(link.mount(row(2)).unwrap().0.row.ve, 2);
}

/// Whatever the reason: a mount that is not the one that was asked for is none.
#[test]
fn a_mount_of_another_ve_or_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let link = link(folder.path(), SHORT * 50, |ask| match ask {
        Ask::Mount(wanted) => made(if wanted.ve == 3 { row(3) } else { row(9) }),
        _ => say(Reply::Done),
    });
    assert!(matches!(link.mount(row(1)), Err(LinkError::Confused)));
    link.renew().unwrap();
    let version = Some(VersionOf { slot: 3, txn: 5, label: "5".into() });
    assert!(matches!(link.mount(Row { version, ..row(3) }), Err(LinkError::Confused)));
    link.renew().unwrap();
    assert!(link.mount(row(3)).is_ok());
}

/// A refusal is an answer like any other.
#[test]
fn after_a_refusal_the_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let link = link(folder.path(), SHORT * 50, |ask| match ask {
        Ask::Quit => say(Reply::Refused("1 mounts are held".into())),
        _ => say(Reply::Done),
    });
    assert!(matches!(link.quit(), Err(LinkError::Refused(_))));
    assert!(!link.is_lost());
    link.forget(VeId(1), None).unwrap();
}
