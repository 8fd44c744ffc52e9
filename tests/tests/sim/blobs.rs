//! Golden bytes of blobs (promise G28), and random and mutated ones (promise G29).

use aspfs_replica::blob::{BlobError, HEADER_LEN};
use aspfs_replica::catchup::{ASK_MAX, Answer, Ask, Page};
use aspfs_replica::member::{Question, Reply};
use aspfs_tests::{golden, hostile_blobs};
use proptest::prelude::*;
use vefs::ids::{Epoch, Hash, PayloadId, Position, TxnNo, VeId};

#[test]
fn todays_blobs_are_the_golden_ones() {
    golden::check("blobs.hex", &hostile_blobs::encoded());
}

#[test]
fn golden_blobs_are_read() {
    let golden = golden::read("blobs.hex");
    for (name, ask) in hostile_blobs::asks() {
        assert_eq!(Ask::decode(&golden[&format!("ask-{name}")]).unwrap(), ask, "{name}");
    }
    for (name, answer) in hostile_blobs::answers() {
        assert_eq!(Answer::decode(&golden[&format!("answer-{name}")]).unwrap(), answer, "{name}");
    }
    for (name, question) in hostile_blobs::questions() {
        assert_eq!(Question::decode(&golden[&format!("question-{name}")]).unwrap().1, question, "{name}");
    }
    for (name, reply) in hostile_blobs::replies() {
        assert_eq!(Reply::decode(&golden[&format!("reply-{name}")]).unwrap().1, reply, "{name}");
    }
}

fn resealed(mut bytes: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    bytes[8..12].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Every flipped bit is noticed, and what is honest and not known is named (checks G28, G29).
#[test]
fn damage_is_noticed_and_what_is_not_known_is_named() {
    for (name, bytes) in hostile_blobs::encoded() {
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = Ask::decode(&bad).is_ok() || Answer::decode(&bad).is_ok();
            assert!(!read && Question::decode(&bad).is_err() && Reply::decode(&bad).is_err(), "{name} bit {bit}");
        }
    }
    let over = || Question::Over.encode(VeId(1));
    assert!(matches!(Question::decode(&over()[..HEADER_LEN - 1]), Err(BlobError::Short(11))));
    assert!(matches!(Reply::decode(&over()), Err(BlobError::Kind(3))));
    let other = resealed(over(), |b| b[4] = 2);
    assert!(matches!(Question::decode(&other), Err(BlobError::Format { found: 2 })));
    let encoding = resealed(over(), |b| b[HEADER_LEN] = 9);
    assert!(matches!(Question::decode(&encoding), Err(BlobError::Codec(_))));
    assert!(matches!(Ask::decode(&vec![0; ASK_MAX + 1]), Err(BlobError::Long { .. })));
}

/// Numbers out of their range are refused by name (checks G29).
#[test]
fn fields_out_of_range_are_refused() {
    let (ve, at, id) = (VeId(1), Position::default(), PayloadId { txn: TxnNo(1), offset: 0 });
    let far = Position { txn: TxnNo(u64::MAX), ..at };
    let ask = |a: Ask| assert!(matches!(Ask::decode(&a.encode()), Err(BlobError::Field(_))), "{a:?}");
    ask(Ask::Tree { hash: Hash([0; 32]), offset: u64::MAX });
    ask(Ask::Done { ve, at: far });
    ask(Ask::Rows { ve, at, after: Some(vec![]), epoch: Epoch(1) });
    ask(Ask::Rows { ve, at, after: Some(vec![1; 300]), epoch: Epoch(1) });
    ask(Ask::Payloads { ve, at, wanted: vec![] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 0)] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1 << 21)] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1 << 20); 17] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1); 1025] });
    let answer = |a: Answer| assert!(matches!(Answer::decode(&a.encode()), Err(BlobError::Field(_))), "{a:?}");
    let row = |k: u8| (vec![k], vec![1]);
    answer(Answer::Rows(Page::default()));
    answer(Answer::Rows(Page { rows: vec![row(2), row(1)], ..Page::default() }));
    answer(Answer::Rows(Page { rows: vec![row(2), row(2)], ..Page::default() }));
    answer(Answer::Rows(Page { rows: vec![(vec![1], vec![])], ..Page::default() }));
    answer(Answer::Bytes { total: 5, offset: 5, bytes: vec![1] });
    answer(Answer::Bytes { total: 5, offset: u64::MAX, bytes: vec![1] });
    answer(Answer::Bytes { total: 5, offset: 0, bytes: vec![] });
    let question = Question::Lease(Epoch(1), u64::MAX);
    assert!(matches!(Question::decode(&question.encode(ve)), Err(BlobError::Field("number"))));
    let reply = Reply::Joined(far, None);
    assert!(matches!(Reply::decode(&reply.encode(ve)), Err(BlobError::Field("number"))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// checks G29
    #[test]
    fn hostile_blobs(
        sample in 0..26usize,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = hostile_blobs::encoded().into_values().nth(sample).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend_from_slice(&tail);
        hostile_blobs::run(&bytes);
        // The body alone, behind a header that checks out.
        hostile_blobs::run(bytes.get(HEADER_LEN..).unwrap_or(&tail));
    }
}
