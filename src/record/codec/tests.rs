//! Every codec: round trips, foreign framings, bombs, truncation.

use proptest::prelude::*;

use super::*;

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn compressed(codec: Compression, records: &[u8]) -> Vec<u8> {
    let mut to = b"prefix".to_vec();
    compress(codec, records, &mut to).expect("compressed");
    assert_eq!(&to[..6], b"prefix", "it appends");
    to.split_off(6)
}

/// Half noise, half repetition; longer than the blocks of snappy and LZ4.
fn mixed(len: usize) -> Vec<u8> {
    let noise = (0u32..).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8);
    noise.zip(0..len).map(|(byte, at)| if at % 64 < 32 { byte } else { b'r' }).collect()
}

proptest! {
    #[test]
    fn bytes_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..5000), choice: u8) {
        let mut data = vec![choice];
        data.extend(bytes);
        fuzz_compress(&data);
    }
}

#[test]
fn sizes_around_block_borders_round_trip() {
    for codec in CODECS {
        for len in [0, 1, 32 << 10, (32 << 10) + 1, 64 << 10, (64 << 10) + 1, 300_000] {
            let records = mixed(len);
            let small = compressed(codec, &records);
            let back = decompress(codec, &small, &DecodeLimits::default());
            assert_eq!(back.as_ref(), Ok(&records), "{codec} {len}");
        }
    }
}

#[test]
fn a_truncated_stream_never_gives_all_bytes() {
    let records = mixed(70_000);
    for codec in CODECS {
        let small = compressed(codec, &records);
        for len in (0..small.len()).step_by(97).chain(small.len() - 20..small.len()) {
            // LZ4 and snappy have no end that a cut could miss; what they give is shorter, and the
            // record parser sees that.
            let back = decompress(codec, &small[..len], &DecodeLimits::default());
            let missed = matches!(codec, Compression::Lz4) && len + 4 >= small.len();
            assert!(back.is_err() || missed || back.is_ok_and(|b| b.len() < records.len()));
        }
    }
}

#[test]
fn a_bomb_ends_in_a_typed_error() {
    let zeros = vec![0; 8 << 20];
    for codec in CODECS {
        let bomb = compressed(codec, &zeros);
        let absolute =
            DecodeLimits { bytes_max: 1 << 20, ratio_max: u32::MAX, ..DecodeLimits::default() };
        let stopped = decompress(codec, &bomb, &absolute);
        assert_eq!(stopped, Err(DecodeError::TooLarge { bytes_max: 1 << 20 }), "{codec}");
        let relative =
            DecodeLimits { ratio_max: 10, ratio_free_bytes: 1000, ..DecodeLimits::default() };
        let error = DecodeError::Ratio { compressed_bytes: bomb.len(), ratio_max: 10 };
        assert_eq!(decompress(codec, &bomb, &relative), Err(error), "{codec}");
        let exact =
            DecodeLimits { bytes_max: zeros.len(), ratio_max: 1, ratio_free_bytes: zeros.len() };
        assert!(decompress(codec, &bomb, &exact).is_ok(), "{codec}: the limit itself is allowed");
    }
}

#[test]
fn many_small_bombs_in_one_stream_count_together() {
    let member = [
        (Compression::Gzip, compressed(Compression::Gzip, &[0; 60_000])),
        (Compression::Lz4, compressed(Compression::Lz4, &[0; 60_000])),
        (Compression::Snappy, compressed(Compression::Snappy, &[0; 60_000])),
        (Compression::Zstd, compressed(Compression::Zstd, &[0; 60_000])),
    ];
    let limits = DecodeLimits { bytes_max: 1 << 20, ratio_max: u32::MAX, ratio_free_bytes: 0 };
    for (codec, member) in member {
        let two = decompress(codec, &member.repeat(2), &limits).map(|b| b.len());
        assert_eq!(two, Ok(120_000), "{codec}: joined streams are read");
        let stopped = decompress(codec, &member.repeat(20), &limits);
        assert_eq!(stopped, Err(DecodeError::TooLarge { bytes_max: 1 << 20 }), "{codec}");
    }
}

#[test]
fn raw_snappy_is_read() {
    let records = mixed(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&records).expect("compressed");
    assert_eq!(decompress(Compression::Snappy, &raw, &DecodeLimits::default()), Ok(records));
}

#[test]
fn a_snappy_block_that_claims_gigabytes_allocates_nothing() {
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let limits = DecodeLimits { bytes_max: usize::MAX, ratio_max: u32::MAX, ratio_free_bytes: 0 };
    let refused = decompress(Compression::Snappy, &claim, &limits);
    assert!(matches!(refused, Err(DecodeError::Codec { .. })));
    let mut framed = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05".to_vec();
    framed.extend(claim);
    assert!(decompress(Compression::Snappy, &framed, &limits).is_err());
}

/// Windows of 128 MiB are legal Zstandard; we do not allocate them for a batch that may be 1 MiB.
#[test]
fn a_zstd_frame_with_a_huge_window_is_refused() {
    // Magic, descriptor without content size, window descriptor 2^31, one raw last block of 1 byte.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, b'x'];
    let limits = DecodeLimits { bytes_max: 1 << 20, ..DecodeLimits::default() };
    let refused = decompress(Compression::Zstd, &frame, &limits);
    assert!(matches!(refused, Err(DecodeError::Codec { .. })), "{refused:?}");
    let mut small = frame;
    small[5] = 0;
    assert_eq!(decompress(Compression::Zstd, &small, &limits), Ok(b"x".to_vec()));
}
