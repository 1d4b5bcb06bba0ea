//! Rules that hold for every frame: what is encoded decodes, and nothing else does.

use proptest::prelude::*;

use super::frame::{FrameLimits, encode};
use super::sample::Source;
use super::*;
use crate::types::ErrorCode;

mod documentation;

macro_rules! every_body {
    (calls: [$($call:ident)*]; notices: [$($notice:ident)*];) => {
        /// Something to do with the control part of every frame.
        trait Visit {
            fn visit<T: Wire + PartialEq + std::fmt::Debug>(
                &mut self,
                name: &str,
                kind: (FrameType, FrameFlags),
            );
        }

        fn visit_every_body(visit: &mut impl Visit) {
            $(
                let kind = <$call::Request as Call>::TYPE;
                let name = stringify!($call);
                visit.visit::<$call::Request>(&format!("{name}.Request"), (kind, FrameFlags::NONE));
                visit.visit::<$call::Response>(&format!("{name}.Response"), (kind, FrameFlags::ANSWER));
            )*
            $(
                let kind = <$notice::Request as Notice>::TYPE;
                let name = concat!(stringify!($notice), ".Request");
                visit.visit::<$notice::Request>(name, (kind, FrameFlags::NONE));
            )*
            visit.visit::<ErrorAnswer>("ErrorAnswer", (FrameType::Produce, FrameFlags::ERROR));
        }
    };
}

every_frame!(every_body);

fn take_one(bytes: &[u8]) -> Result<Option<Received>, FrameError> {
    let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
    let mut rest = bytes;
    loop {
        let received = deframer.next_frame()?;
        if received.is_some() || rest.is_empty() {
            return Ok(received);
        }
        let mut spare = deframer.spare();
        let (now, later) = rest.split_at(rest.len().min(bytes::BufMut::remaining_mut(&spare)));
        bytes::BufMut::put_slice(&mut spare, now);
        rest = later;
    }
}

fn frame_of<T: Wire>(kind: (FrameType, FrameFlags), value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, kind, 42, value, super::frame::DataPart::NONE);
    out
}

struct RoundTrip(u64);

impl Visit for RoundTrip {
    fn visit<T: Wire + PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        kind: (FrameType, FrameFlags),
    ) {
        let value = T::sample(&mut Source::seeded(self.0));
        let bytes = frame_of(kind, &value);
        match take_one(&bytes) {
            Ok(Some(Received::Frame(frame))) => {
                assert_eq!(
                    (frame.frame_type, frame.flags, frame.correlation),
                    (kind.0, kind.1, 42)
                );
                assert_eq!(frame.decode::<T>().as_ref(), Ok(&value), "{name}");
                assert!(frame.control.len() >= T::MIN_BYTES, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_encoded_decodes(seed: u64) {
        visit_every_body(&mut RoundTrip(seed));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_bodies(&bytes);
        fuzz_frame(&bytes);
        fuzz_deframer(&bytes);
    }
}

/// Every truncation and every flipped byte of a frame.
struct Damage(u64);

impl Visit for Damage {
    fn visit<T: Wire + PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        kind: (FrameType, FrameFlags),
    ) {
        let value = T::sample(&mut Source::seeded(self.0));
        let bytes = frame_of(kind, &value);
        for len in 0..bytes.len() {
            let received = take_one(&bytes[..len]);
            assert_eq!(received, Ok(None), "{name} cut to {len} is not a frame");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                match take_one(&damaged) {
                    Err(_) | Ok(Some(Received::Refused(_) | Received::Skipped(_)) | None) => {}
                    Ok(Some(Received::Frame(frame))) => {
                        panic!("{name} with byte {at} flipped was taken: {frame:?}")
                    }
                }
            }
        }
        // The CRCs aside: the control part itself.
        let control = &bytes[HEADER_BYTES..];
        for len in 0..control.len() {
            assert!(T::decode(&control[..len]).is_err(), "{name} decodes when cut to {len}");
        }
        for at in 0..control.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = control.to_vec();
                damaged[at] ^= flip;
                fuzz_bodies(&damaged);
            }
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_is_refused() {
    for seed in 0..3 {
        visit_every_body(&mut Damage(seed));
    }
}

#[test]
fn unknown_types_flags_and_versions_are_refused_by_name() {
    let good = FrameHeader {
        version: 1,
        flags: FrameFlags::NONE,
        frame_type: FrameType::Ping.as_u16(),
        reserved: 0,
        correlation: 7,
        control_bytes: 0,
        data_bytes: 0,
        body_crc: 0,
    };
    for (header, code) in [
        (FrameHeader { version: 9, ..good }, ErrorCode::UnsupportedVersion),
        (FrameHeader { flags: FrameFlags(4), ..good }, ErrorCode::UnknownFlags),
        (FrameHeader { flags: FrameFlags(2), ..good }, ErrorCode::UnknownFlags),
        (FrameHeader { reserved: 1, ..good }, ErrorCode::UnknownFlags),
        (FrameHeader { frame_type: 999, ..good }, ErrorCode::UnknownRequest),
        (FrameHeader { body_crc: 1, ..good }, ErrorCode::ChecksumMismatch),
    ] {
        match take_one(&header.to_bytes()) {
            Ok(Some(Received::Refused(refused))) => {
                assert_eq!((refused.correlation, refused.error.code), (7, code));
            }
            other => panic!("{header:?}: {other:?}"),
        }
    }
    let with_data = FrameHeader { data_bytes: 1, ..good }.to_bytes();
    let received = take_one(&[with_data.as_slice(), b"x"].concat());
    assert!(
        matches!(received, Ok(Some(Received::Refused(r))) if r.error.code == ErrorCode::MalformedFrame)
    );
}

#[test]
fn a_produced_batch_cannot_land_in_another_partition() {
    let batch = vec![5; 200];
    let request = produce::Request::sample(&mut Source::plain());
    let mut frame = Vec::new();
    produce::encode(&mut frame, 1, &request, &batch);
    frame.extend_from_slice(&batch);
    let bound = frame.len() - batch.len() + super::frame::BATCH_HEADER_BYTES;
    for at in HEADER_BYTES..bound {
        let mut damaged = frame.clone();
        damaged[at] ^= 0x10;
        assert!(matches!(take_one(&damaged), Ok(Some(Received::Refused(_)))), "byte {at}");
    }
}

#[test]
fn a_count_beyond_the_frame_allocates_nothing() {
    let mut claims = u32::MAX.to_le_bytes().to_vec();
    claims.extend_from_slice(&[0; 64]);
    assert!(Vec::<u64>::decode(&claims).is_err());
    assert!(Vec::<crate::types::TopicName>::decode(&claims).is_err());
}

#[test]
fn a_fetch_answer_is_split_by_its_lengths() {
    let mut response = fetch::Response::sample(&mut Source::plain());
    let mut failed = response.partitions[0].clone();
    failed.read = Err(ErrorAnswer::new(ErrorCode::TopicNotFound, "gone"));
    response.partitions[0].read.as_mut().expect("a plain sample is Ok").data_bytes = 3;
    response.partitions.insert(0, failed);
    let data = bytes::Bytes::from_static(b"abc");
    let split = response.split(data.clone()).expect("lengths fit");
    assert_eq!(split, [bytes::Bytes::new(), data.clone()]);
    assert!(response.split(data.slice(1..)).is_err());
}
