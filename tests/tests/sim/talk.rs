//! Golden bytes of what nodes ask each other and what an arbiter keeps (promise G28), and mutated ones (promise G29).

use aspfs_replica::runtime::{LEN_MAX, Question, Reply, TalkError};
use aspfs_tests::{golden, hostile_talk};
use proptest::prelude::*;
use vefs::codec;

#[test]
fn todays_talk_is_the_golden_one() {
    golden::check("talk.hex", &hostile_talk::encoded());
}

#[test]
fn golden_talk_is_read() {
    let golden = golden::read("talk.hex");
    for (name, question) in hostile_talk::questions() {
        assert_eq!(Question::decode(&golden[&format!("question-{name}")]).unwrap(), question, "{name}");
    }
    for (name, reply) in hostile_talk::replies() {
        assert_eq!(Reply::decode(&golden[&format!("reply-{name}")]).unwrap(), reply, "{name}");
    }
    for (name, record) in hostile_talk::records() {
        let read: aspfs_replica::arbiter::Record = codec::decode(&golden[&format!("record-{name}")]).unwrap();
        assert_eq!(read, record, "{name}");
    }
}

/// What is too long, cut off or of another kind is refused (checks G29).
#[test]
fn what_is_no_talk_is_refused() {
    for (name, bytes) in hostile_talk::encoded() {
        for cut in (0..bytes.len()).map(|len| &bytes[..len]) {
            let read = match name.split_once('-') {
                Some(("question", _)) => Question::decode(cut).is_ok(),
                Some(("reply", _)) => Reply::decode(cut).is_ok(),
                _ => codec::decode::<aspfs_replica::arbiter::Record>(cut).is_ok(),
            };
            assert!(!read, "{name}, {} bytes", cut.len());
        }
        let long = [&bytes[..], &vec![0; LEN_MAX]].concat();
        assert!(matches!(Question::decode(&long), Err(TalkError::Frame)), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// checks G29
    #[test]
    fn hostile_talk(
        sample in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let all: Vec<Vec<u8>> = hostile_talk::encoded().into_values().collect();
        let mut bytes = sample.get(&all).clone();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend_from_slice(&tail);
        hostile_talk::run(&bytes);
    }
}
