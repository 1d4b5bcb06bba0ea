//! Verdicts on partitions that were damaged on purpose.

use crate::env::Disk;
use crate::storage::sample::{Sample, SampleSegment};

use super::*;

/// Two sealed segments of 30 records and an active one with 12 synced and 6 unsynced.
fn example(then: impl FnOnce(&mut SampleSegment)) -> Sample {
    let mut sample = Sample::new();
    for base in [0, 30] {
        let mut segment = sample.segment(base, 0);
        segment.append(10, 3, 700);
        sample.add_sealed(segment);
    }
    let mut last = sample.segment(60, 0);
    last.append(4, 3, 100);
    last.sync();
    last.append(2, 3, 100);
    then(&mut last);
    sample.add_active(&last);
    sample
}

fn rows(sample: &Sample) -> (Vec<VerifyRow>, VerifySummary) {
    let mut rows = Vec::new();
    let mut sink = |row| {
        rows.push(row);
        Ok(())
    };
    let before = sample.contents();
    let summary = verify(&sample.disk, &VerifyOptions::default(), &mut sink).expect("verifies");
    assert_eq!(sample.contents(), before, "verify wrote");
    (rows, summary)
}

fn found(rows: &[VerifyRow], verdict: Verdict) -> Vec<(i64, i64)> {
    let range = |row: &VerifyRow| {
        let number = |offset: Option<Offset>| offset.map_or(-1, |offset| offset.0);
        (number(row.first_offset), number(row.last_offset))
    };
    rows.iter().filter(|row| row.verdict == verdict).map(range).collect()
}

#[test]
fn a_sound_directory_is_ok() {
    let sample = example(|_| {});
    let (rows, summary) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Ok), [(0, 29), (30, 59), (60, 71), (72, 77)]);
    assert_eq!((summary.corrupt, summary.notes, summary.live), (0, 0, false));
    assert_eq!((summary.segments, summary.batches, summary.records), (3, 26, 78));
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_corrupt_with_its_offsets() {
    let sample = example(|_| {});
    let path = sample.paths.log(Offset(30));
    sample.disk.flip_bit(&path, 16_384 + 3000, 3);
    let (rows, summary) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Corrupt), [(33, 35)]);
    assert_eq!(found(&rows, Verdict::Ok), [(0, 29), (30, 32), (36, 59), (60, 71), (72, 77)]);
    assert_eq!(summary.corrupt, 1);
}

#[test]
fn each_damaged_range_of_a_file_is_reported_with_its_offsets() {
    let sample = example(|segment| {
        for batch in [1, 3] {
            let at = segment.borders[batch].0 as usize + 70;
            segment.bytes[at] ^= 1;
        }
    });
    for position in [16_384 + 3000, 16_384 + 7500] {
        sample.disk.flip_bit(sample.paths.log(Offset(30)), position, 3);
    }
    let (rows, summary) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Corrupt), [(33, 35), (39, 41), (63, 65), (69, 71)]);
    assert_eq!(summary.corrupt, 4);
}

#[test]
fn every_flipped_byte_of_sealed_data_is_corrupt() {
    let sample = example(|_| {});
    let path = sample.paths.log(Offset(0));
    let len = sample.disk.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
    for position in (16_384..len - 192).step_by(61) {
        sample.disk.flip_bit(&path, position, 1);
        let (rows, summary) = rows(&sample);
        assert!(summary.corrupt > 0, "byte {position}: {rows:?}");
        sample.disk.flip_bit(&path, position, 1);
    }
}

#[test]
fn a_torn_tail_is_a_verdict_and_no_corruption() {
    let sample = example(|segment| {
        let cut = segment.bytes.len() - 20;
        segment.bytes.truncate(cut);
        segment.allocate(5000);
    });
    let (rows, summary) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Torn), [(75, -1)]);
    assert_eq!((summary.corrupt, summary.notes), (0, 1));
}

#[test]
fn a_flipped_bit_below_the_watermark_of_the_active_segment_is_corrupt() {
    let sample = example(|segment| {
        let at = segment.borders[1].0 as usize + 65;
        segment.bytes[at] ^= 4;
    });
    let (rows, _) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Corrupt), [(63, 65)]);
}

#[test]
fn damaged_descriptions_are_told_from_damaged_records() {
    let sample = example(|_| {});
    let path = sample.paths.log(Offset(0));
    let len = sample.disk.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
    for position in [100, len - 50] {
        sample.disk.flip_bit(&path, position, 0);
        let (rows, summary) = rows(&sample);
        assert!(!found(&rows, Verdict::DescriptionDamaged).is_empty(), "{position}");
        assert!(found(&rows, Verdict::Corrupt).is_empty());
        assert!(summary.corrupt > 0);
        sample.disk.flip_bit(&path, position, 0);
    }
}

#[test]
fn missing_and_unexplained_files_are_named() {
    let sample = example(|_| {});
    sample.disk.delete_file(sample.paths.log(Offset(30)));
    sample.disk.write_file(sample.paths.log(Offset(99)), b"whose?");
    sample.disk.write_file(sample.paths.dir().join("epochs"), b"bad cache");
    let (rows, _) = rows(&sample);
    assert_eq!(found(&rows, Verdict::Missing), [(30, 59)]);
    assert_eq!(found(&rows, Verdict::Unexplained).len(), 1);
    assert_eq!(found(&rows, Verdict::CacheBad).len(), 1);
}

#[test]
fn a_damaged_manifest_is_corruption() {
    let sample = example(|_| {});
    sample.disk.flip_bit(sample.paths.manifest(), 70, 0);
    let (rows, summary) = rows(&sample);
    assert_eq!(found(&rows, Verdict::ManifestDamaged).len(), 1);
    assert!(summary.corrupt > 0);
}

#[test]
fn below_a_running_broker_only_the_durable_part_is_checked() {
    let sample = example(|segment| {
        let cut = segment.bytes.len() - 20;
        segment.bytes.truncate(cut);
    });
    let lock = sample.disk.lock(Path::new(LOCK_FILE)).expect("free");
    let (rows, summary) = rows(&sample);
    assert!(summary.live);
    assert_eq!(found(&rows, Verdict::AboveWatermark), [(72, -1)]);
    assert_eq!((summary.corrupt, summary.records), (0, 72));
    drop(lock);
}

#[test]
fn names_come_from_the_caller_and_rows_are_json() {
    let sample = example(|_| {});
    let id = sample.paths.id().topic;
    let options =
        VerifyOptions { names: BTreeMap::from([(id, "orders".to_owned())]), ..Default::default() };
    let mut lines = Vec::new();
    let mut sink = |row: VerifyRow| {
        lines.push(serde_json::to_value(&row)?);
        Ok(())
    };
    verify(&sample.disk, &options, &mut sink).expect("verifies");
    let first = lines.first().expect("a row");
    assert_eq!(first["topic"], "orders");
    assert_eq!((&first["first_offset"], &first["verdict"]), (&0.into(), &"ok".into()));
}

#[test]
fn another_directory_is_refused() {
    let disk = crate::env::sim::SimDisk::new(3);
    let result = verify(&disk, &VerifyOptions::default(), &mut |_| Ok(()));
    assert!(matches!(result, Err(VerifyError::Meta(_))));
}
