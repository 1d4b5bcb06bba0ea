//! What a crash leaves of segments that are full and not sealed.

use crate::env::sim::{Bias, Crash, Fault};
use crate::storage::footer::FOOTER_BYTES;
use crate::storage::manifest::SegmentState;
use crate::storage::recovery::{Recovered, recover_partition};
use crate::storage::repair::{RepairMode, RepairOptions, repair};
use crate::storage::sample::{NOW, Sample, SampleSegment};
use crate::storage::verify::{Verdict, VerifyOptions, verify};
use crate::types::PartitionHealth;

use super::*;

/// Three full segments of 30 offsets and an active one; `change` looks at each before it is put.
fn with_full(mut change: impl FnMut(usize, &mut SampleSegment)) -> Sample {
    let mut sample = Sample::new();
    for number in 0..4 {
        let mut segment = sample.segment(30 * number, 0);
        segment.append(10, 3, 200);
        let full = segment.tail;
        change(number as usize, &mut segment);
        match number {
            3 => sample.add_active(&segment),
            _ => sample.add_sealing(&segment, full),
        }
    }
    sample
}

fn bases(recovered: &Recovered) -> Vec<i64> {
    recovered.sealed.iter().map(|sealed| sealed.base_offset.0).collect()
}

fn assert_settled(sample: &Sample, first: &Recovered) {
    let before = sample.contents();
    let second = sample.recover();
    assert_eq!(sample.contents(), before, "the second recovery wrote");
    assert_eq!(second.next_offset, first.next_offset);
    assert_eq!((second.log_start, second.log_end), (first.log_start, first.log_end));
    assert_eq!((second.leader_epoch, &second.epochs), (first.leader_epoch, &first.epochs));
    assert_eq!((&second.health, &second.producers), (&first.health, &first.producers));
}

fn tear(segment: &mut SampleSegment, batch: usize) {
    let (from, to) = (segment.borders[batch].0 as usize, segment.borders[batch + 1].0 as usize);
    segment.bytes[from..to].fill(0);
}

fn verdicts(sample: &Sample) -> Vec<Verdict> {
    let mut found = Vec::new();
    verify(&sample.disk, &VerifyOptions::default(), &mut |row| {
        found.push(row.verdict);
        Ok(())
    })
    .expect("verifies");
    found.retain(|verdict| *verdict != Verdict::Ok);
    found
}

#[test]
fn whole_ones_are_sealed_and_the_log_goes_on_behind_them() {
    let sample = with_full(|_, _| {});
    assert_eq!(verdicts(&sample), [Verdict::Interrupted; 3]);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!((recovered.log_end, recovered.next_offset), (Offset(120), Offset(120)));
    assert_eq!(bases(&recovered), [0, 30, 60]);
    let is_sealed = |e: &SegmentEntry| matches!(e.state, SegmentState::Sealed(_));
    assert_eq!(recovered.manifest.segments.iter().filter(|e| is_sealed(e)).count(), 3);
    let file = sample.disk.read_file(sample.paths.log(Offset(30))).expect("file");
    let footer = recovered.sealed[1].footer;
    assert_eq!(file.len() as u64, footer.tail.position + FOOTER_BYTES as u64);
    assert_settled(&sample, &recovered);
    assert_eq!(verdicts(&sample), []);
}

#[test]
fn a_footer_says_that_nothing_has_to_be_read() {
    let sample = with_full(|number, segment| {
        if number < 3 {
            segment.put_footer();
        }
    });
    let recovered = sample.recover();
    let is_row = |f: &&Finding| matches!(f, Finding::Row { segment: Offset(..90), .. });
    assert_eq!(recovered.findings.iter().find(is_row), None);
    assert_eq!(bases(&recovered), [0, 30, 60]);
    assert_settled(&sample, &recovered);
}

#[test]
fn a_torn_one_takes_all_that_came_later_with_it() {
    let sample = with_full(|number, segment| match number {
        1 => tear(segment, 4),
        3 => segment.slot.offset_lease = Offset(5000),
        _ => {}
    });
    assert!(verdicts(&sample).contains(&Verdict::Torn));
    let later = [60, 90].map(|base| sample.disk.read_file(sample.paths.log(Offset(base))));
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!((bases(&recovered), recovered.log_end), (vec![0], Offset(42)));
    assert!(recovered.next_offset >= Offset(1090), "the highest lease: {}", recovered.next_offset);
    assert_eq!(recovered.leader_epoch.0, 1);
    let kept = [60, 90].map(|base| sample.disk.read_file(sample.paths.torn(Offset(base), 0)));
    assert_eq!(kept, later);
    let torn = |f: &&Finding| matches!(f, Finding::TornCut { .. });
    assert_eq!(recovered.findings.iter().filter(torn).count(), 3);
    assert_settled(&sample, &recovered);
}

#[test]
fn what_a_later_slot_states_was_durable_in_front_of_it_too() {
    let sample = with_full(|number, segment| match number {
        1 => tear(segment, 4),
        3 => segment.sync(),
        _ => {}
    });
    assert!(verdicts(&sample).contains(&Verdict::Corrupt), "what will be fenced");
    let before = sample.contents();
    let recovered = sample.recover();
    let PartitionHealth::Fenced { first_bad, next_good } = recovered.health else {
        panic!("{:?}", recovered.health)
    };
    assert_eq!((first_bad, next_good), (Offset(42), Some(Offset(45))));
    assert_eq!(recovered.log_end, Offset(120), "what is behind stays readable");
    let logs = |contents: &[(String, Vec<u8>)]| {
        contents.iter().filter(|(name, _)| name.contains("0030.log")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(logs(&sample.contents()), logs(&before), "nothing is cut");
}

#[test]
fn nothing_is_cut_below_its_own_watermark() {
    let sample = with_full(|number, segment| {
        if number == 1 {
            segment.sync();
            tear(segment, 4);
        }
    });
    assert!(verdicts(&sample).contains(&Verdict::Corrupt));
    let recovered = sample.recover();
    assert!(matches!(recovered.health, PartitionHealth::Fenced { first_bad: Offset(42), .. }));
    assert!(sample.disk.files().iter().all(|(path, _)| !path.starts_with("torn")));
}

#[test]
fn nothing_is_cut_while_a_later_lease_is_not_known() {
    let sample = with_full(|number, segment| match number {
        1 => tear(segment, 4),
        3 => segment.bytes[4096..12_288].fill(0),
        _ => {}
    });
    let recovered = sample.recover();
    assert!(matches!(recovered.health, PartitionHealth::Fenced { first_bad: Offset(42), .. }));
    assert!(sample.disk.read_file(sample.paths.log(Offset(60))).is_some());
}

#[test]
fn a_missing_one_is_damage() {
    let sample = with_full(|_, _| {});
    sample.disk.delete_file(sample.paths.log(Offset(30)));
    assert!(verdicts(&sample).contains(&Verdict::Missing));
    let recovered = sample.recover();
    assert!(matches!(recovered.health, PartitionHealth::Fenced { first_bad: Offset(30), .. }));
    assert_eq!(recovered.log_end, Offset(120));
}

#[test]
fn without_a_manifest_they_are_readable_and_a_repair_keeps_them() {
    let sample = with_full(|_, _| {});
    sample.disk.delete_file(sample.paths.manifest());
    let recovered = sample.recover();
    assert!(matches!(recovered.health, PartitionHealth::Fenced { .. }));
    assert_eq!((bases(&recovered), recovered.log_end), (vec![0, 30, 60], Offset(120)));
    let options = RepairOptions {
        mode: RepairMode::Write,
        accept_loss: [sample.paths.id()].into(),
        names: std::collections::BTreeMap::default(),
        now: NOW,
    };
    let summary = repair(&sample.disk, &options, &mut |_| Ok(())).expect("repairs");
    assert_eq!((summary.repaired, summary.lost_offsets), (1, 0));
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!(recovered.log_end, Offset(120));
}

#[test]
fn a_crash_at_any_operation_leads_to_the_same_end() {
    for torn in [false, true] {
        let sample = with_full(|number, segment| {
            if torn && number == 1 {
                tear(segment, 4);
            }
        });
        let start = sample.disk.fork();
        let expected = sample.recover();
        let total = sample.disk.ops() - start.ops();
        for op in 1..=total {
            for seed in 0..8 {
                let again = Sample {
                    disk: start.fork(),
                    paths: sample.paths.clone(),
                    manifest: sample.manifest.clone(),
                };
                again.disk.fail_from(op, Fault::Eio);
                let _interrupted =
                    recover_partition(&again.disk, &again.paths, &again.context()).is_err();
                let crash = Crash { bias: Bias::Random, seed: op * 100 + seed };
                let after = Sample { disk: again.disk.crash(crash), ..again };
                let recovered = after.recover();
                let told = format!("op {op} seed {seed}: {:?}", recovered.findings);
                assert_eq!(recovered.log_end, expected.log_end, "{told}");
                assert_eq!(recovered.health, PartitionHealth::Writable);
                assert!(recovered.next_offset >= expected.next_offset, "op {op} seed {seed}");
                assert_settled(&after, &recovered);
                let kept = after.disk.read_file(after.paths.torn(Offset(60), 0));
                assert_eq!(kept.is_some(), torn, "op {op} seed {seed}");
            }
        }
    }
}
