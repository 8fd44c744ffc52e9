//! Golden bytes of blobs (promise G28), and random and mutated ones (promise G29).

use aspfs_replica::blob::{self, BlobError, COMPRESSED, HEADER_LEN, Kind};
use aspfs_replica::catchup::{
    ANSWER_MAX, ASK_MAX, Answer, Ask, BYTES_MAX, OBJECTS_MAX, Page, Part, STRETCHES_MAX, Stretch,
};
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
    let over = || Question::Over(Epoch(1)).encode(VeId(1));
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
    let rows = |after, upto| Ask::Rows { ve, at, after, upto, epoch: Epoch(1) };
    ask(rows(Some(vec![]), None));
    ask(rows(Some(vec![1; 300]), None));
    ask(rows(None, Some(vec![])));
    ask(rows(Some(vec![2]), Some(vec![1])));
    let compare = |after, keys: &[u8]| {
        let stretches = keys.iter().map(|k| Stretch { upto: vec![*k], digest: Hash([0; 32]) }).collect();
        Ask::Compare { ve, at, after, stretches, epoch: Epoch(1) }
    };
    ask(compare(None, &[]));
    ask(compare(Some(vec![3]), &[3, 4]));
    ask(compare(None, &[3, 3]));
    ask(compare(None, &[3; STRETCHES_MAX + 1]));
    ask(Ask::Payloads { ve, at, wanted: vec![] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 0)] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1 << 21)] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1 << 20); 17] });
    ask(Ask::Payloads { ve, at, wanted: vec![(id, 1); 1025] });
    ask(Ask::Objects { wanted: vec![], offset: 0 });
    ask(Ask::Objects { wanted: vec![Hash([0; 32]); OBJECTS_MAX + 1], offset: 0 });
    ask(Ask::Objects { wanted: vec![Hash([0; 32])], offset: u64::MAX });
    let answer = |a: Answer| assert!(matches!(Answer::decode(&a.encode(false)), Err(BlobError::Field(_))), "{a:?}");
    let row = |k: u8| (vec![k], vec![1]);
    answer(Answer::Rows(Page::default()));
    answer(Answer::Rows(Page { rows: vec![row(2), row(1)], ..Page::default() }));
    answer(Answer::Rows(Page { rows: vec![row(2), row(2)], ..Page::default() }));
    answer(Answer::Rows(Page { rows: vec![(vec![1], vec![])], ..Page::default() }));
    answer(Answer::Bytes { total: 5, offset: 5, bytes: vec![1] });
    answer(Answer::Bytes { total: 5, offset: u64::MAX, bytes: vec![1] });
    answer(Answer::Bytes { total: 5, offset: 0, bytes: vec![] });
    let part = |total, offset, len| Part { total, offset, bytes: vec![1; len] };
    answer(Answer::Same(vec![]));
    answer(Answer::Same(vec![true; STRETCHES_MAX + 1]));
    answer(Answer::Parts(vec![]));
    answer(Answer::Parts(vec![part(1, 0, 1), part(5, 5, 1)]));
    answer(Answer::Parts(vec![part(1, 0, 1), part(5, 0, 0)]));
    answer(Answer::Parts(vec![part(0, 0, 0); OBJECTS_MAX + 1]));
    let half = BYTES_MAX / 2 + 1;
    answer(Answer::Parts(vec![part(half as u64, 0, half); 2]));
    let question = Question::Lease(Epoch(1), u64::MAX);
    assert!(matches!(Question::decode(&question.encode(ve)), Err(BlobError::Field("number"))));
    let reply = Reply::Joined(far, None);
    assert!(matches!(Reply::decode(&reply.encode(ve)), Err(BlobError::Field("number"))));
}

/// An answer is compressed where that makes it smaller, and read all the same (checks G28).
#[test]
fn answers_are_compressed_where_it_pays() {
    let of = |bytes: Vec<u8>| Answer::Parts(vec![Part { total: bytes.len() as u64, offset: 0, bytes }]);
    let kind = |blob: &[u8]| u16::from_le_bytes([blob[6], blob[7]]);
    let text = of(b"the same again and ".repeat(1000));
    let blob = text.encode(true);
    assert_eq!(kind(&blob), Kind::Answer as u16 | COMPRESSED);
    assert!(blob.len() < 1000, "{}", blob.len());
    assert_eq!(Answer::decode(&blob).unwrap(), text);
    let noise = of((0..625u32).flat_map(|i| Hash::of(&i.to_le_bytes()).0).collect());
    let blob = noise.encode(true);
    assert_eq!((kind(&blob), blob.len()), (Kind::Answer as u16, noise.encode(false).len()));
    assert_eq!(Answer::decode(&blob).unwrap(), noise);
}

/// A body that says it grows to more than a blob may have is refused before it is expanded, and nothing but answers is expanded (checks G29).
#[test]
fn what_compressed_blobs_become_is_bounded() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let says = |len: u32| [&len.to_le_bytes()[..], &bomb].concat();
    let answer = |body: &[u8]| Answer::decode(&blob::with_compressed_body(Kind::Answer, body));
    assert!(matches!(answer(&says(64 << 20)), Err(BlobError::Field("length before compression"))));
    assert!(matches!(answer(&says((ANSWER_MAX - HEADER_LEN) as u32)), Err(BlobError::Zstd)));
    assert!(matches!(answer(&says(1000)), Err(BlobError::Zstd)));
    assert!(matches!(answer(&[1, 2]), Err(BlobError::Zstd)));
    let ask = blob::with_compressed_body(Kind::Ask, &says(64 << 20));
    assert!(matches!(Ask::decode(&ask), Err(BlobError::Kind(k)) if k == Kind::Ask as u16 | COMPRESSED));
    let question = blob::with_compressed_body(Kind::Question, &says(1000));
    assert!(matches!(Question::decode(&question), Err(BlobError::Kind(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// checks G29
    #[test]
    fn hostile_blobs(
        sample in 0..30usize,
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
