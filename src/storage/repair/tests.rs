//! Fenced partitions and their way out.

use crate::env::sim::{Bias, Crash, Fault};
use crate::storage::sample::{NOW, Sample, SampleSegment};
use crate::storage::verify::{VerifyOptions, verify};
use crate::types::PartitionHealth;

use super::*;

fn example(then: impl FnOnce(&mut SampleSegment)) -> Sample {
    let mut sample = Sample::new();
    let mut segment = sample.segment(0, 0);
    segment.append(10, 3, 700);
    sample.add_sealed(segment);
    let mut last = sample.segment(30, 0);
    last.append(10, 3, 100);
    last.sync();
    last.append(2, 3, 100);
    then(&mut last);
    sample.add_active(&last);
    sample
}

fn damaged() -> Sample {
    example(|segment| {
        let at = segment.borders[4].0 as usize + 70;
        segment.bytes[at] ^= 1;
    })
}

fn run(sample: &Sample, mode: RepairMode, accept: bool) -> (Vec<RepairRow>, RepairSummary) {
    let accept_loss = accept.then_some(sample.paths.id()).into_iter().collect();
    let options = RepairOptions { mode, accept_loss, names: BTreeMap::new(), now: NOW };
    let mut rows = Vec::new();
    let mut sink = |row| {
        rows.push(row);
        Ok(())
    };
    let summary = repair(&sample.disk, &options, &mut sink).expect("repairs");
    (rows, summary)
}

fn corrupt_rows(sample: &Sample) -> u64 {
    let summary = verify(&sample.disk, &VerifyOptions::default(), &mut |_| Ok(()));
    summary.expect("verifies").corrupt
}

#[test]
fn a_sound_partition_is_left_alone() {
    let sample = example(|_| {});
    let before = sample.contents();
    let (rows, summary) = run(&sample, RepairMode::Write, true);
    assert_eq!((rows.len(), summary.repaired), (0, 0));
    assert_eq!(sample.contents(), before);
}

#[test]
fn nothing_is_given_up_without_a_word() {
    let sample = damaged();
    let before = sample.contents();
    let (_, summary) = run(&sample, RepairMode::Write, false);
    assert_eq!((summary.repaired, summary.refused), (0, 1));
    assert_eq!(sample.contents(), before);
}

#[test]
fn a_dry_run_says_what_a_repair_would_do_and_writes_nothing() {
    let sample = damaged();
    let before = sample.contents();
    let (rows, summary) = run(&sample, RepairMode::DryRun, true);
    assert_eq!(sample.contents(), before);
    assert_eq!((summary.repaired, summary.lost_offsets), (1, 3));
    let lost: Vec<_> = rows.iter().filter(|r| r.action == RepairAction::AcceptLoss).collect();
    assert_eq!(lost[0].first_offset.zip(lost[0].last_offset), Some((Offset(42), Offset(44))));
    assert!(rows.iter().all(|row| !row.done));
}

#[test]
fn a_repair_keeps_what_is_valid_marks_the_gap_and_opens_the_partition() {
    let sample = damaged();
    let original = sample.disk.read_file(sample.paths.log(Offset(30))).expect("there");
    run(&sample, RepairMode::Write, true);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    let ranges: Vec<(i64, i64)> =
        recovered.sealed.iter().map(|s| (s.base_offset.0, s.footer.tail.next_offset.0)).collect();
    assert_eq!(ranges, [(0, 30), (30, 42), (45, 66)]);
    assert_eq!(recovered.manifest.gaps.len(), 1);
    assert!(recovered.next_offset >= Offset(66) && recovered.leader_epoch > LeaderEpoch(0));
    assert_eq!(corrupt_rows(&sample), 0);
    let kept = sample.paths.quarantine("00000000000000000030.log");
    assert_eq!(sample.disk.read_file(kept), Some(original));
    let (rows, _) = run(&sample, RepairMode::Write, true);
    assert!(rows.is_empty(), "a second repair finds nothing to do");
}

#[test]
fn rot_in_a_sealed_segment_is_cut_out() {
    let sample = example(|_| {});
    sample.disk.flip_bit(sample.paths.log(Offset(0)), 16_384 + 3000, 1);
    assert!(corrupt_rows(&sample) > 0);
    run(&sample, RepairMode::Write, true);
    assert_eq!(corrupt_rows(&sample), 0);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert!(recovered.active.is_some(), "the active segment was not touched");
}

#[test]
fn rot_below_a_clean_end_is_cut_out_although_no_start_looks_there() {
    let sample = example(|segment| {
        segment.close();
        for batch in [2, 5] {
            let at = segment.borders[batch].0 as usize + 70;
            segment.bytes[at] ^= 1;
        }
    });
    assert_eq!(sample.recover().health, PartitionHealth::Writable);
    assert_eq!(corrupt_rows(&sample), 2);
    let (_, summary) = run(&sample, RepairMode::Write, false);
    assert_eq!((summary.repaired, summary.refused), (0, 1));
    let (_, summary) = run(&sample, RepairMode::Write, true);
    assert_eq!((summary.repaired, summary.lost_offsets), (1, 6));
    assert_eq!(corrupt_rows(&sample), 0);
    let recovered = sample.recover();
    assert_eq!((recovered.health, recovered.manifest.gaps.len()), (PartitionHealth::Writable, 2));
    assert!(recovered.next_offset >= Offset(66));
}

#[test]
fn a_damaged_footer_is_written_again_without_a_loss() {
    let sample = example(|_| {});
    let path = sample.paths.log(Offset(0));
    let len = sample.disk.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
    sample.disk.flip_bit(&path, len - 100, 1);
    let (_, summary) = run(&sample, RepairMode::Write, false);
    assert_eq!((summary.repaired, summary.lost_offsets), (1, 0));
    assert_eq!(corrupt_rows(&sample), 0);
}

#[test]
fn a_lost_manifest_is_made_from_the_segments() {
    let sample = example(|_| {});
    sample.disk.delete_file(sample.paths.manifest());
    run(&sample, RepairMode::Write, true);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!((recovered.log_start, recovered.log_end), (Offset(0), Offset(66)));
}

#[test]
fn a_running_broker_is_not_repaired() {
    let sample = damaged();
    let lock = sample.disk.lock(Path::new("LOCK")).expect("free");
    let options = RepairOptions {
        mode: RepairMode::Write,
        accept_loss: BTreeSet::new(),
        names: BTreeMap::new(),
        now: NOW,
    };
    assert!(matches!(repair(&sample.disk, &options, &mut |_| Ok(())), Err(VerifyError::InUse)));
    drop(lock);
}

#[test]
fn a_crash_at_any_operation_leaves_a_partition_that_can_still_be_repaired() {
    let sample = damaged();
    let start = sample.disk.fork();
    run(&sample, RepairMode::Write, true);
    let total = sample.disk.ops() - start.ops();
    for op in 1..total {
        let again = Sample {
            disk: start.fork(),
            paths: sample.paths.clone(),
            manifest: sample.manifest.clone(),
        };
        again.disk.fail_from(op, Fault::Eio);
        let options = RepairOptions {
            mode: RepairMode::Write,
            accept_loss: BTreeSet::from([again.paths.id()]),
            names: BTreeMap::new(),
            now: NOW,
        };
        assert!(repair(&again.disk, &options, &mut |_| Ok(())).is_err(), "op {op}");
        let crash = Crash { bias: Bias::Random, seed: op };
        let after = Sample { disk: again.disk.crash(crash), ..again };
        // A broker that starts in between neither loses nor opens anything.
        after.recover();
        run(&after, RepairMode::Write, true);
        let recovered = after.recover();
        assert_eq!(recovered.health, PartitionHealth::Writable, "op {op}");
        let records: u64 = recovered.sealed.iter().map(|s| s.footer.tail.records).sum();
        assert_eq!(records, 63, "op {op}");
    }
}
