use std::os::fd::AsFd;

use super::*;

/// A session's buffer after a request of `len` bytes, and where that begins.
fn buffer(len: usize) -> Vec<u8> {
    let mut buffer = vec![0; 4 << 20];
    buffer[80..80 + len].fill(7);
    read(&buffer[80..80 + len]);
    buffer
}

fn set(buffer: &[u8]) -> usize {
    std::hint::black_box(buffer).iter().filter(|b| **b == 7).count()
}

/// A thousand mounts kept two buffers of a megabyte each, for ever, because each had once been written a large file to.
#[test]
fn pages_of_a_large_request_go_when_none_follows() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let large = 1 << 20;
    let buffer = buffer(large);
    // The next request is there already: the pages are needed again at once.
    std::io::Write::write_all(&mut &theirs, b"x").unwrap();
    answered(Some(ours.as_fd()));
    assert_eq!(set(&buffer), large);
    std::io::Read::read_exact(&mut &ours, &mut [0]).unwrap();
    answered(Some(ours.as_fd()));
    assert!(set(&buffer) <= KEEP + 2 * PAGE, "{}", set(&buffer));
    assert_eq!(SPENT.get(), None);
}

#[test]
fn pages_of_a_large_request_go_when_small_ones_follow() {
    let large = 1 << 20;
    let buffer = buffer(large);
    (0..SMALL).for_each(|_| answered(None));
    assert_eq!(set(&buffer), large);
    answered(None);
    assert!(set(&buffer) <= KEEP + 2 * PAGE);
}

#[test]
fn a_thread_that_leaves_keeps_nothing_and_the_largest_request_counts() {
    let mut buffer = buffer(1 << 20);
    read(&buffer[80..80 + 300_000]);
    give_back();
    assert!(set(&buffer) <= KEEP + 2 * PAGE);
    // What the first request needs stays, and what lies beside it.
    buffer.fill(7);
    read(&buffer[80..80 + 300_000]);
    give_back();
    let kept = buffer.iter().position(|b| *b == 0).unwrap();
    assert!((KEEP..=KEEP + PAGE + 80).contains(&kept), "{kept}");
    assert!(buffer[80 + 300_000..].iter().all(|b| *b == 7));
    assert_eq!(behind(&buffer[..KEEP]), None);
}
