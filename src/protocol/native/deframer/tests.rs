//! Frames out of bytes: whole, in pieces, refused, skipped; and the memory they hold meanwhile.

use super::*;
use crate::protocol::native::{encode_call, ping, produce};
use crate::types::{Acks, ErrorCode, PartitionId, TopicId};

fn produce_frame(batch: &[u8]) -> Vec<u8> {
    let request = produce::Request {
        publisher: 0,
        topic: TopicId::from_bytes([7; 16]),
        partition: PartitionId(3),
        acks: Acks::Os,
        deadline_ms: 0,
    };
    let mut out = Vec::new();
    produce::encode(&mut out, 9, &request, batch);
    out.extend_from_slice(batch);
    out
}

fn feed(deframer: &mut Deframer, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut spare = deframer.spare();
        let len = bytes.len().min(spare.remaining_mut());
        spare.put_slice(&bytes[..len]);
        bytes = &bytes[len..];
        if !bytes.is_empty() {
            assert_eq!(deframer.next_frame(), Ok(None), "the caller takes frames between reads");
        }
    }
}

#[test]
fn frames_do_not_depend_on_how_they_arrive() {
    let mut stream = Vec::new();
    for size in [0, 100, 70_000, 20_000, 5, 300_000, 64 << 10, 64 << 10] {
        stream.extend_from_slice(&produce_frame(&vec![size as u8; size]));
        encode_call(&mut stream, 1, &ping::Request {});
    }
    fuzz_deframer(&stream);
    fuzz_deframer(&stream[..stream.len() - 3]);
}

#[test]
fn a_large_batch_is_not_moved_once_its_size_is_proven() {
    let frame = produce_frame(&vec![1; 1 << 20]);
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(64 << 20));
    let stream = [frame.as_slice(), &frame, &frame].concat();
    let (mut rest, mut reads, mut frames) = (stream.as_slice(), 0, 0);
    while frames < 3 {
        if let Some(Received::Frame(frame)) = deframer.next_frame().expect("good frames") {
            assert_eq!(frame.data.len(), 1 << 20);
            frames += 1;
            reads = 0;
            continue;
        }
        let mut spare = deframer.spare();
        let len = rest.len().min(spare.remaining_mut());
        spare.put_slice(&rest[..len]);
        rest = &rest[len..];
        reads += 1;
        assert!(frames == 0 || reads <= 1, "one read fills the whole frame");
    }
}

#[test]
fn a_claimed_length_alone_allocates_nothing() {
    let frame = produce_frame(&vec![1; 8 << 20]);
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    for received in [1024, 60_000, 200_000] {
        let have = usize::try_from(deframer.started_bytes()).expect("small");
        feed(&mut deframer, &frame[have..received]);
        assert_eq!(deframer.next_frame(), Ok(None));
        let capacity = deframer.spare().get_ref().capacity();
        assert!(capacity <= CHUNK_BYTES.max(4 * received), "{capacity} for {received}");
    }
    let mut silent = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    feed(&mut silent, &frame[..1024]);
    assert_eq!(silent.next_frame(), Ok(None));
    silent.park();
    assert!(silent.filling.capacity() <= 1024);
}

/// Feeds a stream in pieces and skips every large frame.
fn skip_all(stream: &[u8], piece: usize) -> (Vec<Received>, usize) {
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    let (mut rest, mut taken, mut held) = (stream, Vec::new(), 0);
    loop {
        match deframer.next_frame().expect("good headers") {
            Some(received) => taken.push(received),
            None if rest.is_empty() => return (taken, held),
            None => {
                if deframer.announced().is_some() {
                    assert!(deframer.announced().is_none(), "told once");
                    deframer.skip_data();
                }
                let mut spare = deframer.spare();
                let len = piece.min(rest.len()).min(spare.remaining_mut());
                spare.put_slice(&rest[..len]);
                rest = &rest[len..];
                held = held.max(deframer.held_bytes());
            }
        }
    }
}

#[test]
fn a_skipped_body_is_never_held_and_its_checksum_still_counts() {
    let mut stream = produce_frame(&vec![3; 8 << 20]);
    let good = stream.len();
    stream.extend_from_slice(&produce_frame(&vec![4; 100_000]));
    stream[good + HEADER_BYTES + 1] ^= 1; // the topic of the second
    encode_call(&mut stream, 10, &ping::Request {});
    for piece in [1_000, 65_000, usize::MAX] {
        let (received, held) = skip_all(&stream, piece);
        assert!(held <= CHUNK_BYTES, "{held} bytes");
        let [Received::Skipped(skipped), Received::Refused(refused), Received::Frame(ping)] =
            received.as_slice()
        else {
            panic!("{received:?}");
        };
        assert_eq!((skipped.data_bytes, skipped.frame.data.len()), (8 << 20, BATCH_HEADER_BYTES));
        let request: produce::Request = skipped.frame.decode().expect("its control part is whole");
        assert_eq!((request.partition, skipped.frame.correlation), (PartitionId(3), 9));
        assert_eq!(refused.error.code, ErrorCode::ChecksumMismatch);
        assert_eq!(ping.correlation, 10);
    }
}

#[test]
fn who_sends_little_costs_little() {
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    let mut stream = Vec::new();
    encode_call(&mut stream, 1, &ping::Request {});
    feed(&mut deframer, &stream);
    assert_eq!(deframer.held_bytes(), FIRST_BYTES);
    while matches!(deframer.next_frame(), Ok(Some(_))) {}
    deframer.park();
    assert_eq!(deframer.held_bytes(), 0);
    feed(&mut deframer, &produce_frame(&[0; FIRST_BYTES])[..FIRST_BYTES]);
    assert_eq!(deframer.next_frame(), Ok(None));
    assert_eq!(deframer.spare().get_ref().capacity(), CHUNK_BYTES);
}

#[test]
fn a_bad_body_is_refused_and_the_next_frame_is_read() {
    let mut stream = produce_frame(b"batch");
    let flipped = stream.len() - 1;
    stream[flipped] ^= 1;
    encode_call(&mut stream, 10, &ping::Request {});
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    feed(&mut deframer, &stream);
    match deframer.next_frame() {
        Ok(Some(Received::Refused(refused))) => {
            assert_eq!(refused.error.code, ErrorCode::ChecksumMismatch);
            assert_eq!(refused.correlation, 9);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(deframer.next_frame(), Ok(Some(Received::Frame(f))) if f.correlation == 10));
}

#[test]
fn a_frame_before_hello_is_small() {
    let frame = produce_frame(&vec![0; 70_000]);
    let mut deframer = Deframer::new(FrameLimits::BEFORE_HELLO, BufferPool::new(0));
    feed(&mut deframer, &frame[..32]);
    assert!(matches!(deframer.next_frame(), Err(FrameError::TooLarge { correlation: 9, .. })));
}
