//! Pages that a program dirtied in a mapping and never synced (promise G6): they are fetched from the kernel where the VE is followed, by a
//! process that may hang without anybody being held up.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use aspfs_tests::mounted::Bed;
use aspfs_tests::mounted::system::Mapping;

use crate::{PROGRAM, VE};

const OTHER: &str = "0000002B";
const LEN: usize = 8192;

fn mapped(ve: &Path) -> (File, Mapping) {
    let path = ve.join("mapped");
    fs::write(&path, vec![b'-'; LEN]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mapping = Mapping::new(&file, LEN, true, true).unwrap();
    (file, mapping)
}

/// What the daemon has of it.
fn stored(bed: &Bed, ve: &str) -> String {
    bed.aspfs(&["cat", ve, "/mapped"])
}

fn until(bed: &Bed, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    let end = began + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}\n{}", bed.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("not so any more after {:?}: {what}", began.elapsed());
}

/// checks G6: what waits in the kernel is fetched, before the kernel thinks of it: the other VE's pages, dirtied before, are still there.
#[test]
fn dirty_pages_of_a_followed_ve_are_fetched() {
    let Some(bed) = Bed::start(PROGRAM, Duration::from_secs(300)) else { return };
    let alone = bed.ve(OTHER, &[]);
    bed.verdict("go");
    let followed = bed.ve(VE, &[]);
    let (alone, followed) = (mapped(&alone), mapped(&followed));
    alone.1.write(0, b"alone");
    followed.1.write(4096, b"first");
    until(&bed, "the first page does not arrive", || stored(&bed, VE)[4096..].starts_with("first"));
    assert!(stored(&bed, OTHER).starts_with("-----"), "the kernel was quicker");
    // Again and again, and after a takeover.
    followed.1.write(0, b"second");
    until(&bed, "the second page does not arrive", || stored(&bed, VE).starts_with("second"));
    bed.kill();
    bed.run();
    followed.1.write(0, b"third");
    until(&bed, "the third page does not arrive", || stored(&bed, VE).starts_with("third"));
    drop((alone, followed));
    bed.finish();
}

/// checks G6, G16, G20: in a stalled VE the fetched pages wait, and hold up neither the daemon's end, nor a later fetch, nor the unmounting.
#[test]
fn fetching_from_a_stalled_ve_holds_nothing_up() {
    let Some(bed) = Bed::make(PROGRAM, Duration::from_secs(300)) else { return };
    bed.verdict("go");
    bed.run();
    let ve = bed.ve(VE, &[]);
    let files = mapped(&ve);
    bed.verdict("wait");
    files.1.write(0, b"first");
    bed.until_parked(1);
    bed.kill();
    bed.run();
    bed.until_parked(1);
    assert!(bed.stop().success(), "{}", bed.log());
    bed.run();
    bed.until_parked(1);
    // Of a page that is being written back the kernel keeps the program from writing to it once more: this is another one.
    files.1.write(4096, b"second");
    bed.until_parked(2);
    bed.verdict("go");
    until(&bed, "the pages do not arrive", || {
        let stored = stored(&bed, VE);
        stored.starts_with("first") && stored[4096..].starts_with("second")
    });
    // It has the root open now and then, and still nobody is told that the mount is busy.
    drop(files);
    for _ in 0..20 {
        let again = mapped(&ve);
        again.1.write(0, b"third");
        drop(again);
        bed.umount(VE);
        bed.mount(VE, &[]);
    }
    bed.finish();
}
